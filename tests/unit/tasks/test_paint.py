"""Images are painted token by token, in groups, as the model's own probabilities have them."""

import pytest
import torch

from formers import FormersError, make
from formers.decode import GREEDY, Sampling
from formers.decode.engine import Choice
from formers.tasks import paint as painting
from formers.tasks.paint import paint
from formers.tasks.pictures import START

SMALL = {"height": 4, "width": 3, "channels": 3, "levels": 4, "dim": 16, "depth": 1, "heads": 2, "hidden": 16}
NEAR = {"block": (2, 2), "memory": (2, 1)}
TORCH = Choice(None)


def model(name: str = "image_transformer", **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return make(name, **(SMALL | NEAR | changes)).build().eval()


def test_the_likeliest_image_is_the_likeliest_token_after_token() -> None:
    painter = model()
    tokens = paint(painter, [[1, 2, 3]], 36, sampling=GREEDY, engine=TORCH)
    assert tokens.shape == (1, 36) and tokens[0, :3].tolist() == [1, 2, 3]
    with torch.no_grad():
        logits = painter(torch.cat([torch.full((1, 1), START), tokens[:, :-1]], 1)).logits
    torch.testing.assert_close(logits.argmax(-1)[0, 3:], tokens[0, 3:])


def test_a_pair_paints_what_belongs_to_its_source() -> None:
    painter = model("image_completion", given=(2, 3))
    source = [[0, 1, 2] * 6, [3, 2, 1] * 6]
    tokens = paint(painter, source, 18, sampling=GREEDY, engine=TORCH)
    with torch.no_grad():
        inputs = torch.cat([torch.full((2, 1), START), tokens[:, :-1]], 1)
        logits = painter(torch.tensor(source), inputs).logits
    torch.testing.assert_close(logits.argmax(-1), tokens)


def test_groups_and_engines_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    painter, told = model(channels=1), []
    together = paint(painter, [[]] * 5, 12, seed=7)
    monkeypatch.setattr(painting, "TOGETHER", 2)
    apart = paint(painter, [[]] * 5, 12, seed=7, engine=TORCH, tick=told.append)
    torch.testing.assert_close(apart, together)
    assert len(together.unique(dim=0)) == 5
    assert told == sorted(told) and told[-1] == 1.0 and len(told) == 3 * 12


def test_what_is_for_text_is_refused() -> None:
    with pytest.raises(FormersError, match="a repetition penalty"):
        paint(model(), [[]], 36, sampling=Sampling(repetition_penalty=1.5))
