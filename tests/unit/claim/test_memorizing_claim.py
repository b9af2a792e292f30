"""The claim on the memory at its smallest, and its task: what is asked was stated, and where."""

import io

from rich.console import Console

from formers import claim
from formers.claim.fact_task import Facts


def test_a_memory_is_held_against_none() -> None:
    rows = claim.run("memorizing_transformer", console=Console(file=io.StringIO(), width=160), quick=True)
    assert [str(row.goal) for row in rows] == ["value >= 0.9", "value <= 0.2", "value >= 0.5"]
    assert all(0 <= row.value <= 1 for row in rows)


def test_half_of_the_texts_ask_in_the_segment_of_the_fact_and_the_others_beyond_the_window() -> None:
    task = Facts()
    inputs, answers = task.batch(3).values()
    assert inputs.shape == answers.shape == (32, 160)
    asked = answers >= 0
    assert asked[:16].view(16, 5, 32).sum(2).unique().tolist() == [4]
    assert asked[16:].sum(1).unique().tolist() == [4] and not asked[16:, :128].any()
    facts, fillers = inputs - task.values, task.vocab - task.fillers
    for row in range(32):
        for place in asked[row].nonzero()[:, 0].tolist():
            key = int(inputs[row, place]) - task.values - task.keys * task.values
            begin = place // 32 * 32 if row < 16 else 0
            said = facts[row, begin : begin + 28]
            here = said[(said // task.values == key) & (said >= 0)]
            assert len(here) == 1 and int(here[0]) % task.values == int(answers[row, place])
    assert (inputs[16:, 32:128] >= fillers).all()


def test_fillers_facts_and_questions_are_different_tokens() -> None:
    task = Facts()
    inputs, answers = task.batch(0).values()
    questions = inputs[answers >= 0] - task.values - task.keys * task.values
    assert ((questions >= 0) & (questions < task.keys)).all()
    assert inputs.max() < task.vocab and inputs.min() >= task.values
