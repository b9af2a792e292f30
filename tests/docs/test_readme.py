"""The README and the docs do what they say: their commands and Python blocks are run in an empty folder.

A line `<!-- skip: reason -->` before a block leaves it out.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from formers.cli import main

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<skip><!-- skip: [^\n]+ -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


class Block(NamedTuple):
    name: str
    kind: str
    text: str


def blocks(kind: str) -> list[Block]:
    found = []
    for path in DOCS:
        for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
            if match["kind"] == kind and not match["skip"]:
                line = path.read_text(encoding="utf-8").count("\n", 0, match.start("text"))
                found.append(Block(f"{path.name}:{line}", kind, match["text"]))
    return found


COMMANDS = [
    (f"{block.name} {line[2:40]}", shlex.split(line[2:], comments=True))
    for block in blocks("console")
    for line in block.text.splitlines()
    if line.startswith("$ formers ")
]


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[name for name, _ in COMMANDS])
def test_a_command_of_the_docs_runs(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words[1:]) == 0


def test_the_python_of_the_docs_runs(tmp_path: Path) -> None:
    """One process for each document, its blocks in order, as a reader would paste them."""
    for path in DOCS:
        code = "\n".join(block.text for block in blocks("python") if block.name.startswith(path.name))
        ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{path.name}: {ran.stderr}"


def test_the_error_in_the_readme_is_the_error() -> None:
    code = next(block.text for block in blocks("python") if "ConfigError" in block.text)
    told = next(block.text for block in blocks("text") if "cannot be built" in block.text)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == told


def test_make_knows_the_two_commands() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    told = [line for block in blocks("sh") for line in block.text.splitlines()]
    assert told == ["make demo", "make test"]
    assert {"demo", "test"} <= set(targets)
