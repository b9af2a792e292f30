"""Where a pixel stands, as sines and cosines, and what its channel means."""

import math

import pytest
import torch

from formers import Attention, Block, Canvas, ChannelEmbedding, ConfigError, Coordinates, Decoder, Tied, Untied, stack
from formers.places import Places
from formers.spec.core import Site

CANVAS = Canvas(4, 6, 3, (2, 3))


def test_half_of_the_width_is_the_row_and_half_the_column_and_channel() -> None:
    layer = Coordinates(CANVAS).build(Site(dim=8))
    vectors = layer.vectors(Places.run(0, CANVAS.length), torch.float64)[0]
    at = CANVAS.tables()
    for place in range(CANVAS.length):
        wanted = []
        for axis in (int(at.row[place]), int(at.column[place]) * 3 + int(at.channel[place])):
            for rate in (1.0, 10_000**-0.5):
                wanted += [math.sin(axis * rate), math.cos(axis * rate)]
        torch.testing.assert_close(vectors[place], torch.tensor(wanted, dtype=torch.float64))


def test_no_two_tokens_of_an_image_stand_at_one_place() -> None:
    vectors = Coordinates(CANVAS).build(Site(dim=8)).vectors(Places.run(0, CANVAS.length), torch.float64)[0]
    assert (torch.cdist(vectors, vectors) + torch.eye(CANVAS.length)).min() > 0.05


def coloured(head: Tied | Untied) -> Decoder:
    blocks = stack(Block((Attention(2),)), times=1)
    embedding = ChannelEmbedding(Coordinates(CANVAS), channels=3)
    return Decoder("coloured", 5, 16, blocks, embedding, head=head)


def test_a_number_means_something_else_in_each_channel() -> None:
    model = coloured(Untied()).build()
    assert model.embedding.tokens.weight.shape == (15, 16) and model.head.proj.weight.shape == (5, 16)
    model(torch.full((1, 7), 2)).logits.sum().backward()
    assert model.embedding.tokens.weight.grad.any(-1).nonzero()[:, 0].tolist() == [2, 7, 12]
    with torch.no_grad():
        model.embedding.position = None
        same = model.embedding(torch.full((1, 6), 2), _Call())
    torch.testing.assert_close(same[0, :3], same[0, 3:])
    assert not torch.equal(same[0, 0], same[0, 1])


class _Call:
    at = Places.run(0, 6)


def test_a_head_cannot_read_several_tables() -> None:
    with pytest.raises(ConfigError, match="reads the table of token vectors, and there are 3 of them"):
        coloured(Tied()).build()


def test_channels_are_counted_from_one() -> None:
    with pytest.raises(ConfigError, match="there cannot be 0 channels"):
        coloured(Untied()).replace(embedding=ChannelEmbedding(channels=0)).build()
