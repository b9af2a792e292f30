"""Whether a model can learn a task at all, said before the first step."""

from formers.data.tokenizer import Tokenizer
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.model import Decoder, Encoder
from formers.spec import Spec

Kind = type[Decoder] | type[Encoder] | type[EncoderDecoder]


def require_fit(spec: Spec, kind: Kind, tokenizer: Tokenizer, length: int = 1) -> None:
    """Raise one ConfigError that lists why a model cannot learn from rows of `length` ids of a tokenizer, or return."""
    if not isinstance(spec, kind):
        raise ConfigError(f"this task is for a kind of model named {kind.__name__}, not {type(spec).__name__}")
    sides = {"": spec.vocab}
    if isinstance(spec, EncoderDecoder):
        sides = {"source.": spec.source.vocab, "target.": spec.target.vocab}
    problems = [
        f"it knows {vocab} ids and the tokenizer has {tokenizer.vocab}; use {side}vocab={tokenizer.vocab}"
        for side, vocab in sides.items()
        if vocab < tokenizer.vocab
    ]
    if (spec.target if isinstance(spec, EncoderDecoder) else spec).head is None:
        problems.append("it has no head, so it predicts nothing; use head=Tied()")
    if spec.max_length is not None and length > spec.max_length:
        problems.append(f"it has {spec.max_length} positions and rows are {length} long; use length={spec.max_length}")
    if problems:
        raise ConfigError("the model does not fit the data: " + "; and ".join(problems))
