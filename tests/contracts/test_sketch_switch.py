"""A mixture of experts balances its load, drops what does not fit, and is the same model on two machines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import switch_rank
import torch
from safetensors.torch import load_file
from sketch_switch import SketchSwitch

from formers import MLP, ConfigError
from formers.call import Call
from formers.places import Places
from formers.spec import Site


def test_the_likeliest_expert_speaks_as_loudly_as_it_is_likely() -> None:
    layer, x = SketchSwitch(MLP(8), 3, capacity=3.0).build(Site(4)), torch.randn(2, 7, 4)
    call = Call(Places.run(0, 7))
    out = layer(x, call)
    p = layer.router(x).softmax(-1)
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(7)):
        best = int(p[b, t].argmax())
        alone = layer.experts[best](x[b, t][None, None], call).y[0, 0]
        torch.testing.assert_close(out.y[b, t], p[b, t, best] * alone)
    share = torch.stack([(p.argmax(-1) == i).double().mean(1) for i in range(3)], -1)
    torch.testing.assert_close(out.losses["load_balance"], 0.01 * 3 * (share * p.mean(1)).sum(-1).mean())
    other = (out.choices + 1) % 3
    torch.testing.assert_close(layer(x, call, choices=other).choices, other)


def test_what_overflows_adds_nothing_and_padding_takes_no_seat() -> None:
    layer, x = SketchSwitch(MLP(8), 4, capacity=1.0).build(Site(4)), torch.randn(1, 8, 4)
    everyone = torch.zeros(1, 8, dtype=torch.long)
    out = layer(x, Call(Places.run(0, 8)), choices=everyone)
    assert out.y[:, :2].all() and not out.y[:, 2:].any()
    assert out.records["dropped"][0] == 6
    padded = torch.cat([torch.randn(1, 5, 4), x], 1)
    at = Places((torch.arange(13)[None] - 5).clamp(min=0), torch.arange(13)[None] >= 5)
    again = layer(padded, Call(at), choices=torch.zeros(1, 13, dtype=torch.long))
    torch.testing.assert_close(again.y[:, 5:], out.y)
    torch.testing.assert_close(again.losses, layer(x, Call(Places.run(0, 8)), choices=everyone).losses)


def test_losses_of_layers_add_up_and_exact_streaming_needs_room() -> None:
    out = switch_rank.model()(switch_rank.tokens())
    assert set(out.losses) == {"load_balance"} and len(out.records["load"]) == 2
    assert out.losses["load_balance"] >= 2 * 0.01 * 0.99
    with pytest.raises(ConfigError, match="whether an expert is full"):
        switch_rank.decoder().build(streaming=True)
    switch_rank.decoder(capacity=4.0).build(streaming=True)


def test_two_processes_with_half_of_the_experts_each_are_the_same_model(tmp_path: Path) -> None:
    files = [str(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, switch_rank.__file__, str(rank), str(tmp_path / "store"), file],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank, file in enumerate(files)
    ]
    try:
        assert [process.wait(timeout=60) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    expected = switch_rank.results(switch_rank.model(), switch_rank.tokens())
    found = [load_file(file) for file in files]
    torch.testing.assert_close(torch.cat([part.pop("logits") for part in found]), expected.pop("logits"))
    for name, grad in expected.items():
        layer, is_expert, rest = name.partition(".experts.")
        number, _, weight = rest.partition(".")
        if not is_expert:
            torch.testing.assert_close(found[0][name], grad)
        else:
            owner, place = divmod(int(number), 2)
            torch.testing.assert_close(found[owner][f"{layer}.experts.own.{place}.{weight}"], grad)
