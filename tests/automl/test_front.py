import json

import numpy as np
import pytest
from searching import ORIGINAL, make_record

from automl import finetuning
from automl.archive import Archive
from automl.finetuning import allocation_in, select_members
from automl.front import Front, FrontMember, read_front
from automl.runs import new_run
from compressors.errors import UserError


def member(trial: str, macs: int, finetuned: float, test: float = 0.5) -> FrontMember:
    return FrontMember(
        trial_id=trial, accuracy_search=finetuned - 0.01, accuracy_finetuned=finetuned, accuracy_test=test, macs=macs,
        macs_ratio=macs / 1000, params=macs // 10, size_bytes=macs // 2, bops=macs * 1024,
    )  # fmt: skip


FRONT = Front(
    original={"accuracy_search": 0.9, "macs": 1000.0},
    front=(member("t1", 300, 0.7, test=0.99), member("t2", 500, 0.8), member("t3", 700, 0.78)),
)


def archive(points: list[tuple[int, float]], failed: bool = False) -> Archive:
    made = Archive(ORIGINAL)
    for episode, (macs, accuracy) in enumerate(points):
        made.add(make_record(episode, macs=macs, accuracy_search=accuracy, status="failed" if failed else "done"))
    return made


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "t2"),
        ({"max_macs": 0.5}, "t2"),
        ({"max_macs": 0.49}, "t1"),
        ({"max_macs": 450}, "t1"),
        ({"max_macs": 1.0}, "t2"),
        ({"min_accuracy": 0.75}, "t2"),
        ({"min_accuracy": 0.7}, "t1"),
        ({"max_macs": 0.4, "min_accuracy": 0.6}, "t1"),
    ],
)
def test_best_looks_at_the_search_split_and_never_at_the_test_split(conditions, expected):
    assert FRONT.best(**conditions).trial_id == expected


def test_best_says_what_the_nearest_has():
    with pytest.raises(UserError, match=r"max_macs=0.1; the smallest is t1 with 300 macs \(0.300"):
        FRONT.best(max_macs=0.1)
    with pytest.raises(UserError, match=r"min_accuracy=0.95; the best is t2 with 0.8000"):
        FRONT.best(min_accuracy=0.95)
    with pytest.raises(UserError, match="the best is t1"):
        FRONT.best(max_macs=0.4, min_accuracy=0.75)


def test_member_by_name():
    assert FRONT.member("t2").macs == 500
    with pytest.raises(UserError, match=r"front member 't4'.*t1, t2, t3"):
        FRONT.member("t4")


def test_members_are_spread_over_the_front_with_the_best_among_them():
    points = [(100 * step, 0.1 * step) for step in range(1, 10)]
    found = archive(points)
    assert [record.costs["macs"] for record in select_members(found, 20)] == [macs for macs, _ in points]
    assert [record.costs["macs"] for record in select_members(found, 3)] == [100, 500, 900]
    assert [record.costs["macs"] for record in select_members(found, 2)] == [100, 900]
    assert [record.costs["macs"] for record in select_members(found, 1)] == [900]


def test_a_search_that_only_failed_has_no_front():
    with pytest.raises(UserError, match="all of its trials failed"):
        select_members(archive([(100, 0.5)], failed=True), 3)


def test_allocation_is_what_the_ledger_says():
    found = allocation_in(make_record())
    assert found.kept.tolist() == [3, 4] and found.weight_bits.tolist() == [32, 8]
    assert isinstance(found.activation_bits, np.ndarray)


def test_front_file_round_trip_and_damage(tmp_path):
    run = new_run(tmp_path, "a")
    with pytest.raises(UserError, match=r"no front yet. Finish it with: secateur resume"):
        read_front(run)
    run.front.write_text(FRONT.model_dump_json())
    assert read_front(run) == FRONT
    run.front.write_text(FRONT.model_dump_json()[:-30])
    with pytest.raises(UserError, match=r"damaged.*Delete it and run"):
        read_front(run)


def test_members_that_are_finished_are_not_trained_again_and_half_written_ones_are(finished, monkeypatch):
    from journeys import secateur

    before = json.loads(finished.front.read_text())
    finished.front.unlink()
    whole, torn = sorted(finished.nets.glob("*.json"))
    torn.write_bytes(torn.read_bytes()[:40])
    trained = []
    real = finetuning.train
    monkeypatch.setattr("automl.finetuning.train", lambda *args, **more: (trained.append(1), real(*args, **more))[1])
    assert secateur("resume", finished.folder, "--no-track").code == 0
    assert len(trained) == 1 and whole.exists()
    after = json.loads(finished.front.read_text())
    for document in (before, after):
        for entry in document["front"]:
            del entry["seconds"]
    assert after == before
