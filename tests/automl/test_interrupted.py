"""Real searches, killed and interrupted at random moments: what comes after is what would have come anyway."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journeys import Done, ledger, refused, secateur, start

from automl.runs import Run

EPISODES = 24
SEARCH = (
    "search", "--data", "digits", "--episodes", EPISODES, "--staleness", "2", "--threads", "1", "--no-track",
    "--target", "macs=0.3..0.8", "--calibration-images", "200", "--search-images", "300",
    "--members", "2", "--finetune-epochs", "6",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """The search that nobody disturbed."""
    runs = tmp_path_factory.mktemp("whole") / "runs"
    done = secateur(*SEARCH, "--runs", runs, "--name", "whole")
    assert done.code == 0, done.err
    return Run(runs / "whole")


def lines(run: Run) -> int:
    return run.ledger.read_bytes().count(b"\n") if run.ledger.exists() else 0


def stop(runs: Path, how: signal.Signals, ready: Callable[[Run], bool]) -> tuple[Run, Done]:
    """Starts the search and stops it in the midst of things."""
    run = Run(runs / "cut")
    process: subprocess.Popen[str] = start(*SEARCH, "--runs", runs, "--name", "cut", cwd=runs.parent)
    until = time.monotonic() + 120
    while not ready(run):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.03))
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    return run, Done(process.returncode, out, err)


def facts(run: Run) -> object:
    document = json.loads(run.front.read_text())
    for member in document["front"]:
        del member["seconds"]
    return document


def resumed_like(run: Run, whole: Run) -> None:
    done = secateur("resume", run.folder, "--no-track")
    assert done.code == 0, done.err
    assert ledger(run) == ledger(whole)
    assert facts(run) == facts(whole)


def test_killed_at_a_random_moment_and_resumed(runs, whole):
    at = random.randrange(1, EPISODES - 2)
    run, done = stop(runs, signal.SIGKILL, lambda run: lines(run) >= at)
    assert done.code == -signal.SIGKILL and not run.front.exists()
    resumed_like(run, whole)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_says_in_one_line_how_to_resume(runs, whole, how):
    run, done = stop(runs, how, lambda run: lines(run) >= 5)
    refused(done, "Interrupted after", f"of {EPISODES} episodes", f"secateur resume {run.folder}")
    resumed_like(run, whole)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_while_the_front_is_finetuned(runs, whole, how):
    run, done = stop(runs, how, lambda run: any(run.nets.glob("*.json")))
    if how == signal.SIGINT:
        refused(done, "Interrupted", f"secateur resume {run.folder}")
    assert not run.front.exists()
    finished = next(run.nets.glob("*.json"))
    before = finished.read_bytes()
    resumed_like(run, whole)
    assert finished.read_bytes() == before  # not finetuned again


@pytest.mark.slow
def test_killed_again_and_again(whole, tmp_path):
    """Kills every couple of episodes, until the search is through."""
    runs = tmp_path / "runs"
    run, _ = stop(runs, signal.SIGKILL, lambda run: lines(run) >= 2)
    for _ in range(4):
        begun = lines(run)
        process = start("resume", run.folder, "--no-track", "--threads", "1", cwd=tmp_path)
        while lines(run) < begun + 3 and process.poll() is None:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate(timeout=60)
    assert secateur("resume", run.folder, "--no-track", "--threads", "1").code == 0
    assert ledger(run) == ledger(whole)
    assert facts(run) == facts(whole)
