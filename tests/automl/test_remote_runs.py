"""Runs at URLs: nothing is lost when machines die or the remote is down, and two machines never write to one run."""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from elsewhere import Flaky, at_once, down, make_info
from journeys import ROOT, SMALL, ledger, refused, secateur
from searching import TinyAgent, go

from automl import run_lock
from automl.checkpoint import load_checkpoint
from automl.data.cache import cache_dir
from automl.files import write_atomic
from automl.place import Place
from automl.preflight import check_place
from automl.remote import lease as leasing
from automl.remote import pull as pulling
from automl.remote.copies import copies_of, pending, state_of
from automl.remote.lease import Lease, held
from automl.remote.mirror import Mirror
from automl.remote.push import push
from automl.remote.runs import check_remote, fetch_run, names_at, send_rest
from automl.run_lock import RunInUse
from automl.runs import Run, find_run, new_run
from compressors.errors import UserError

ROOT_URL = "flaky://bucket/runs"
URL = f"{ROOT_URL}/tiny"
FOLDER = "/bucket/runs/tiny"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Moves to another machine: one with another cache folder."""
    Flaky.restart()
    monkeypatch.setattr(leasing, "_SETTLE_S", 0.01)

    def move(name: str) -> None:
        monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / name))

    move("a")
    return move


def begin(root: str = ROOT_URL, name: str = "tiny") -> Run:
    run = new_run(copies_of(root), name, remote=root)
    run.write_info(make_info(name))
    return run


class Stop(Exception):
    pass


class StopAt(Mirror):
    """A mirror whose process ends after a trial: with a last word, or all at once."""

    def __init__(self, run, episode, **more):
        super().__init__(run, every_s=0.0, **more)
        self.episode = episode

    def trial(self, record):
        super().trial(record)
        if record.episode == self.episode:
            raise Stop


def play(run: Run, mirror: Mirror | None = None, episodes: int = 12, agent: TinyAgent | None = None) -> list[str]:
    """What the pipeline does, and what it says; stops where the mirror wants it."""
    said: list[str] = []
    mirror = mirror or Mirror(run, said.append, every_s=0.0, retry_s=0.01, patience_s=0.3)
    mirror._warn = said.append
    with run.lock():
        mirror.start()
        try:
            go(run, episodes=episodes, tracker=mirror, agent=agent)
        except Stop:
            mirror.close()
            return said
        mirror.finish()
    return said


def undisturbed(tmp_path: Path) -> list[str]:
    run = new_run(tmp_path / "plain", "tiny")
    run.write_info(make_info("tiny"))
    go(run)
    return ledger(run)


def there(name: str) -> bytes:
    return Flaky.store[f"{FOLDER}/{name}"].getvalue()


def put(name: str, data: bytes) -> None:
    Flaky().pipe_file(f"{FOLDER}/{name}", data)


def files_there() -> set[str]:
    return {path.removeprefix(f"{FOLDER}/") for path in Flaky.store}


# -- the usual way ----------------------------------------------------------------------------------------------------


def test_all_is_there_at_the_end_and_the_lease_is_back(machine):
    run = begin()
    assert files_there() == {"lease.json"}
    assert run.address == URL and cache_dir() in run.folder.parents
    (run.nets / "t00001.safetensors").write_bytes(b"net")
    (run.nets / "t00001.json").write_text("{}")
    run.front.write_text("{}")
    (run.folder / "weights").mkdir()
    (run.folder / "weights" / "x.pt").write_text("a job's")
    assert play(run) == []
    assert files_there() == {
        "config.json", "trials.jsonl", "checkpoint.safetensors", "front.json", "nets/t00001.json",
        "nets/t00001.safetensors",
    }  # fmt: skip
    for name in files_there():
        assert there(name) == (run.folder / name).read_bytes()
    order = [path.removeprefix(f"{FOLDER}/") for path in Flaky.writes]
    assert order[:2] == ["lease.json", "lease.json"] and order[2] == "config.json"
    assert order.index("nets/t00001.safetensors") < order.index("nets/t00001.json") < order.index("front.json")
    assert pending(run) == []
    Flaky.reads.clear()
    find_run(ROOT_URL, "tiny")
    assert Flaky.reads == []  # what came from here is not fetched


def test_the_remote_can_be_resumed_at_any_moment(tmp_path):
    run = begin()
    seen = []

    def check(path):
        if f"{FOLDER}/checkpoint.safetensors" in Flaky.store:
            (tmp_path / "checkpoint").write_bytes(there("checkpoint.safetensors"))
            snapshot = load_checkpoint(tmp_path / "checkpoint", run.info().fingerprint)
            seen.append((snapshot.next_episode, there("trials.jsonl").count(b"\n")))

    Flaky.written, Flaky.slow_s = check, 0.0005
    play(run, episodes=40)
    assert len(set(seen)) > 3 and seen[-1] == (40, 40)
    assert all(counted <= lines for counted, lines in seen)


def test_a_slow_remote_does_not_slow_the_search():
    run = begin()
    begun = time.monotonic()
    go(run, episodes=12)
    alone = time.monotonic() - begun
    other = begin(name="other")
    mirror = Mirror(other, every_s=0.0)
    with other.lock():
        Flaky.slow_s = 0.2
        mirror.start()
        begun = time.monotonic()
        go(other, episodes=12, tracker=mirror)
        assert time.monotonic() - begun < 2 * alone + 0.5
        mirror.finish()
    Flaky.slow_s = 0.0
    assert pending(other) == []


def test_many_trials_are_sent_every_few_seconds_only():
    run = begin()
    mirror = Mirror(run, every_s=30.0)
    with run.lock():
        mirror.start()
        go(run, episodes=60, tracker=mirror)
        mirror.finish()
    assert Flaky.writes.count(f"{FOLDER}/trials.jsonl") <= 2
    assert pending(run) == []


# -- machines that die ------------------------------------------------------------------------------------------------


def test_another_machine_goes_on_and_gets_the_same_ledger(machine, tmp_path):
    for at in (0, 4, 10):
        Flaky.restart()
        machine(f"a{at}")
        play(run := begin(), StopAt(run, at))
        machine(f"b{at}")
        found = find_run(ROOT_URL, "tiny")
        assert found.folder != run.folder and found.remote == URL
        assert len(ledger(found)) == at + 1
        assert play(found) == []
        assert ledger(found) == undisturbed(tmp_path / str(at))
        assert there("trials.jsonl") == found.ledger.read_bytes()


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from elsewhere import make_info
from searching import go
from automl.remote.copies import copies_of
from automl.remote.mirror import Mirror
from automl.runs import new_run
run = new_run(copies_of(sys.argv[1]), "tiny", remote=sys.argv[1])
run.write_info(make_info("tiny"))
class Said(Mirror):
    def trial(self, record):
        super().trial(record)
        print(record.episode, flush=True)
        import time; time.sleep(0.02)
mirror = Said(run, every_s=0.0)
with run.lock():
    mirror.start()
    go(run, tracker=mirror)
    mirror.finish()
"""


