from formers.bench.race import Duel, race, relay


class Clock:
    """A clock that only moves when a contestant runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_contestants_take_turns_and_warm_up_is_not_timed() -> None:
    clock, order = Clock(), []
    durations = {"ours": iter([100.0, 1.0, 5.0, 3.0]), "rival": iter([100.0, 4.0, 2.0, 9.0])}

    def runner(name):
        def run() -> None:
            order.append(name)
            clock.now += next(durations[name])

        return run

    ticks = []
    seconds = race(
        {name: runner(name) for name in durations}, warmup=1, rounds=3, tick=lambda: ticks.append(1), clock=clock
    )
    assert order == ["ours", "rival"] * 4
    assert seconds == {"ours": 3.0, "rival": 4.0}
    assert len(ticks) == 8


def test_duel_turns_seconds_into_rates_and_milliseconds() -> None:
    duel = Duel(ours=2.0, rival=4.0)
    assert duel.rate(100) == (50.0, 25.0)
    assert duel.milliseconds(100) == (20.0, 40.0)


def test_duel_without_a_rival_still_gives_ours() -> None:
    duel = Duel(ours=2.0, rival=None)
    assert duel.rate(100) == (50.0, None)
    assert duel.milliseconds() == (2000.0, None)


def test_relay_runs_laps_in_turns_and_tells_the_time_at_their_pace() -> None:
    clock, order = Clock(), []

    def runner(name, seconds):
        def run() -> None:
            clock.now += seconds
            order.append(name)

        return run

    laps = []
    seconds = relay(
        {"ours": runner("o", 1.0), "plain": runner("p", 2.0)}, steps=5, lap=2, tick=laps.append, clock=clock
    )
    assert "".join(order) == "ooppooppop"
    assert seconds == {"ours": 5.0, "plain": 10.0}
    assert laps == [2, 2, 1]


def test_one_slow_lap_does_not_turn_a_relay() -> None:
    clock, calls = Clock(), iter(range(100))

    def run() -> None:
        clock.now += 50.0 if next(calls) == 3 else 1.0

    assert relay({"ours": run}, steps=10, lap=2, clock=clock) == {"ours": 10.0}
