"""Tasks: what is learned from which data, and how well a model does it."""

from formers.tasks.causal import Causal, CausalStreams, causal_task, evaluate_text
from formers.tasks.distill import Distilled
from formers.tasks.masked import Masked
from formers.tasks.pairs import PreparedPairs, prepare_pairs
from formers.tasks.prepare import Prepared, open_prepared, prepare
from formers.tasks.sentences import MaskedSentences
from formers.tasks.translation import Translation, translate
from formers.train.task import Batch, Loss, Size, Task

__all__ = [
    "Batch",
    "Causal",
    "CausalStreams",
    "Distilled",
    "Loss",
    "Masked",
    "MaskedSentences",
    "Prepared",
    "PreparedPairs",
    "Size",
    "Task",
    "Translation",
    "causal_task",
    "evaluate_text",
    "open_prepared",
    "prepare",
    "prepare_pairs",
    "translate",
]
