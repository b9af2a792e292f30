"""One of two processes, each with half of the batch and half of the experts: `python switch_rank.py RANK STORE OUT`."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sketch_switch import SketchSwitch, shard
from torch import Tensor, distributed, nn

from formers import MLP, Attention, Block, Decoder, stack


def decoder(capacity: float = 1.0) -> Decoder:
    return Decoder("switch", 11, 8, stack(Block((Attention(2), SketchSwitch(MLP(8), 4, capacity))), times=2))


def model() -> nn.Module:
    torch.manual_seed(0)
    built = decoder().build()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def tokens() -> Tensor:
    return torch.randint(11, (4, 10), generator=torch.Generator().manual_seed(1))


def results(built: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """Logits of the rows, and the gradients of a loss that is a sum over them."""
    out = built(rows)
    (out.logits.logsumexp(-1).sum() + 100 * out.losses["load_balance"] * len(rows)).backward()
    return {"logits": out.logits.detach()} | {name: p.grad for name, p in built.named_parameters()}


def main(rank: int, store: str, file: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=2)
    found = results(shard(model()), tokens()[2 * rank : 2 * rank + 2])
    for name, grad in found.items():
        if name != "logits" and ".own." not in name:  # an expert has met the tokens of both ranks already
            distributed.all_reduce(grad)
    save_file(found, file)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
