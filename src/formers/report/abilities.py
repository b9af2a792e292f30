"""What a model can do, worked out from its spec."""

from typing import Any

from formers.encoder_decoder import EncoderDecoder
from formers.spec import find_problems


def causal(spec: Any) -> str:
    """Whether no output sees a later token: "yes", "no", or "target" where one side is causal and reads the other.

    Where pairs are chosen by content and streaming is not exact, later tokens may decide which earlier ones meet.
    """
    if isinstance(spec, EncoderDecoder):
        return "target" if spec.target.inside(spec.target.site).causal else "no"
    return "yes" if spec.inside(spec.site).causal else "no"


def streams_exactly(spec: Any) -> str:
    """Whether decoding step by step gives what one pass gives; words as in `causal`."""
    able = causal(spec)
    side = spec.target if isinstance(spec, EncoderDecoder) else spec
    problems = list(find_problems(spec, side.site.replace(streaming=True), spec.name))
    return able if not problems else "no"
