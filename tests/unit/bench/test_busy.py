import subprocess

from formers.bench.busy import one_core_busy


def test_the_neighbour_runs_while_the_block_does_and_ends_with_it(monkeypatch) -> None:
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with one_core_busy():
        assert started[0].poll() is None
    assert started[0].returncode is not None
