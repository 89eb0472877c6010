"""Policies: the file, and what they refuse."""

import json

import numpy as np
import pytest

from compressors.cost import Allocation
from compressors.errors import UserError
from compressors.policy import CompressionPolicy, allocation_of, units_of
from tests.compressors.small import prepared


@pytest.fixture(scope="module")
def made():
    net, table, compressor = prepared()
    allocation = Allocation(
        np.maximum(1, table.group_sizes // 2), np.full(len(table.layers), 4), np.full(len(table.layers), 8)
    )
    return net, table, compressor, allocation, compressor.policy(allocation)


def test_a_policy_survives_its_file(made, tmp_path):
    *_, policy = made
    policy.with_details(trial_id="t1").save(tmp_path / "policy.json")
    again = CompressionPolicy.load(tmp_path / "policy.json")
    assert again == policy.with_details(trial_id="t1")


def test_an_allocation_comes_back_from_its_policy(made):
    _, table, _, allocation, policy = made
    assert allocation_of(policy, table).key() == allocation.key()


def test_the_best_units_by_the_profile_are_kept(made):
    _, table, compressor, allocation, policy = made
    kept = units_of(policy, table)
    for group, order in zip(table.groups, compressor.profile.orders, strict=True):
        count = int(allocation.kept[group.index])
        assert set(np.flatnonzero(kept[group.units]).tolist()) == set(order[group.size - count :].tolist())


def edited(policy, **changes):
    return CompressionPolicy.model_validate({**policy.model_dump(), **changes})


def test_another_net_is_refused(made):
    _, table, _, _, policy = made
    with pytest.raises(UserError, match="was made for net 'small' with fingerprint 000000000000"):
        units_of(edited(policy, fingerprint="0" * 64), table)


def test_channels_that_go_together_are_not_cut_apart(made):
    _, table, _, _, policy = made
    group = next(group for group in table.groups if len(group.layers) > 1)
    layers = [entry.model_dump() for entry in policy.layers]
    entry = next(entry for entry in layers if entry["name"] == group.layers[-1])
    entry["kept"] = tuple(entry["kept"][1:])
    entry["preserve_ratio"] = len(entry["kept"]) / entry["total"]
    with pytest.raises(UserError, match="cuts channels apart that only go together"):
        units_of(edited(policy, layers=layers), table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not json", "is not JSON"),
        ({"schema_version": 99}, "schema_version 1, but has 99"),
        ({"layers": [{"name": "a", "preserve_ratio": 1.5, "kept": [0], "total": 1}]}, "less than or equal to 1"),
        ({"layers": [{"name": "a", "preserve_ratio": 0.5, "kept": [3, 1], "total": 4}]}, "increasing channel indices"),
        (
            {"layers": [{"name": "a", "preserve_ratio": 1, "kept": [0], "total": 1, "weight_bits": 9}]},
            r"2\.\.8 or 32, but got 9",
        ),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_bad_files_are_refused_in_one_line(made, tmp_path, change, message):
    *_, policy = made
    path = tmp_path / "policy.json"
    if isinstance(change, str):
        path.write_text(change)
    else:
        path.write_text(json.dumps({**policy.model_dump(mode="json"), **change}))
    with pytest.raises(UserError, match=message) as error:
        CompressionPolicy.load(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="Cannot read the policy"):
        CompressionPolicy.load(tmp_path / "nothing.json")
