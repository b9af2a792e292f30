import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from formers.bench import memory
from formers.bench.memory import MIB, free_memory, high_water, in_fresh_process, resident
from formers.bench.step import peak_of_step, sizes
from formers.errors import FormersError


def rise(count: int) -> tuple[int, int]:
    """Bytes above the start at the highest, and when freed again."""
    before = resident()
    top = high_water(lambda: torch.ones(count * MIB // 4).sum())
    return top - before, resident() - before


def doubled_weight() -> tuple[int, int]:
    """The peak of a step that holds one tensor of 32 MiB, and the weight's own bytes."""
    layer = torch.nn.Linear(1024, 1024, bias=False)
    x = torch.ones(8192, 1024)
    return peak_of_step(layer, lambda: layer(x).sum()).peak, sizes(layer.parameters())


def leave() -> None:
    os._exit(3)


def refuse(error: Exception) -> None:
    raise error


def end_by(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def threads() -> int:
    return torch.get_num_threads()


def say_and_wait(file: Path) -> None:
    """Writes its number and waits for long."""
    file.with_suffix(".new").write_text(str(os.getpid()))
    file.with_suffix(".new").rename(file)
    time.sleep(600)


def lives(process: int) -> bool:
    """Whether there is such a process; one that has ended and that nobody has asked about yet does not count."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def within(seconds: float, happens: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not happens() and time.monotonic() < end:
        time.sleep(0.05)
    return happens()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_process_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    file = tmp_path / "child"
    code = f"from test_memory import *; in_fresh_process(say_and_wait, Path({str(file)!r}))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent) as parent:
        assert within(120, file.exists)
        child = int(file.read_text())
        assert lives(child)
        parent.kill()
    assert within(30, lambda: not lives(child))


def test_tensors_come_over_whole() -> None:
    torch.testing.assert_close(in_fresh_process(torch.arange, 100_000), torch.arange(100_000))


def test_the_peak_is_told_after_it_has_passed() -> None:
    top, left = in_fresh_process(rise, 64)
    assert 64 * MIB <= top < 96 * MIB
    assert left < 32 * MIB


def test_gradients_and_the_optimiser_s_state_are_no_part_of_a_step_s_peak() -> None:
    peak, weight = in_fresh_process(doubled_weight)
    activations = 8192 * 1024 * 4
    assert weight == 4 * MIB
    assert activations < peak < activations + 64 * MIB


def test_a_process_that_dies_is_an_error_that_says_how() -> None:
    with pytest.raises(FormersError, match="ended with exit code 3"):
        in_fresh_process(leave)
    with pytest.raises(FormersError, match=r"killed \(SIGKILL\): memory may have run out"):
        in_fresh_process(end_by, signal.SIGKILL)
    with pytest.raises(FormersError, match=r"crashed \(SIGSEGV\)$"):
        in_fresh_process(end_by, signal.SIGSEGV)


def test_what_fails_in_a_fresh_process_is_told_here_without_a_traceback(capfd) -> None:
    with pytest.raises(FormersError, match=r"^the process that measured this failed: ModuleNotFoundError: no gguf$"):
        in_fresh_process(refuse, ModuleNotFoundError("no gguf"))
    with pytest.raises(FormersError, match=r"failed: too few heads$"):
        in_fresh_process(refuse, FormersError("too few heads"))
    assert capfd.readouterr().err == ""


def test_a_fresh_process_has_as_many_threads_as_this_one() -> None:
    assert in_fresh_process(threads) == torch.get_num_threads()


def test_free_memory_is_told_where_the_system_tells_it(monkeypatch, tmp_path) -> None:
    free = free_memory()
    assert free is None or free > MIB
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    assert free_memory() is None
