"""Two sides: an encoder, and a decoder that attends to its output or begins with it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from formers.call import Encoded, Layer
from formers.model import EVERY, Decoder, Encoder
from formers.output import ModelState, Output, StreamLoss
from formers.spec.check import check
from formers.spec.codec import to_json
from formers.spec.core import Site, Spec, parts_within
from formers.tokens import At, place


class EncoderDecoder(Spec):
    """An encoder, and a decoder that attends to its output. Vaswani et al. 2017, arXiv:1706.03762.

    shared: source and target use one table of token vectors.
    """

    name: str
    source: Encoder
    target: Decoder
    shared: bool = True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        dim, given = self.target.dim, self.source.out_dim
        layers = (part for part in parts_within(self.target) if isinstance(part, Layer))
        read = {width for layer in layers if (width := layer.source_dim(dim)) is not None} or {dim}
        for width in sorted(read - {given}):
            what = f"the decoder is {dim} wide and attends to an encoder {given} wide"
            if width != dim:
                what = (
                    f"the decoder begins with the two streams of an encoder, {width} wide, and this one is {given} wide"
                )
                yield what, 'merge="concatenate" in the encoder, or streams="copied" in the decoder'
            elif given != self.source.dim == dim:
                yield what, 'merge="mean" in the encoder'
            else:
                yield what, f"target.dim={given}"
        if self.shared and self.source.vocab != self.target.vocab:
            what = f"a shared table cannot hold {self.source.vocab} source and {self.target.vocab} target tokens"
            yield what, "shared=False"

    def inside(self, site: Site) -> Site:
        return site.replace(encoder=True)

    @property
    def vocab(self) -> int:
        """Of the side that is predicted."""
        return self.target.vocab

    @property
    def max_length(self) -> int | None:
        """Of the side that is predicted."""
        return self.target.max_length

    def to_json(self) -> str:
        """This spec as JSON, read back by `formers.spec.from_json`."""
        return to_json(self)

    def build(self, site: Site | None = None, *, streaming: bool = False) -> "EncoderDecoderLayer":
        """The model, checked first; raises ConfigError with everything that is wrong."""
        site = site or self.target.site.replace(streaming=streaming)
        check(self, site, self.name)
        return EncoderDecoderLayer(self, site)


class EncoderDecoderState(NamedTuple):
    """The encoder's output until the first step has taken its keys and values, and the decoder's state."""

    encoded: Encoded | None
    target: ModelState | None


class EncoderDecoderLayer(nn.Module):
    def __init__(self, spec: EncoderDecoder, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.source = spec.source.build(site.replace(causal=False, encoder=False).part(0))
        self.target = spec.target.build(spec.inside(site).part(1))
        if spec.shared:
            self.target.embedding.tokens = self.source.embedding.tokens

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_mask: Tensor | None = None,
        mask: Tensor | None = None,
        logits_at: At = EVERY,
        seed: int = 0,
        remember: bool = True,
        loss: StreamLoss | None = None,
    ) -> Output:
        """source (B, S), target (B, T) int64, the target already shifted right; all else as in a decoder.

        The losses and records of both sides are named "source.<name>" and "target.<name>".
        """
        before = self.source(source, mask=source_mask, logits_at=None, seed=seed, remember=False)
        encoded = Encoded(before.hidden, place(source, 0, source_mask, None))
        out = self.target(
            target, mask=mask, logits_at=logits_at, encoded=encoded, seed=seed, remember=remember, loss=loss
        )
        state, sides = EncoderDecoderState(None, out.state) if remember else None, {"source": before, "target": out}
        losses = {f"{side}.{name}": loss for side, part in sides.items() for name, loss in part.losses.items()}
        records = {f"{side}.{name}": noted for side, part in sides.items() for name, noted in part.records.items()}
        return out._replace(state=state, losses=losses, records=records)

    def start(self, source: Tensor, source_mask: Tensor | None = None) -> EncoderDecoderState:
        """Run the encoder on source (B, S): the state that decoding begins from."""
        hidden = self.source(source, mask=source_mask, logits_at=None, remember=False).hidden
        return EncoderDecoderState(Encoded(hidden, place(source, 0, source_mask, None)), None)

    def step(
        self,
        tokens: Tensor,
        state: EncoderDecoderState,
        *,
        mask: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
        logits_at: At = slice(-1, None),
        seed: int = 0,
    ) -> Output:
        """Continue the target side by tokens (B, T)."""
        out = self.target(
            tokens, state.target, mask=mask, marks=marks, logits_at=logits_at, encoded=state.encoded, seed=seed
        )
        return out._replace(state=EncoderDecoderState(None, out.state))
