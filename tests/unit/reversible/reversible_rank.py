"""One of two processes, each with half of the batch: `python reversible_rank.py RANK STORE OUT`."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from formers import MLP, Attention, Block, Decoder, PreNorm, Untied, stack
from formers.reversible import Reversible
from formers.tasks.chunked_loss import lost


def model() -> nn.Module:
    torch.manual_seed(0)
    blocks = stack(Block((Attention(2), MLP(12, chunk=4)), PreNorm()), times=2)
    built = Decoder("reversible", 11, 8, (Reversible(blocks),), head=Untied()).build().double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built


def tokens() -> Tensor:
    return torch.randint(11, (4, 10), generator=torch.Generator().manual_seed(1))


def results(forward: nn.Module, rows: Tensor) -> None:
    lost(forward, rows[:, 1:], rows[:, :-1], chunk=7).nats.backward()


def main(rank: int, store: str, file: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=2)
    built = model()
    results(DistributedDataParallel(built), tokens()[2 * rank : 2 * rank + 2])
    save_file({name: parameter.grad for name, parameter in built.named_parameters()}, file)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
