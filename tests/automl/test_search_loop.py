import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from searching import TinyAgent, TinyBehaviour, evaluate, go, go_ddpg, make_player, make_run, schedule

from automl.archive import Archive, front_after
from automl.checkpoint import load_checkpoint
from automl.executor import InlineExecutor
from automl.ledger import comparable, read_ledger
from automl.progress import NullProgress
from automl.search_loop import LoopConfig, SearchInterrupted, search
from compressors.errors import UserError
from envs.evaluation import Evaluation


def lines(run):
    return [comparable(line) for line in run.ledger.read_text().splitlines()]


def reference(tmp_path, **settings):
    run = make_run(tmp_path, "reference")
    go(run, **settings)
    return lines(run)


def child(run, episodes, staleness, kill_at, where, kind="tiny"):
    """A search in a process of its own that kills itself."""
    script = Path(__file__).with_name("searching.py")
    settings = [kind, str(run.folder), str(episodes), str(staleness), str(kill_at), where]
    command = [sys.executable, str(script), *settings]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


class ReverseExecutor(InlineExecutor):
    """Plays the episodes in flight in reverse order: what any number of workers may do."""

    def __init__(self):
        self.waiting, self.done = [], {}

    def submit(self, function, *args):
        ticket = super().submit(function, *args)
        self.waiting.append(ticket)
        return ticket

    def result(self, ticket):
        while self.waiting:
            last = self.waiting.pop()
            self.done[id(last)] = super().result(last)
        return self.done.pop(id(ticket))


def test_equal_seeds_give_equal_ledgers_and_others_do_not(tmp_path):
    first = reference(tmp_path / "a", staleness=3)
    assert first == reference(tmp_path / "b", staleness=3)
    assert first != reference(tmp_path / "c", staleness=3, seed=1)
    assert first != reference(tmp_path / "d", staleness=1)
    assert len(first) == 12


@pytest.mark.parametrize("staleness", [1, 2, 5, 40])
def test_ledger_does_not_depend_on_the_order_in_which_episodes_are_played(tmp_path, staleness):
    expected = reference(tmp_path, staleness=staleness)
    run = make_run(tmp_path, "reversed")
    config = LoopConfig(episodes=12, staleness=staleness)
    search(make_player(), TinyAgent(), ReverseExecutor(), run, config, schedule)
    assert lines(run) == expected


@pytest.mark.parametrize("staleness", [1, 3])
def test_behaviour_and_front_are_as_old_as_configured(tmp_path, staleness):
    seen = {}

    class Recording(TinyAgent):
        def behaviour(self, episode):
            seen[episode] = len(self.learned)
            return super().behaviour(episode)

    class Watching(InlineExecutor):
        def submit(self, function, *args):
            fronts[args[1].number] = list(args[1].front)
            return super().submit(function, *args)

    fronts = {}
    agent, run = Recording(), make_run(tmp_path)
    archive = search(make_player(), agent, Watching(), run, LoopConfig(episodes=12, staleness=staleness), schedule)
    assert seen == {episode: max(0, episode - staleness + 1) for episode in range(12)}
    assert agent.learned == list(range(12))
    for episode, front in fronts.items():
        known = archive.records[: max(0, episode - staleness + 1)]
        assert front == front_after(known, archive.original, "macs")
    assert len({len(front) for front in fronts.values()}) > 1


