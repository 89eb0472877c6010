import numpy as np
import pytest
import torch

from automl.data import DataConfig, load_splits
from automl.profile_cache import prepare
from automl.task import task_of
from automl.zoo import NetConfig, load_net
from compressors.compressor import Compressor, CompressorConfig
from compressors.cost import Allocation
from compressors.grouping import fingerprint, layer_table


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "profiles"


def measured(count: list[str], images: int = 120, **settings):
    """A prepared compressor and its net; `count` gets the stages that were really measured."""
    splits = load_splits(DataConfig(calibration_images=images))
    loaded = load_net(NetConfig(), in_channels=1, num_classes=10, image_size=(8, 8))
    task = task_of(splits)
    table = layer_table(loaded.net, task.example, loaded.name)
    compressor = Compressor(CompressorConfig(**settings))
    prepare(compressor, loaded.net, table, task, lambda stage, done, total: count.append(stage))
    return compressor, loaded.net


def test_second_time_measures_nothing_and_makes_the_very_same_nets(cache):
    first: list[str] = []
    second: list[str] = []
    one, net = measured(first)
    two, _ = measured(second)
    assert set(first) == {"statistics", "profile"} and second == []
    for name in ("orders", "errors"):
        for a, b in zip(getattr(one.profile, name), getattr(two.profile, name), strict=True):
            assert np.array_equal(a, b)
    table = one.table
    kept = np.array([max(1, group.size // 2) for group in table.groups])
    bits, full = np.full(len(table.layers), 4), np.full(len(table.layers), 8)
    allocation = Allocation(kept, bits, full)
    made = [fingerprint(each.apply(net, each.policy(allocation))) for each in (one, two)]
    assert made[0] == made[1]


@pytest.mark.parametrize("change", [{"order": "l1"}, {"seed": 1}, {"rows": 500}, {"images": 100}])
def test_other_settings_or_images_are_measured_anew(change):
    measured([])
    again: list[str] = []
    measured(again, **change)
    assert again


def test_other_thread_counts_are_measured_anew(monkeypatch):
    measured([])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    again: list[str] = []
    measured(again)
    assert again


@pytest.mark.parametrize("size", [0, 7, 2000])
def test_half_an_entry_is_as_good_as_none(cache, size):
    measured([])
    entry = next(cache.iterdir())
    entry.write_bytes(entry.read_bytes()[:size])
    again: list[str] = []
    measured(again)
    assert again
    third: list[str] = []
    measured(third)
    assert third == []


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "file"))
    compressor, _ = measured([])
    assert compressor.profile.order == "surgeon"
