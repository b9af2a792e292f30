import torch

from formers.bench.cases import million
from formers.bench.watch import Ledger, pieces_of, watch
from formers.call import Call
from formers.places import Places


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_belongs_to_what_was_begun_last() -> None:
    clock = Clock()
    ledger = Ledger(lambda at: None, clock)
    for kind, phase, lasts in (("a", "forward", 1.0), ("b", None, 2.0), ("a", "backward", 4.0), ("", None, 8.0)):
        ledger.begin(kind, phase)
        clock.now += lasts
    ledger.begin("a")
    assert dict(ledger.seconds) == {("forward", "a"): 1.0, ("forward", "b"): 2.0, ("backward", "a"): 4.0}


def test_a_watched_model_tells_every_piece_and_computes_the_same() -> None:
    shape = million.TINY
    spec = million.spec_of(shape)
    model = spec.build().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    text = torch.randint(256, (1, shape.length + 1), generator=torch.Generator().manual_seed(0))
    wanted = pieces_of(model, Call(Places.run(0, shape.length), remember=False))
    before = million.update(model, optimizer, text, shape, Ledger(lambda at: None), step=1)
    told: list[str] = []
    ledger = Ledger(told.append)
    watch(model, million.kinds_of(spec), ledger)
    assert million.update(model, optimizer, text, shape, ledger, step=1) == before
    assert len(told) == wanted == 2 * 2 * (2 + shape.length // shape.piece)
    kinds = {"embedding", "local attention", "LSH attention", "feed-forward", "loss"}
    both = {(phase, kind) for phase in ("forward", "backward") for kind in kinds}
    assert set(ledger.seconds) == both | {("update", "optimiser")}
    assert told[0] == "forward, local attention" and told[-1] == "backward, local attention"