@pytest.mark.parametrize("staleness", [1, 4])
@pytest.mark.parametrize("where", ["half-line", "between", "after"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, staleness, where):
    expected = reference(tmp_path, staleness=staleness)
    run = make_run(tmp_path, "killed")
    with child(run, 12, staleness, 5, where) as process:
        assert process.wait(60) == -signal.SIGKILL
    archive = go(run, staleness=staleness)
    assert lines(run) == expected
    assert [record.episode for record in archive.records] == list(range(12))


def test_killed_at_the_first_and_last_episode(tmp_path):
    expected = reference(tmp_path, staleness=4)
    for name, episode, where in (("first", 0, "between"), ("last", 11, "between"), ("done", 11, "after")):
        run = make_run(tmp_path, name)
        with child(run, 12, 4, episode, where) as process:
            assert process.wait(60) == -signal.SIGKILL
        go(run, staleness=4)
        assert lines(run) == expected


def test_killed_from_outside_at_any_moment_and_more_than_once(tmp_path):
    expected = reference(tmp_path, episodes=150, staleness=4)
    run = make_run(tmp_path, "killed")
    for wanted in (11, 60):
        with child(run, 150, 4, 0, "never") as process:
            deadline = time.monotonic() + 60
            while len(read_ledger(run.ledger)) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            process.kill()
        assert process.returncode in (-signal.SIGKILL, 0)
    go(run, episodes=150, staleness=4)
    assert lines(run) == expected


@pytest.mark.parametrize(("staleness", "where"), [(1, "after"), (4, "between")])
def test_real_agent_killed_and_resumed_equals_uninterrupted(tmp_path, staleness, where):
    whole = make_run(tmp_path, "whole")
    archive = go_ddpg(whole, staleness=staleness)
    run = make_run(tmp_path, "killed")
    with child(run, 24, staleness, 14, where, kind="ddpg") as process:
        assert process.wait(120) == -signal.SIGKILL
    assert len(read_ledger(run.ledger)) == 15
    go_ddpg(run, staleness=staleness)
    assert lines(run) == lines(whole)
    assert len({record.behaviour for record in archive.records}) > 1
    assert run.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


@pytest.mark.parametrize("checkpoint", ["old", "none"])
@pytest.mark.parametrize("staleness", [1, 4, 40])
def test_trials_beyond_the_checkpoint_are_learned_from_again_and_not_evaluated(tmp_path, staleness, checkpoint):
    expected = reference(tmp_path, staleness=staleness)
    run = make_run(tmp_path, "killed")
    with child(run, 12, staleness, 7, "line") as process:
        assert process.wait(60) == -signal.SIGKILL
    assert len(read_ledger(run.ledger)) == 8
    if checkpoint == "none":
        run.checkpoint.unlink()
    evaluated = []

    def counting(allocation, seed, bar):
        evaluated.append(seed)
        return evaluate(allocation, seed, bar)

    go(run, staleness=staleness, player=make_player(counting))
    assert lines(run) == expected
    assert len(evaluated) == 4


@pytest.mark.parametrize("staleness", [1, 4])
def test_a_real_agent_catches_up_with_its_ledger(tmp_path, staleness):
    whole, run = make_run(tmp_path, "whole"), make_run(tmp_path, "killed")
    go_ddpg(whole, staleness=staleness)
    with child(run, 24, staleness, 17, "line", kind="ddpg") as process:
        assert process.wait(120) == -signal.SIGKILL
    assert load_checkpoint(run.checkpoint, run.info().fingerprint).next_episode == 1
    go_ddpg(run, staleness=staleness)
    assert lines(run) == lines(whole)
    assert run.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_failed_trials_are_played_back_as_failed(tmp_path):
    def failing(allocation, seed, bar):
        if seed % 4 == 1:
            raise RuntimeError("no luck")
        return evaluate(allocation, seed, bar)

    whole, run = make_run(tmp_path, "whole"), make_run(tmp_path, "cut")
    go(whole, staleness=3, player=make_player(failing))
    assert {record.status for record in read_ledger(whole.ledger)} == {"done", "failed"}
    run.ledger.write_bytes(b"".join(line + b"\n" for line in whole.ledger.read_bytes().splitlines()[:9]))
    go(run, staleness=3, player=make_player(failing))
    assert lines(run) == lines(whole)


def test_trials_that_come_out_differently_here_are_run_again(tmp_path):
    """As on another machine type: the agent would choose otherwise from some episode on."""
    run = make_run(tmp_path)
    go(run, staleness=2)
    run.checkpoint.unlink()
    records = run.ledger.read_text().splitlines()
    changed = json.loads(records[6])
    changed["policy"]["kept"][0] += 1
    run.ledger.write_text("\n".join([*records[:6], json.dumps(changed), *records[7:]]) + "\n")
    notes = []

    class Noting(NullProgress):
        def note(self, message):
            notes.append(message)

    go(run, staleness=2, progress=Noting())
    assert lines(run) == [comparable(line) for line in records]
    assert len(notes) == 1 and "cut off 6 trial(s)" in notes[0] and "differently here" in notes[0]


def test_checkpoints_cost_little(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "automl.search_loop.save_checkpoint", lambda path, snapshot: saved.append(snapshot.next_episode)
    )
    go(make_run(tmp_path), episodes=50, checkpoint_s=60.0)
    assert saved == [1, 50]


def test_resuming_a_finished_search_adds_nothing(tmp_path):
    run = make_run(tmp_path)
    first = go(run)
    before = run.ledger.read_bytes()
    again = go(run)
    assert run.ledger.read_bytes() == before
    assert again.snapshot() == first.snapshot()


def test_failed_evaluations_are_floor_trials_and_the_search_goes_on(tmp_path):
    calls = []

    def fragile(allocation, seed, bar):
        calls.append(seed)
        if len(calls) == 2:
            raise RuntimeError("out of\nmemory")
        if len(calls) == 4:
            return Evaluation(float("nan"))
        return evaluate(allocation, seed, bar)

    run = make_run(tmp_path)
    archive = go(run, episodes=6, player=make_player(fragile))
    status = [(record.status, record.error) for record in archive.records]
    assert status[1] == ("failed", "RuntimeError: out of memory")
    assert status[3] == ("failed", "the evaluation gave nan")
    assert [state for state, _ in status].count("done") == 4
    assert archive.records[1].accuracy_search == 0.0
    assert not {1, 3} & {member.episode for member in archive.front}


def test_an_evaluation_that_always_fails_stops_the_search_with_its_reason(tmp_path):
    def broken(allocation, seed, bar):
        raise TypeError("forward() takes 1 argument")

    run = make_run(tmp_path)
    with pytest.raises(UserError, match=r"first 3 trials all failed, the last with: TypeError: forward"):
        go(run, player=make_player(broken))


def test_bad_input_stops_the_search_at_once(tmp_path):
    def bad(allocation, seed, bar):
        raise UserError("labels out of range")

    run = make_run(tmp_path)
    with pytest.raises(UserError, match="labels out of range"):
        go(run, player=make_player(bad))
    assert not run.ledger.exists()


@pytest.mark.parametrize("stop", ["ctrl-c", "sigterm"])
def test_interrupted_says_how_to_resume_and_resumes(tmp_path, stop):
    expected = reference(tmp_path, staleness=2)
    run = make_run(tmp_path, "stopped")
    before = signal.getsignal(signal.SIGTERM)

    class Stopping(NullProgress):
        stopped = False

        def trial(self, record, archive):
            if record.episode == 4:
                if stop == "ctrl-c":
                    raise KeyboardInterrupt
                os.kill(os.getpid(), signal.SIGTERM)

        def stop(self):
            self.stopped = True

    progress = Stopping()
    with pytest.raises(SearchInterrupted, match=r"Interrupted after 5 of 12 episodes.*secateur resume .*stopped"):
        go(run, staleness=2, progress=progress)
    assert progress.stopped
    assert signal.getsignal(signal.SIGTERM) is before
    go(run, staleness=2)
    assert lines(run) == expected


def test_full_disk_stops_in_one_line_and_resumes(tmp_path, monkeypatch):
    expected = reference(tmp_path)
    run = make_run(tmp_path, "full")
    replaced, replace = [], os.replace

    def full(source, target):
        replaced.append(target)
        if len(replaced) == 4:
            raise OSError(errno.ENOSPC, "full")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(UserError, match=r"Cannot write .*checkpoint.safetensors: No space left"):
            go(run)
    assert len(read_ledger(run.ledger)) == 4
    go(run)
    assert lines(run) == expected


def test_run_of_another_configuration_is_refused(tmp_path):
    run = make_run(tmp_path)
    go(run, episodes=2)
    run.write_info(run.info().model_copy(update={"fingerprint": "00" * 32}))
    with pytest.raises(UserError, match="another configuration or net"):
        go(run)


def test_collaborators_are_told_in_order(tmp_path):
    told = []

    class Telling(NullProgress):
        def start(self, episodes, archive):
            told.append((episodes, len(archive.records)))

        def trial(self, record, archive):
            assert isinstance(archive, Archive) and archive.records[-1] is record
            told.append(record.trial_id)

        def note(self, message):
            told.append(message)

    run = make_run(tmp_path)
    go(run, episodes=2, progress=Telling())
    run.checkpoint.unlink()
    go(run, episodes=2, progress=Telling())
    assert told == [(2, 0), "t00000", "t00001", (2, 2)]


def test_phases_are_measured(tmp_path):
    archive = go(make_run(tmp_path), episodes=3)
    assert set(archive.records[-1].seconds) == {"propose", "rollout", "evaluate", "learn", "record"}
    assert archive.records[-1].seconds["record"] > 0


def test_behaviours_name_the_trial(tmp_path):
    class Named(TinyAgent):
        def behaviour(self, episode):
            return TinyBehaviour(super().behaviour(episode).center, name=f"warm-up {episode % 2}")

    archive = go(make_run(tmp_path), episodes=2, agent=Named())
    assert [record.behaviour for record in archive.records] == ["warm-up 0", "warm-up 1"]
