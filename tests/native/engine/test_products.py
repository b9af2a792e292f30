"""The products of the engine agree with float64, for every kernel, type and shape, and touch no memory but their own."""

import itertools
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from compile import FLAGS, compile_program, is_x86

from formers.native.engine.weights import TYPES, Packed, pack, unpack

KERNELS = list(FLAGS) if is_x86() else ["plain"]
COLUMNS = (1, 31, 64, 100, 257, 1088, 2300)
GROUPS = {"fp32": (0,), "bf16": (0,), "int8": (32, 64, 192), "int4": (32, 64, 128)}

# What a vector that was made ready may lose, relative to the largest number in its block of 64: half a step of the integers
# (or bf16 numbers) that it becomes.
STEP = {"fp32": 0.0, "bf16": 2.0**-16, "int8": 0.5 / 32512, "int4": 0.5 / 127}


class Case(NamedTuple):
    """What is asked of the program, and the exact answers; see products.cpp."""

    packed: Packed
    x: np.ndarray
    first: int
    rows: np.ndarray
    factors: np.ndarray
    prepared: bool

    def question(self) -> bytes:
        p = self.packed
        matrix = (TYPES.index(p.type), p.rows, p.columns, p.stride, p.group)
        head = (*matrix, len(self.x), self.prepared, self.first, len(self.rows))
        return b"".join(a.tobytes() for a in (np.array(head, np.int64), p.data, self.x, self.rows, self.factors))

    def answers(self) -> list[np.ndarray]:
        w, x = unpack(self.packed).double().numpy(), self.x.astype(np.float64)
        run, listed = w[self.first : self.first + len(self.rows)], w[self.rows]
        return [x @ run.T, listed @ x[0], listed[0], self.factors @ listed]

    def allowed(self) -> list[np.ndarray]:
        w, x = np.abs(unpack(self.packed).double().numpy()), np.abs(self.x.astype(np.float64))
        run, listed = w[self.first : self.first + len(self.rows)], w[self.rows]
        edges = np.arange(0, x.shape[1], 64)
        steps = np.repeat(np.maximum.reduceat(x, edges, axis=1), 64, axis=1)[:, : x.shape[1]]
        rounding = (x.shape[1] / 4 + 16) * 2.0**-24  # sums in fp32, at least 4 of them side by side
        near = rounding * x + STEP[self.packed.type] * steps * self.prepared
        sums = (len(self.rows) + 2) * 2.0**-24 * (np.abs(self.factors) @ listed)
        return [near @ run.T, listed @ near[0], 2.0**-22 * listed[0], sums]


def make_cases() -> list[Case]:
    chance = np.random.default_rng(0)
    cases = []
    for (type, groups), columns in itertools.product(GROUPS.items(), COLUMNS):
        rows = int(chance.integers(20, 60))
        weights = chance.standard_normal((rows, columns), np.float32) * np.float32(0.1)
        packed = [pack(weights, type, group or None) for group in groups]
        for batch, one in itertools.product((1, 2, 3, 4, 9, 16), packed):
            first = int(chance.integers(0, rows - 1))
            count = int(chance.integers(1, rows - first + 1))
            given = (chance.integers(0, rows, count), chance.standard_normal(count, np.float32))
            x = chance.standard_normal((batch, columns), np.float32)
            cases += [Case(one, x, first, *given, prepared) for prepared in (False, True)]
    return cases


@pytest.fixture
def built() -> None:
    """These need no extension: they compile for themselves."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of the program for a kernel. That of the machine with most instructions is checked by sanitizers."""
    checked = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

    @cache
    def compiled(kernel: str) -> Path:
        how = checked if kernel == KERNELS[-1] else ("-O1",)
        return compile_program("products.cpp", ("cpu.cpp",), tmp_path_factory.mktemp(kernel), *FLAGS[kernel], *how)

    return compiled


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return make_cases()


@pytest.mark.parametrize("kernel", KERNELS)
def test_agree_with_float64(kernel: str, programs: Callable[[str], Path], cases: list[Case], tmp_path: Path) -> None:
    answers = ask(programs(kernel), kernel, cases, tmp_path)
    for case, got in zip(cases, answers, strict=True):
        for value, exact, allowed in zip(got, case.answers(), case.allowed(), strict=True):
            wrong = np.abs(value - exact) > allowed + 1e-30
            where = (case.packed.type, case.packed.group, case.packed.columns, len(case.x), case.prepared)
            assert not wrong.any(), (where, value[wrong][:3], exact[wrong][:3])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_not_hidden(
    kernel: str, bad: float, programs: Callable[[str], Path], tmp_path: Path
) -> None:
    cases = []
    for type, batch in itertools.product(TYPES, (1, 16)):
        x = torch.randn(batch, 200)
        x[:, 150] = bad
        packed = pack(torch.randn(20, 200) + 5, type)
        cases.append(Case(packed, x.numpy(), 0, np.arange(20), np.ones(20, np.float32), True))
    for got in ask(programs(kernel), kernel, cases, tmp_path):
        assert not np.isfinite(got[0]).any()
        assert not np.isfinite(got[1]).any()


def ask(program: Path, kernel: str, cases: list[Case], folder: Path) -> list[list[np.ndarray]]:
    (folder / "cases").write_bytes(b"".join(case.question() for case in cases))
    done = subprocess.run([program, kernel, folder / "cases", folder / "answers"], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(f"this machine does not run the kernel {kernel}")
    assert done.returncode == 0, done.stderr[-3000:]
    numbers, at, answers = np.fromfile(folder / "answers", np.float32), 0, []
    for case in cases:
        shapes = [answer.shape for answer in case.answers()]
        answers.append([])
        for shape in shapes:
            size = int(np.prod(shape))
            answers[-1].append(numbers[at : at + size].reshape(shape).astype(np.float64))
            at += size
    assert at == len(numbers)
    return answers