def test_a_killed_process_leaves_a_run_that_waits_for_its_lease(machine, monkeypatch, tmp_path):
    root = f"file://{tmp_path}/bucket/runs"
    script = SCRIPT.format(tests=str(Path(__file__).parent), root=str(ROOT))
    with subprocess.Popen([sys.executable, "-c", script, root], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = random.randrange(2, 10)
        while int(process.stdout.readline()) < last:
            pass
        process.send_signal(signal.SIGKILL)
    machine("b")
    found = find_run(root, "tiny")
    with pytest.raises(UserError, match=rf"in use by process {process.pid} on \S+, last heard of \d+ s.*lease.json"):
        check_place(Place(), found)
    with pytest.raises(RunInUse, match=r"Wait until it ends; if it has died, the run is free in 1\d\d s"):
        play(found)
    # On its own machine the process is known to be dead.
    machine("a")
    own = find_run(root, "tiny")
    assert len(own.ledger.read_bytes().splitlines()) >= last
    with own.lock():
        pass
    machine("b")
    monkeypatch.setattr(leasing, "DEAD_S", 0.0)
    assert play(found) == []
    assert ledger(found) == undisturbed(tmp_path)
    assert not (tmp_path / "bucket/runs/tiny/lease.json").exists()
    # At most what was being written when the process was killed.
    assert len(list((tmp_path / "bucket").rglob(".*"))) <= 1


def test_the_machine_that_came_back_sees_what_the_other_did(machine, tmp_path):
    play(run := begin(), StopAt(run, 3))
    machine("b")
    other = find_run(ROOT_URL, "tiny")
    play(other)
    (other.nets / "t00001.json").write_text("{}")
    other.front.write_text("{}")
    send_rest(other)
    machine("a")
    again = find_run(ROOT_URL, "tiny")
    assert again.folder == run.folder
    assert again.ledger.read_bytes() == other.ledger.read_bytes()
    assert again.front.exists() and (again.nets / "t00001.json").exists()


def test_what_only_this_machine_has_is_kept(machine, tmp_path):
    run = begin()
    with run.lock():
        go(run, episodes=3)
        push(run)
    go(run, episodes=9)
    run.front.write_text("{}")
    found = find_run(ROOT_URL, "tiny")
    assert len(ledger(found)) == 9
    send_rest(found)
    assert there("trials.jsonl").count(b"\n") == 9 and there("front.json") == b"{}"
    Flaky.writes.clear()
    send_rest(found)
    assert Flaky.writes == []


def test_what_changed_here_before_a_kill_is_not_overwritten(machine):
    run = begin()
    (run.nets / "t00001.json").write_text("old")
    mirror = Mirror(run, lambda line: None, every_s=0.0, retry_s=60.0)
    with run.lock():
        mirror.start()
        go(run, episodes=3, tracker=mirror)
        until = time.monotonic() + 20
        while pending(run) or not all(seen.version for seen in state_of(run).seen.values()):
            assert time.monotonic() < until, "nothing was noted"
            time.sleep(0.01)
        # From here on the process is as good as dead: it sends nothing more.
        Flaky.error = ConnectionError("the cable is out")
        (run.nets / "t00001.json").write_text("newer")
        mirror.close(0.1)
    Flaky.error = None
    Flaky.reads.clear()
    found = find_run(ROOT_URL, "tiny")
    assert (found.nets / "t00001.json").read_text() == "newer"
    assert Flaky.reads == []
    send_rest(found)
    assert there("nets/t00001.json") == b"newer"


def test_what_changed_here_between_a_round_and_its_note_is_not_overwritten(machine):
    run = begin()
    (run.nets / "t00001.json").write_text("old")
    (run.nets / "t00002.json").write_text("old")
    (run.nets / "t00003.json").write_text("old")
    with run.lock():
        push(run)
    (run.nets / "t00001.json").write_text("newer")
    (run.nets / "t00002.json").write_text("newer")
    put("nets/t00002.json", b"another machine's")
    put("nets/t00003.json", b"own")
    found = find_run(ROOT_URL, "tiny")
    texts = [(found.nets / f"t0000{number}.json").read_text() for number in (1, 2, 3)]
    assert texts == ["newer", "another machine's", "own"]


# -- a remote that is down --------------------------------------------------------------------------------------------


class DownBetween(TinyAgent):
    """An agent during whose search the remote is down for some episodes."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def learn(self, rollout):
        if rollout.episode == self.first:
            Flaky.error = ConnectionError("the cable is out")
        if rollout.episode == self.last:
            Flaky.error = None
        time.sleep(0.01)
        return super().learn(rollout)


def test_the_search_goes_on_without_it_and_catches_up(tmp_path):
    said = play(run := begin(), agent=DownBetween(3, 8))
    assert ledger(run) == undisturbed(tmp_path)
    assert there("trials.jsonl") == run.ledger.read_bytes() and pending(run) == []
    assert len(said) == 2, said
    # Where in a round the cable goes out is chance: at the lease, a file or the listing.
    assert re.fullmatch(
        rf"{URL} cannot be written to, the search goes on in {run.folder}\. No connection to {URL}(/\S+)?: the cable "
        r"is out\. Check the network and the address, then try again\.",
        said[0],
    )
    assert said[1] == f"{URL} is up to date again."


def test_what_is_missing_at_the_end_is_said_and_can_be_sent_later(tmp_path):
    said = play(run := begin(), agent=DownBetween(3, 99))
    Flaky.error = None
    assert ledger(run) == undisturbed(tmp_path)
    assert len(said) == 2, said
    assert said[1] == (
        f"{URL} lacks 2 files (trials.jsonl, checkpoint.safetensors), which are in {run.folder}. "
        f"Send them from this machine with: secateur resume {URL}"
    )
    assert there("trials.jsonl").count(b"\n") <= 4
    send_rest(find_run(ROOT_URL, "tiny"))
    assert there("trials.jsonl") == run.ledger.read_bytes() and pending(run) == []


def test_an_impatient_end_does_not_wait():
    run = begin()
    said: list[str] = []
    mirror = Mirror(run, said.append, every_s=0.0)
    with run.lock():
        mirror.start()
        go(run, episodes=3)
        Flaky.slow_s = 1.0
        begun = time.monotonic()
        mirror.close(timeout_s=0.2)
        assert time.monotonic() - begun < 0.6
    Flaky.slow_s = 0.0
    assert "lacks" in said[-1]


def test_a_remote_that_refuses_stops_a_search_before_it_begins(tmp_path):
    place = Place(runs=tmp_path / "copies", remote=ROOT_URL, name="tiny")
    with down(PermissionError("no")), pytest.raises(UserError, match="No permission to look into flaky://bucket/runs"):
        check_place(place, None)
    check_place(place, None)
    assert not Flaky.store  # the probe is gone
    play(begin())
    with pytest.raises(UserError, match=f"The run {URL} exists.*secateur resume {URL}"):
        check_place(place, None)
    with pytest.raises(UserError, match=r"No connection to http://127.0.0.1:9/runs"):
        check_remote("http://127.0.0.1:9/runs", None)


# -- the lease --------------------------------------------------------------------------------------------------------


def test_two_machines_never_write_to_one_run(machine, monkeypatch):
    run = begin()
    said: list[str] = []
    mirror = Mirror(run, said.append, every_s=0.0)
    with run.lock():
        mirror.start()
        go(run, episodes=2, tracker=mirror)
        while not {"trials.jsonl", "checkpoint.safetensors"} <= files_there():
            time.sleep(0.01)
        machine("b")
        other = find_run(ROOT_URL, "tiny")
        with pytest.raises(RunInUse, match=f"The run {URL} is in use by process {os.getpid()} on"):
            play(other)
        # The first machine sleeps for so long that it counts as dead.
        monkeypatch.setattr(leasing, "DEAD_S", -1.0)
        play(other)
        monkeypatch.setattr(leasing, "DEAD_S", 180.0)
        with held(Lease(URL, state_of(other).owner)):
            written = there("trials.jsonl")
            go(run, episodes=4, tracker=mirror)
            mirror.finish()
            assert there("trials.jsonl") == written
            assert len(said) == 1 and f"{URL} gets nothing more from here: process {os.getpid()} on" in said[0]
            with pytest.raises(leasing.LeaseLost):
                push(run)
    assert "lease.json" not in files_there()


def test_a_lease_is_renewed_while_its_process_lives(monkeypatch):
    monkeypatch.setattr(leasing, "RENEW_S", 0.05)
    run = begin()
    times = []
    with run.lock():
        for _ in range(4):
            times.append(json.loads(there("lease.json"))["time"])
            time.sleep(0.1)
        with down():
            time.sleep(0.15)
        time.sleep(0.15)
        assert json.loads(there("lease.json"))["time"] > max(times)
    assert len(set(times)) > 2 and times == sorted(times)
    assert "lease.json" not in files_there()


def test_half_a_lease_is_none():
    run = begin()
    put("lease.json", b'{"owner": "som')
    play(run)
    assert "lease.json" not in files_there()


def test_numbers_that_other_machines_took_are_passed_over(machine):
    def numbered():
        return new_run(copies_of(ROOT_URL), prefix="digits", remote=ROOT_URL)

    first = numbered()
    machine("b")
    second = numbered()
    assert (first.search_id, second.search_id) == ("digits-001", "digits-002")
    assert second.remote == f"{ROOT_URL}/digits-002"
    assert names_at(ROOT_URL) == []  # their searches have not begun


def test_two_machines_that_take_one_number_at_once_get_two(machine, monkeypatch):
    from automl.remote import runs

    first = new_run(copies_of(ROOT_URL), prefix="digits", remote=ROOT_URL)
    machine("b")
    monkeypatch.setattr(runs, "taken_at", lambda url: set())
    assert first.search_id == "digits-001"
    assert new_run(copies_of(ROOT_URL), prefix="digits", remote=ROOT_URL).search_id == "digits-002"


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def half(machine) -> Run:
    """A run of which machine a has played a half; this is machine b."""
    play(run := begin(), StopAt(run, 5))
    machine("b")
    return run


def test_a_damaged_checkpoint_is_one_line_where_nobody_has_another(half):
    put("checkpoint.safetensors", there("checkpoint.safetensors")[:100])
    with pytest.raises(UserError, match=f"{URL}/checkpoint.safetensors is not a checkpoint.*is damaged") as caught:
        find_run(ROOT_URL, "tiny")
    assert str(cache_dir()) not in str(caught.value)


def test_a_missing_ledger_is_one_line(half):
    Flaky().rm_file(f"{FOLDER}/trials.jsonl")
    with pytest.raises(UserError, match=f"checkpoint.safetensors knows 6 trials, but {URL}/trials.jsonl holds 0"):
        find_run(ROOT_URL, "tiny")


def test_a_corrupt_ledger_is_one_line(half):
    put("trials.jsonl", there("trials.jsonl").replace(b'"trial_id"', b'"trial', 1))
    with pytest.raises(UserError, match=f"{URL}/trials.jsonl, line 1 of 6 is not a trial"):
        find_run(ROOT_URL, "tiny")


def test_a_damaged_config_is_one_line(half):
    put("config.json", there("config.json")[:50])
    with pytest.raises(UserError, match=f"{URL}/config.json is damaged"):
        find_run(ROOT_URL, "tiny")


def test_without_a_checkpoint_the_search_begins_again(half, tmp_path):
    Flaky().rm_file(f"{FOLDER}/checkpoint.safetensors")
    found = find_run(ROOT_URL, "tiny")
    assert len(ledger(found)) == 6
    play(found)
    assert ledger(found) == undisturbed(tmp_path)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "trials.jsonl", "config.json"])
def test_a_good_copy_here_heals_what_is_damaged_there(half, machine, name, caplog, tmp_path):
    machine("a")
    put(name, b"rubbish\n")
    found = find_run(ROOT_URL, "tiny")
    assert f"{URL}/{name}" in caplog.text and "Going on with" in caplog.text
    play(found)
    assert ledger(found) == undisturbed(tmp_path)
    machine("c")
    assert ledger(find_run(ROOT_URL, "tiny")) == ledger(found)


def test_another_search_under_the_same_name_is_refused(half, machine):
    machine("a")
    info = json.loads(there("config.json"))
    put("config.json", json.dumps({**info, "fingerprint": "ef" * 32}).encode())
    with pytest.raises(UserError, match=f"is a copy of another search than {URL} holds now: delete that folder"):
        find_run(ROOT_URL, "tiny")


# -- finding ----------------------------------------------------------------------------------------------------------


def test_unknown_runs_name_the_nearest():
    with pytest.raises(UserError, match=r"holds no runs.*secateur search --runs flaky://bucket/runs"):
        find_run(ROOT_URL, "tiny")
    play(begin())
    for call in (lambda: find_run(ROOT_URL, "tinny"), lambda: find_run(Path("runs"), f"{ROOT_URL}/tinny/")):
        with pytest.raises(UserError, match=r"Unknown run 'tinny'\. Did you mean 'tiny'"):
            call()
    with pytest.raises(UserError, match="run's name"):
        find_run(Path("runs"), "flaky://bucket/a b")
    assert not (copies_of(ROOT_URL) / "tinny").exists()


def test_a_light_look_fetches_no_nets_and_no_checkpoint(machine):
    run = begin()
    (run.nets / "t00001.safetensors").write_bytes(b"net")
    (run.nets / "t00001.json").write_text("{}")
    play(run)
    machine("b")
    found = find_run(ROOT_URL, "tiny", light=True)
    assert ledger(found) == ledger(run) and (found.nets / "t00001.json").exists()
    assert not found.checkpoint.exists() and not (found.nets / "t00001.safetensors").exists()
    found = find_run(ROOT_URL, "tiny")
    assert found.checkpoint.exists() and (found.nets / "t00001.safetensors").exists()


def test_many_readers_at_once_see_the_run(machine, monkeypatch):
    play(begin())
    machine("b")
    # Threads have one process number, which two processes have not.
    monkeypatch.setattr(pulling.os, "getpid", threading.get_ident)
    found = at_once(*[lambda: len(ledger(find_run(ROOT_URL, "tiny", light=True)))] * 6)
    assert found == [12] * 6, found


def test_one_file_written_by_many_at_once_is_whole(tmp_path):
    def write(number):
        for _ in range(20):
            write_atomic(tmp_path / "file", bytes([number]) * 1000)

    assert at_once(*[functools.partial(write, number) for number in range(6)]) == [None] * 6
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


def test_a_ledger_that_grows_while_it_is_read_is_read_again(machine):
    play(run := begin(), StopAt(run, 5))
    whole = there("trials.jsonl")
    machine("b")
    put("trials.jsonl", b"".join(whole.splitlines(keepends=True)[:3]))
    get, grown = Flaky.get_file, []

    def growing(self, rpath, lpath, **more):
        if rpath.endswith("trials.jsonl") and not grown:
            grown.append(rpath)
            put("trials.jsonl", whole)
        get(self, rpath, lpath, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flaky, "get_file", growing)
        assert len(ledger(find_run(ROOT_URL, "tiny", light=True))) == 6
    assert grown
    machine("c")
    Flaky.cut = 3
    with pytest.raises(UserError, match="came incomplete"):
        find_run(ROOT_URL, "tiny", light=True)


def test_a_search_that_goes_on_here_is_only_looked_at(machine):
    run = begin()
    with run.lock():
        go(run, episodes=3)
        push(run)
        put("trials.jsonl", b"")
        # Another process of this machine looks at the run.
        assert len(ledger(fetch_run(URL))) == 3


def test_the_copys_own_folder_means_the_remote_run_too(machine, tmp_path):
    play(run := begin(), StopAt(run, 5))
    found = find_run(Path("runs"), run.folder)
    assert found.remote == URL
    shutil.copytree(run.folder, tmp_path / "elsewhere")
    plain = find_run(Path("runs"), tmp_path / "elsewhere")
    assert plain.remote == "" and plain.address == str(tmp_path / "elsewhere")


def test_the_command_line_searches_resumes_and_shows_runs_at_a_url(machine):
    done = secateur("search", *SMALL, "--runs", ROOT_URL, "--name", "mine")
    assert done.code == 0, done.err
    assert f"Run:     {ROOT_URL}/mine" in done.out and f"export {ROOT_URL}/mine" in done.out
    assert "flaky" not in done.err
    refused(secateur("search", *SMALL, "--runs", ROOT_URL, "--name", "mine"), f"secateur resume {ROOT_URL}/mine")
    machine("b")
    shown = secateur("front", f"{ROOT_URL}/mine", "--json")
    assert shown.code == 0 and len(json.loads(shown.out)["front"]) >= 1
    again = secateur("resume", "mine", "--runs", ROOT_URL, "--no-track")
    assert again.code == 0, again.err
    Flaky.writes.clear()
    assert secateur("report", f"{ROOT_URL}/mine").code == 0
    assert Flaky.writes == ["/bucket/runs/mine/report.html"]
    refused(secateur("resume", f"{ROOT_URL}/yours"), "Unknown run 'yours'")
    with down():
        refused(secateur("search", *SMALL, "--runs", ROOT_URL), "No connection to flaky://bucket/runs")


# -- file systems without locks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_note(number, tmp_path, monkeypatch, caplog):
    run = new_run(tmp_path, "tiny")

    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock.fcntl, "flock", flock)
    with run.lock():
        pass
    assert f"The file system of {run.folder} knows no locks" in caplog.text


def test_a_lock_that_fails_otherwise_is_one_line(tmp_path, monkeypatch):
    run = new_run(tmp_path, "tiny")

    def flock(file, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(run_lock.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"Cannot lock the run .*Input/output error"), run.lock():
        pass


def test_folders_that_cannot_be_synced_are_no_error(tmp_path, monkeypatch):
    run = new_run(tmp_path, "tiny")
    sync = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "no")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run.write_info(make_info("tiny"))
    assert run.info().net == "tiny"
