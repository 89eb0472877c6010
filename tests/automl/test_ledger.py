import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import make_record

from automl.ledger import Ledger, TrialRecord, comparable, read_ledger
from compressors.errors import UserError


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1))
def test_floats_survive_exactly(reward, accuracy):
    record = make_record(reward=reward, accuracy_search=accuracy)
    assert TrialRecord.model_validate_json(record.line()) == record
    assert "\n" not in record.line()


def test_comparable_drops_times_alone():
    slow, fast = make_record(seconds={"learn": 9.0}), make_record(seconds={"learn": 1.0})
    assert slow.line() != fast.line()
    assert comparable(slow.line()) == comparable(fast.line())
    assert comparable(slow.line()) != comparable(make_record(l2=0.26).line())


def _written(path, count=4):
    ledger = Ledger(path)
    for episode in range(count):
        ledger.append(make_record(episode))
    return path


def test_appends_and_reads_back(tmp_path):
    path = _written(tmp_path / "trials.jsonl")
    assert read_ledger(path) == [make_record(episode) for episode in range(4)]
    assert Ledger(path).note == ""


def test_half_written_last_line_is_cut_and_said(tmp_path):
    path = _written(tmp_path / "trials.jsonl")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(make_record(4).line()[:50].encode())
    assert len(read_ledger(path)) == 4
    ledger = Ledger(path)
    assert "half-written" in ledger.note
    assert path.read_bytes() == whole


def test_cut_keeps_the_first_trials(tmp_path):
    path = _written(tmp_path / "trials.jsonl")
    ledger = Ledger(path, least=2)
    assert [record.episode for record in ledger.records] == [0, 1, 2, 3]
    ledger.cut(4)
    assert not ledger.note
    ledger.cut(2)
    assert [record.episode for record in ledger.records] == [0, 1]
    assert "2 trial(s) newer" in ledger.note
    assert len(path.read_text().splitlines()) == 2
    ledger.append(make_record(2))
    assert [record.episode for record in read_ledger(path)] == [0, 1, 2]


def test_fewer_lines_than_the_checkpoint_is_refused(tmp_path):
    path = _written(tmp_path / "trials.jsonl", 1)
    with pytest.raises(UserError, match=r"knows 3 trials, but .* holds 1"):
        Ledger(path, least=3)
    with pytest.raises(UserError, match="does not exist"):
        Ledger(tmp_path / "other.jsonl", least=3)


@pytest.mark.parametrize("damage", ["not json", '{"trial_id": "t00001"}', "", "\ufffd\x00"])
def test_corruption_in_the_middle_names_the_line(tmp_path, damage):
    path = _written(tmp_path / "trials.jsonl")
    lines = path.read_text().splitlines()
    lines[1] = damage
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"line 2 of 4 is not a trial") as caught:
        read_ledger(path)
    assert "\n" not in str(caught.value)


def test_missing_line_is_refused(tmp_path):
    path = _written(tmp_path / "trials.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    with pytest.raises(UserError, match="line 2 holds episode 2 where episode 1 must stand"):
        Ledger(path)


def test_full_disk_leaves_the_ledger_as_it_was(tmp_path, monkeypatch):
    path = _written(tmp_path / "trials.jsonl")
    before, ledger = path.read_bytes(), Ledger(path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device. Please free some space"):
        ledger.append(make_record(4))
    assert path.read_bytes() == before
    assert len(ledger.records) == 4


def test_line_has_the_fields_of_the_format():
    fields = json.loads(make_record().line())
    assert set(fields) == {
        "trial_id", "episode", "target", "actions", "policy", "costs", "accuracy_search", "l2", "reward", "behaviour",
        "status", "error", "images", "seconds",
    }  # fmt: skip
    assert set(fields["costs"]) == {"macs", "flops", "params", "size_bytes", "bops"}
