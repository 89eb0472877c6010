import io

from rich.console import Console
from searching import ORIGINAL, make_record

from automl.archive import Archive
from automl.progress import LineProgress, LiveProgress, NullProgress, make_progress


def _console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=200)


def _run(progress, count=6, **changes):
    archive = Archive(ORIGINAL)
    progress.start(count, archive)
    for episode in range(count):
        record = make_record(episode, **changes)
        archive.add(record)
        progress.trial(record, archive)
    progress.stop()


def test_lines_come_for_better_trials_after_a_while_and_at_the_end():
    console, seconds = _console(False), iter(range(0, 1000, 4))
    _run(LineProgress(console, every_s=10, clock=lambda: next(seconds)))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Search: 0 of 6 episodes done, best none yet."
    assert lines[1] == "Search: 1/6, best t00000 0.800 at macs 0.50, last t00000 0.800 at macs 0.50, 20 s left."
    assert [line.split(",")[0] for line in lines[2:]] == ["Search: 4/6", "Search: 6/6"]
    assert lines[-1].endswith("0 s left.")


def test_failed_trials_are_said_without_markup():
    console = _console(False)
    _run(LineProgress(console), 1, status="failed", error="ValueError: [bold]x[/nothing]")
    assert "last t00000 failed: ValueError: [bold]x[/nothing]" in console.file.getvalue()


def test_bar_shows_the_best_and_survives_markup():
    console = _console(True)
    _run(LiveProgress(console))
    assert "6/6" in console.file.getvalue()
    assert "0.800 at macs 0.50" in console.file.getvalue()
    _run(LiveProgress(_console(True)), 2, status="failed", error="[/nothing]")


def test_kind_follows_the_terminal():
    assert isinstance(make_progress(_console(True)), LiveProgress)
    assert isinstance(make_progress(_console(False)), LineProgress)
    assert make_progress().__class__ in (LiveProgress, LineProgress)
    _run(NullProgress())
