"""Decoding speed of one stream: a GPT-2 with a cache of keys and values against transformers' generate."""

from collections.abc import Callable, Iterator

import torch

from formers.bench.gpt2 import HUGGING_FACE, SHAPES, TINY, Shape, twins
from formers.bench.native import require_length
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.decode import GREEDY, choose_engine, generate
from formers.report.rows import Row, ratio_at_least

PROMPT = 32
NEW = 128


@BENCHES.case(
    "decode",
    "GPT-2 shape (dim 256, depth 6, 8 heads), greedy, one stream, prompt of 32, 128 new tokens",
    unit="tokens/s",
    rival=HUGGING_FACE,
    goal=ratio_at_least(1.5),
)
def gpt2_decode(trial: Trial) -> Iterator[Row]:
    """Tokens per second and milliseconds per token, the prompt included, of random weights, which cost the same."""
    for shape in TINY if trial.quick else SHAPES:
        yield from decode(trial, shape, new=4 if trial.quick else NEW)


def decode(trial: Trial, shape: Shape, new: int) -> Iterator[Row]:
    """One shape: ours and the rival write behind the same prompt, each made ready once, as when a model is loaded."""
    model, rival = twins(shape)
    engine = choose_engine(model).packed()
    prompt = torch.randint(shape.vocab, (1, PROMPT), generator=torch.Generator().manual_seed(0))

    def ours() -> None:
        (written,) = generate(model, prompt.tolist(), max_new=new, sampling=GREEDY, engine=engine)
        require_length(len(written.tokens), new)

    def make_rival() -> Callable[[], None]:
        every = torch.ones_like(prompt)

        def run() -> None:
            written = rival.generate(
                prompt, attention_mask=every, max_new_tokens=new, do_sample=False, use_cache=True, pad_token_id=0
            )
            require_length(written.shape[1] - PROMPT, new)

        return run

    duel = trial.duel(ours, make_rival)
    yield trial.row(f"decoding, vocabulary {shape.vocab:,}", *duel.rate(new))
    each = duel.milliseconds(new)
    yield trial.row(f"a token, vocabulary {shape.vocab:,}", *each, unit="ms", better="lower", goal=None)
