import io

from rich.console import Console

from formers.train.display import Display


def drawn(console):
    with Display(console, done=10, steps=100) as display:
        display.show(50, 1.23456, 98765.4)
        display.evaluating(0.25)
        display.evaluation(50, {"nats": 1.5, "bits_per_byte": 2.25, "perplexity": 4.4817, "tokens": 12})
    return console.file.getvalue()


def test_a_terminal_shows_step_loss_speed_and_time_left():
    text = drawn(Console(file=io.StringIO(), force_terminal=True, width=120))
    for part in ("50/100", "loss 1.2346", "98,765 tokens/s", "left", "evaluating 25%"):
        assert part in text


def test_a_file_gets_the_lines_that_stay_and_nothing_else():
    text = drawn(Console(file=io.StringIO(), width=40))
    assert text == "step 50, held out: 1.5000 nats per token, 2.2500 bits per byte, perplexity 4.482\n"
