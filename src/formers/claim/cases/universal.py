"""Universal Transformer: a block that is applied again and again follows a chain, and can be taught to halt."""

from collections.abc import Iterator

from formers.attention import Attention
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.call import Layer
from formers.claim.pointer_task import by_hops
from formers.claim.pondering import HEADS, SMALLEST, STEPS, Ponderer
from formers.depth import ACT
from formers.feedforward import MLP
from formers.model import parameter_count
from formers.position import AbsolutePosition, Learned
from formers.report.rows import Row, ratio_at_least, value_at_least, value_at_most

SHARED, SINGLE, UNTIED = "one block, 6 steps", "one block, 1 step", "6 blocks"
GOALS = {SHARED: value_at_least(0.9), SINGLE: value_at_most(0.5), UNTIED: None}
CHEAP, DEAR = 1e-3, 1e-2
Depth = tuple[tuple[Layer, ...], AbsolutePosition | None]


@CLAIMS.case(
    "universal",
    "pointers among 8 numbers, followed 1 to 4 times (arXiv:1807.03819): one block applied 6 times, a block applied once, "
    "and 6 blocks; dim 64, 4 heads, 2,500 steps",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def chains(trial: Trial) -> Iterator[Row]:
    """Learns with each depth; questions of the most hops tell them apart."""
    ponderer = SMALLEST if trial.quick else Ponderer()
    chaser, kinds = ponderer.chaser, depths(ponderer)
    for name, model in zip(kinds, chaser.learn_each(trial, kinds), strict=True):
        found, better = chaser.task.evaluate(model), "lower" if name == SINGLE else "higher"
        hops = [found[f"hops_{k}"] for k in range(1, 1 + chaser.task.hops)]
        note = f"by hops {told(hops, 2)}; {parameter_count(model):,} parameters"
        yield trial.row(f"{name}: most hops", hops[-1], chaser.task.chance, goal=GOALS[name], better=better, note=note)


def depths(ponderer: Ponderer) -> dict[str, Depth]:
    """What is compared; only the first adds its positions before every step."""
    block, places = Block((Attention(HEADS), MLP(4 * ponderer.chaser.dim))), Learned(ponderer.chaser.task.length)
    return {
        SHARED: ((ponderer.depth(None),), None),
        SINGLE: ((block,), places),
        UNTIED: (stack(block, times=STEPS), places),
    }


@CLAIMS.case(
    "universal",
    "the same pointers: the block of 6 steps, which is then taught to halt token by token, halted tokens copied",
    unit="accuracy",
    rival=Rival("the same model, taught as long without halting"),
)
def halting(trial: Trial) -> Iterator[Row]:
    """Learns without halting, then with it, at a low and at a high price of a step."""
    ponderer = SMALLEST if trial.quick else Ponderer()
    task, spent = ponderer.chaser.task, {}
    with trial.progress("", ponderer.chaser.steps + 3 * ponderer.lessons) as tick:
        whole = ponderer.whole(tick)
        act = ACT(bias=0.0, halted="copied")
        models = {tau: ponderer.taught(act.replace(ponder=tau), whole, tick) for tau in (CHEAP, DEAR)}
        without = ponderer.taught(None, whole, tick)
    beside = task.evaluate(without)["accuracy"]
    for tau, model in models.items():
        steps, hops = ponderer.taken(model)
        spent[tau], after = steps.mean().item(), task.evaluate(model)["accuracy"]
        asked = told([*by_hops(steps[:, -1], hops, task.hops).values()], 1)
        note = f"{spent[tau]:.2f} of {STEPS} to a token; to the question, by hops, {asked}"
        left_out = 1 - spent[tau] / STEPS
        yield trial.row(f"ponder {tau:g}: accuracy", after, beside, goal=ratio_at_least(0.99))
        yield trial.row(
            f"ponder {tau:g}: left out", left_out, unit="of steps", rival=None, goal=value_at_least(0.3), note=note
        )
    fewer = {"unit": "steps", "better": "lower", "rival": f"at ponder {CHEAP:g}", "goal": ratio_at_least(1.05)}
    yield trial.row(f"steps to a token at ponder {DEAR:g}", spent[DEAR], spent[CHEAP], **fewer)


def told(each: list[float], digits: int) -> str:
    """Figures side by side."""
    return " / ".join(f"{value:.{digits}f}" for value in each)
