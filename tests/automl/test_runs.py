import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from searching import make_run

from automl.run_info import RunInfo, fingerprint
from automl.runs import Run, find_run, new_run
from compressors.errors import UserError


def test_numbered_names_count_up(tmp_path):
    assert [new_run(tmp_path / "runs", prefix="resnet20/digits").search_id for _ in range(3)] == [
        "resnet20-digits-001",
        "resnet20-digits-002",
        "resnet20-digits-003",
    ]


def test_info_round_trip(tmp_path):
    run = make_run(tmp_path)
    info = run.info()
    assert RunInfo.model_validate_json(info.model_dump_json()) == info
    run.require("cd" * 32)
    with pytest.raises(UserError, match="belongs to another search"):
        run.require("ef" * 32)


def test_fingerprint_sees_config_and_net_but_not_order():
    assert fingerprint({"a": 1, "b": 2}, "n") == fingerprint({"b": 2, "a": 1}, "n")
    assert len({fingerprint({"a": 1}, "n"), fingerprint({"a": 2}, "n"), fingerprint({"a": 1}, "m")}) == 3


def test_taken_and_malformed_names_are_refused(tmp_path):
    make_run(tmp_path, "mine")
    with pytest.raises(UserError, match=r"secateur resume \S*mine"):
        new_run(tmp_path, "mine")
    for name in ("../up", "", "a b", ".hidden"):
        with pytest.raises(UserError, match="run's name"):
            new_run(tmp_path, name)


def test_a_name_whose_search_never_began_can_be_used_again(tmp_path):
    new_run(tmp_path, "mine")
    with pytest.raises(UserError, match="stopped before its search began"):
        find_run(tmp_path, "mine")
    assert new_run(tmp_path, "mine").folder.is_dir()


def test_found_by_id_and_by_folder(tmp_path, monkeypatch):
    run = make_run(tmp_path / "runs", "mine")
    assert find_run(tmp_path / "runs", "mine").folder == run.folder.resolve()
    assert find_run(tmp_path / "elsewhere", run.folder).search_id == "mine"
    monkeypatch.chdir(run.folder)
    assert find_run(Path("/nowhere"), ".").search_id == "mine"


def test_unknown_runs_name_the_nearest(tmp_path):
    with pytest.raises(UserError, match="holds no runs"):
        find_run(tmp_path / "runs", "mine")
    make_run(tmp_path, "resnet20-001")
    with pytest.raises(UserError, match="Did you mean 'resnet20-001'"):
        find_run(tmp_path, "resnet20-01")


def test_other_folders_and_files_are_no_runs(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a run folder"):
        find_run(tmp_path / "runs", tmp_path / "other")
    with pytest.raises(UserError, match="is a file"):
        find_run(tmp_path / "runs", tmp_path / "file")


def test_damaged_config_is_one_line(tmp_path):
    run = make_run(tmp_path)
    run.config.write_text(run.config.read_text()[:60])
    with pytest.raises(UserError, match=r"config\.json is damaged") as caught:
        find_run(tmp_path, "tiny")
    assert "\n" not in str(caught.value)


def test_second_process_is_kept_out_and_a_dead_one_does_not_count(tmp_path):
    run = make_run(tmp_path)
    script = (
        "import sys, time; from pathlib import Path; from automl.runs import Run\n"
        "with Run(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(run.folder)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {other.pid}"), run.lock():
            pass
        other.kill()
    with run.lock():
        assert (run.folder / "lock").read_text() == str(os.getpid())
    with run.lock():
        pass


def test_read_only_folder_is_one_line(tmp_path, monkeypatch):
    run = make_run(tmp_path)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "no")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"Cannot write to the run .*: Read-only file system"), run.lock():
        pass
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="Cannot make a run in"):
        new_run(tmp_path, "other")


def test_layout_is_as_documented(tmp_path):
    run = Run(tmp_path / "id")
    names = [
        path.name for path in (run.config, run.ledger, run.checkpoint, run.front, run.policies, run.nets, run.report)
    ]
    assert names == [
        "config.json", "trials.jsonl", "checkpoint.safetensors", "front.json", "policies", "nets", "report.html",
    ]  # fmt: skip
