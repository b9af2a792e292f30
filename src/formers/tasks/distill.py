"""Learning from the text and from a larger model at once."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.carried import carries
from formers.errors import ConfigError
from formers.spec import Spec
from formers.train.task import Batch, Loss, Size, Task, Tick, untold
from formers.train.weights import unique_tensors

SOFT = 0.25  # of Switch Transformers


class Distilled:
    """Any task, with a share of the loss told by a teacher; a `Task`.

    The loss is (1 - soft) times the task's and soft times -sum q log p, q being what the teacher predicts for the same
    input, with no temperature: Hinton et al. 2015, arXiv:1503.02531, in the mixture of Fedus et al. 2021,
    arXiv:2101.03961, section 4.2, who also begin with the teacher's weights that are no expert's (`formers.convert`).

    teacher: a model of the same vocabulary. It is put in evaluation mode and learns nothing.
    """

    def __init__(self, task: Task, teacher: nn.Module, soft: float = SOFT) -> None:
        if not 0 < soft <= 1:
            raise ConfigError(f"soft={soft} is a share of the loss, above 0 and up to 1: give {SOFT}")
        self._task, self._soft = task, soft
        self._teacher: Any = teacher.eval().requires_grad_(False)

    @property
    def data(self) -> dict[str, str]:
        """The task's, and the teacher's weights."""
        digest = hashlib.sha256(f"{self._soft}".encode())
        for name, tensor in unique_tensors(self._teacher).items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return self._task.data | {"teacher": digest.hexdigest()}

    def require(self, spec: Spec) -> None:
        """Raises ConfigError, too, for a model that the teacher cannot be beside."""
        self._task.require(spec)
        taught, teaching = _vocab(spec), _vocab(self._teacher.spec)
        if taught != teaching:
            raise ConfigError(f"the teacher predicts {teaching} ids and the model {taught}: give vocab={teaching}")
        if carries(spec) or carries(self._teacher.spec):
            raise ConfigError("models that carry a state from step to step are not taught by another: leave it out")

    def batch(self, step: int) -> Batch:
        return self._task.batch(step)

    def size(self, batch: Batch) -> Size:
        return self._task.size(batch)

    def loss(self, model: Any, batch: Batch) -> Loss:
        self._teacher.to(next(iter(batch.values())).device)
        soft: list[Tensor] = []

        def beside(*inputs: Any, **named: Any) -> Any:
            """The model, and the teacher on the same."""
            if named.get("loss") is not None:
                raise ConfigError("a teacher is compared with whole logits: leave out loss_chunk")
            out = model(*inputs, **named)
            with torch.no_grad():
                told = self._teacher(*inputs, **named).logits
            soft.append(soft_nats(out.logits, told))
            return out

        loss = self._task.loss(beside, batch)
        return loss._replace(nats=(1 - self._soft) * loss.nats + self._soft * torch.stack(soft).sum())

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """The task's own figures: the teacher is not asked."""
        return self._task.evaluate(model, limit, tick)


def soft_nats(logits: Tensor, told: Tensor) -> Tensor:
    """-sum q log p over the vocabulary, summed over all places; logits and told (..., V), q being softmax(told)."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    logits, told = logits.flatten(0, -2).to(exact), told.flatten(0, -2).to(exact)
    return F.cross_entropy(logits, told.softmax(-1), reduction="sum")


def _vocab(spec: Any) -> int:
    vocab: int = spec.vocab
    return vocab
