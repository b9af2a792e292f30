"""From words to a command, and from what goes wrong to one message and an exit code."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from command import Cli

import formers
from formers.cli import main
from formers.cli.main import COMMANDS
from formers.errors import FormersError

COMMAND = [sys.executable, "-m", "formers"]


def raising(error: BaseException) -> Callable[[Any], NoReturn]:
    def run(options: Any) -> NoReturn:
        raise error

    return run


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"formers {formers.__version__}\n", "")


def test_help_names_every_command(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, cli: Cli) -> None:
    code, out, _ = cli(name, "--help")
    assert code == 0
    assert f"formers {name}" in out.partition("examples:\n")[2]


def test_without_a_command_the_overview_is_an_error(cli: Cli) -> None:
    code, out, err = cli()
    assert (code, out) == (2, "")
    assert "formers demo" in err


def test_a_misspelt_command_is_told(cli: Cli) -> None:
    assert cli("trian") == (2, "", "formers: there is no command 'trian'; did you mean 'train'?\n")


def test_a_misspelt_option_is_told(cli: Cli) -> None:
    code, _, err = cli("show", "gpt2", "--lenght", "8")
    assert code == 2
    assert "'--lenght' is not understood; did you mean --length?" in err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (FormersError("no such thing; give another"), 1, "no such thing; give another"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.txt"), 1, "a.txt: No such file or directory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space left on device"),
        (BrokenPipeError(), 1, "whoever was reading the output has gone; the rest of it was not written"),
        (MemoryError(), 1, "there is not enough memory for this; give a smaller model, batch or length"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            1,
            "there is not enough memory for this; give a smaller model, batch or length",
        ),
    ],
)
def test_mistakes_are_one_message(
    error: BaseException, code: int, told: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("formers.cli.list.run", raising(error))
    assert cli("list") == (code, "", f"formers: {told}\n")


@pytest.mark.parametrize("bug", [RuntimeError("shapes differ"), KeyError("x"), ValueError("odd")])
def test_a_bug_shows_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formers.cli.list.run", raising(bug))
    with pytest.raises(type(bug)):
        main(["list"])


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    with subprocess.Popen(
        [*COMMAND, "show", "gpt2", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert err == "formers: whoever was reading the output has gone; the rest of it was not written\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_full_disk_is_no_traceback() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*COMMAND, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "formers: No space left on device\n")


def test_a_terminal_without_the_characters_shows_others() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "list"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0
    assert "gpt2" in done.stdout
