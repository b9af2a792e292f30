"""Room for large tensors: as PyTorch's to look at, used again, and never more than is told."""

import copy
import gc
import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor

from formers.native.kept import empty_like, library, new_empty, release, widened
from formers.native.kept.library import LEAST, open_kept, sizes

NUMBERS = LEAST // 4


@pytest.fixture
def here() -> None:
    """Skips where memory is not kept, and says why."""
    why = open_kept()
    if isinstance(why, str):
        pytest.skip(why)


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.transpose(1, 2),
    "a piece": lambda x: x[:, 1:-1],
    "every other": lambda x: x[..., ::2],
    "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shape_and_strides_are_those_that_pytorch_gives(layout: str) -> None:
    like = LAYOUTS[layout](torch.zeros(4, 6, 128, NUMBERS // 256))
    for mine, theirs in (
        (empty_like(like), torch.empty_like(like)),
        (new_empty(like, (3, NUMBERS)), like.new_empty(3, NUMBERS)),
    ):
        assert (mine.shape, mine.stride(), mine.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
        assert mine.data_ptr() % 64 == 0 and mine.is_contiguous() == theirs.is_contiguous()


def test_room_is_used_again_by_tensors_of_nearly_the_same_size(here: None) -> None:
    like = torch.zeros(1)
    first = new_empty(like, (NUMBERS + 5,))
    place, used = first.data_ptr(), sizes()[0]
    del first
    assert sizes()[0] < used
    second = new_empty(like, (NUMBERS,))
    third = new_empty(like, (NUMBERS,))
    assert second.data_ptr() == place != third.data_ptr()
    second.fill_(1)
    third.fill_(2)
    assert second.sum() == NUMBERS


def test_a_narrower_tensor_is_widened_in_such_room(here: None) -> None:
    narrow = torch.randn(2, NUMBERS, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))[1:]
    used = sizes()[0]
    wide = widened(narrow, torch.float32)
    assert sizes()[0] >= used + LEAST and torch.equal(wide, narrow.float())
    assert widened(wide, torch.float32) is wide


def test_all_that_is_kept_can_be_given_back(here: None) -> None:
    held = new_empty(torch.zeros(1), (NUMBERS,)).fill_(5)
    room = [new_empty(torch.zeros(1), (NUMBERS,)) for _ in range(3)]
    del room
    assert sizes()[1] >= 3 * LEAST
    release()
    assert sizes()[1] == 0 and held.min() == 5


def test_a_view_keeps_the_room(here: None) -> None:
    whole = new_empty(torch.zeros(1), (2, NUMBERS)).fill_(3)
    view = whole[1]
    del whole
    other = new_empty(torch.zeros(1), (2, NUMBERS)).fill_(4)
    assert view.min() == 3 and other.min() == 4


@pytest.mark.parametrize(
    "like",
    [torch.zeros(9), torch.zeros(NUMBERS, dtype=torch.bfloat16), torch.zeros(NUMBERS, device="meta")],
    ids=["small", "bfloat16", "meta"],
)
def test_everything_else_is_left_to_pytorch(like: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_taken", lambda meta: pytest.fail("it was taken"))
    assert empty_like(like).dtype == like.dtype and empty_like(like).device == like.device


def test_without_the_library_pytorch_finds_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "open_kept", lambda: "not today")
    assert empty_like(torch.zeros(NUMBERS)).shape == (NUMBERS,) and sizes() == (0, 0)


def test_what_is_kept_is_bounded(here: None) -> None:
    """Ever new sizes: each block could be kept, and most are given back."""
    code = """
import torch
from formers.native.kept import new_empty
from formers.native.kept.library import LEAST, sizes
most = 0
for turn in range(3):
    for times in (1, 2, 3, 5, 8, 12):
        room = [new_empty(torch.zeros(1), (times, LEAST // 4)) for _ in range(2)]
        used, kept = sizes()
        most = max(most, used)
        assert used >= 2 * times * LEAST and used + kept <= most, (used, kept, most)
        del room
        used, kept = sizes()
        assert used == 0 and kept <= most, (used, kept)
assert kept > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tensors_may_be_let_go_in_any_thread(here: None) -> None:
    given: list[list[Tensor]] = [[new_empty(torch.zeros(1), (NUMBERS,)) for _ in range(5)] for _ in range(4)]
    gc.collect()
    used = sizes()[0]
    threads = [threading.Thread(target=mine.clear) for mine in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes()[0] <= used - 20 * LEAST


def test_a_forked_process_has_its_own(here: None) -> None:
    """While threads take room and let it go."""
    code = """
import os, threading, torch
from formers.native.kept import new_empty
from formers.native.kept.library import LEAST, sizes
like, over = torch.zeros(1), threading.Event()
def turns():
    while not over.is_set():
        new_empty(like, (LEAST // 4,))
threads = [threading.Thread(target=turns) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        room = new_empty(like, (LEAST // 4,)).fill_(7)
        os._exit(0 if room.min() == 7 and sizes()[0] >= LEAST else 1)
    assert os.waitpid(child, 0)[1] == 0
over.set()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_copies_and_gradients_are_as_of_any_tensor(here: None) -> None:
    x = new_empty(torch.zeros(1), (NUMBERS,)).normal_()
    for other in (copy.deepcopy(x), x.clone()):
        assert torch.equal(other, x) and other.data_ptr() != x.data_ptr()
    assert x.numpy()[7] == float(x[7])
    leaf = x.clone().requires_grad_()
    (leaf * x).sum().backward()
    assert leaf.grad is not None and torch.equal(leaf.grad, x)
