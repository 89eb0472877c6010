import errno
import os
import time

import numpy as np
import pytest

from agents.protocol import AgentState
from automl import files
from automl.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from compressors.errors import UserError

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(2.5),
    "flags": np.array([True, False]),
    "torch_rng": np.arange(16, dtype=np.uint8),
}
META = {"rng": {"state": 2**127 + 1}, "baseline": 0.1 + 0.2, "issued": {"3": [1, 2]}, "text": "ü\n"}


def _snapshot(episode=7, fingerprint="ab" * 32):
    return Snapshot(fingerprint, episode, AgentState(arrays=ARRAYS, meta=META))


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    assert load_checkpoint(path, "ab" * 32) is None
    save_checkpoint(path, _snapshot())
    found = load_checkpoint(path, "ab" * 32)
    assert found.next_episode == 7
    assert found.agent.meta == META
    assert set(found.agent.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.agent.arrays[name].dtype == array.dtype
        assert found.agent.arrays[name].shape == array.shape
        np.testing.assert_array_equal(found.agent.arrays[name], array)


def test_another_search_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", _snapshot())
    with pytest.raises(UserError, match="another configuration or net"):
        load_checkpoint(tmp_path / "c", "cd" * 32)


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 64])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, data):
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(UserError, match="is not a checkpoint of a search, or is damaged") as caught:
        load_checkpoint(tmp_path / "c", "ab" * 32)
    assert "\n" not in str(caught.value)


def test_truncated_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", _snapshot())
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-10])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "c", "ab" * 32)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_refusing_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, code, call):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, _snapshot(1))

    def refuse(*args):
        raise OSError(code, "no")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError, match=f"Cannot write .*: {os.strerror(code)}") as caught:
        save_checkpoint(path, _snapshot(2))
    assert "\n" not in str(caught.value)
    assert load_checkpoint(path, "ab" * 32).next_episode == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_really_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_beside", lambda path: tmp_path / ".c.tmp")
    (tmp_path / ".c.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(tmp_path / "c", _snapshot())


def test_a_few_megabytes_cost_a_few_milliseconds(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)
    arrays = {"replay": np.random.default_rng(0).random((10_000, 60), np.float32), "actor": np.zeros(92_000)}
    snapshot = Snapshot("ab" * 32, 1, AgentState(arrays=arrays, meta=META))
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        save_checkpoint(tmp_path / "c", snapshot)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.05
