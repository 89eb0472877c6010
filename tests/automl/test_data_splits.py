import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.data import DataConfig, ImageSet, load_splits
from automl.data.load import check_classes
from automl.data.raw import Part, RawData
from automl.data.splits import divide, parse_search_from
from compressors.errors import UserError

SETS = ("train", "calibration", "search", "test")


def raw(train: int, test: int, classes: int = 3, **facts) -> RawData:
    def part(count: int, seed: int) -> Part:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
        return Part(images, rng.integers(0, classes, count).astype(np.int64))

    names = tuple(map(str, range(classes)))
    return RawData(part(train, 0), part(test, 1), names, mean=(0.5,), std=(0.25,), **facts)


def keys(splits, name: str) -> set[str]:
    images = getattr(splits, name)
    return {images.provenance(i) for i in range(len(images))}


@settings(max_examples=60, deadline=None)
@given(
    train=st.integers(3, 90),
    test=st.integers(2, 60),
    search_from=st.sampled_from(["train", "train:0.4", "test", "test:0.5"]),
    seed=st.integers(0, 5),
    asked=st.dictionaries(
        st.sampled_from(["train_images", "calibration_images", "search_images", "test_images"]), st.integers(1, 60)
    ),
)
def test_splits_never_share_an_image_and_have_the_counts_asked_for(train, test, search_from, seed, asked):
    config = DataConfig(search_from=search_from, seed=seed, **asked)
    try:
        splits = divide(raw(train, test), config)
    except UserError:
        return
    seen: set[str] = set()
    for name in SETS:
        found = keys(splits, name)
        assert len(found) == len(getattr(splits, name)) >= 1
        assert not found & seen
        seen |= found
    for name, count in asked.items():
        assert len(getattr(splits, name.removesuffix("_images"))) == count
    assert splits.search.origin == search_from.partition(":")[0]


def test_the_largest_possible_count_named_in_a_refusal_is_possible_and_one_more_is_not():
    data = raw(100, 40)
    with pytest.raises(UserError, match="calibration_images must be at most 89, but got 200"):
        divide(data, DataConfig(calibration_images=200, search_images=10))
    assert len(divide(data, DataConfig(calibration_images=89, search_images=10)).calibration) == 89
    with pytest.raises(UserError, match="at most 89"):
        divide(data, DataConfig(calibration_images=90, search_images=10))
    with pytest.raises(UserError, match="test_images must be at most 20, but got 21"):
        divide(data, DataConfig(search_from="test:0.5", test_images=21))
    with pytest.raises(UserError, match="search_images must be at most 20, but got 30"):
        divide(data, DataConfig(search_from="test:0.5", search_images=30))


def test_test_half_is_cut_in_file_order_and_searched_images_come_from_the_first_half():
    splits = divide(raw(30, 41), DataConfig(search_from="test:0.5"))
    assert splits.test.indices.tolist() == list(range(20, 41))
    assert sorted(splits.search.indices.tolist()) == list(range(20))


def test_a_test_file_sorted_by_class_is_mixed_before_it_is_halved():
    data = raw(30, 60)
    data.test.labels.sort()
    splits = divide(data, DataConfig(search_from="test:0.5"))
    assert set(splits.search.labels.tolist()) == set(splits.test.labels.tolist()) == {0, 1, 2}


def test_images_set_aside_are_the_same_for_every_seed():
    data = raw(200, 10)
    first, second = (divide(data, DataConfig(search_from="train:0.2", seed=seed)) for seed in (0, 1))
    assert keys(first, "search") == keys(second, "search") and len(first.search) == 40
    assert keys(first, "train") != keys(second, "train")


def test_any_leading_images_of_the_search_split_hold_the_classes_in_proportion():
    splits = divide(raw(3000, 10), DataConfig(search_from="train:0.5", search_images=900))
    shares = np.bincount(splits.search.store_labels, minlength=3) / 3000
    for count in (30, 150, 900):
        found = np.bincount(splits.search.head(count).labels, minlength=3)
        assert np.abs(found - shares * count).max() <= 3


def test_seed_decides_the_splits_and_the_record_shows_it():
    data = raw(300, 50)
    same, again, other = (divide(data, DataConfig(seed=seed)).record for seed in (0, 0, 1))
    assert same == again and json.loads(json.dumps(same)) == same
    assert same["splits"]["search"]["sha256"] != other["splits"]["search"]["sha256"]
    assert [same["splits"][name]["count"] for name in SETS] == [300 - 90 - 75, 90, 75, 50]


@pytest.mark.parametrize("text", ["", "train:", "train:0", "train:1", "test:1.5", "valid", "test:-0.5", "test:0,5"])
def test_malformed_search_from_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"test:0\.5"):
        parse_search_from(text)


def test_labels_out_of_range_are_refused_with_their_row():
    data = raw(20, 20)
    data.train.labels[7] = 3
    with pytest.raises(UserError, match=r"must be in 0..2, but training row 7 has 3"):
        data.checked("toy")
    data.train.labels[7] = -1
    with pytest.raises(UserError, match="row 7 has -1"):
        data.checked("toy")


def test_net_with_too_few_outputs_is_refused():
    splits = divide(raw(20, 20), DataConfig())
    check_classes(splits, 3)
    with pytest.raises(UserError, match=r"0\.\.1 .*--num-classes 3"):
        check_classes(splits, 2)


def test_images_are_normalised_exactly():
    images = np.array([0, 51, 255, 102], dtype=np.uint8).reshape(1, 1, 2, 2)
    found = ImageSet.from_arrays(images, np.zeros(1, dtype=np.int64), mean=(0.2,), std=(0.5,))
    pixels, labels = found.tensors()
    assert torch.allclose(pixels.flatten(), torch.tensor([-0.4, 0.0, 1.6, 0.4]), atol=1e-6)
    assert pixels.dtype == torch.float32 and labels.tolist() == [0]


def test_batches_cover_all_images_in_order_with_channels_last():
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)
    found = ImageSet.from_arrays(images, np.arange(7), mean=(0.0,) * 3, std=(1.0,) * 3)
    batches = list(found.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(7))
    whole = torch.cat([pixels for pixels, _ in batches])
    assert torch.allclose(whole * 255, torch.from_numpy(images).float(), atol=1e-4)
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_fingerprint_sees_images_labels_and_normalisation_and_survives_pickling():
    splits = divide(raw(40, 10), DataConfig())
    search = splits.search
    copy = pickle.loads(pickle.dumps(search))
    assert copy.fingerprint() == search.fingerprint() and len(copy.store) == len(search)
    assert [copy.provenance(i) for i in range(len(copy))] == [search.provenance(i) for i in range(len(search))]
    prints = {search.fingerprint(), search.head(3).fingerprint(), search.normalised((0.1,), (0.2,)).fingerprint()}
    changed = ImageSet.from_arrays(search.images, (search.labels + 1) % 3, mean=(0.5,), std=(0.25,))
    assert len(prints | {changed.fingerprint()}) == 4


def test_statistics_are_those_of_the_images():
    data = raw(500, 5)
    data = RawData(data.train, data.test, data.class_names).with_statistics()
    pixels = data.train.images / 255
    assert data.mean == pytest.approx((pixels.mean(),), abs=1e-5)
    assert data.std == pytest.approx((pixels.std(),), abs=1e-5)


def test_digits_hold_out_the_same_images_whatever_the_seed():
    first, second = (load_splits(DataConfig(seed=seed)) for seed in (0, 3))
    assert [len(getattr(first, name)) for name in SETS] == [708, 303, 336, 450]
    assert keys(first, "search") == keys(second, "search") and keys(first, "test") == keys(second, "test")
    assert first.image_shape == (1, 8, 8) and first.num_classes == 10 and not first.flip
    with pytest.raises(UserError, match="at most 336"):
        load_splits(DataConfig(search_images=337))


def test_digits_can_be_larger_and_in_colour():
    splits = load_splits(DataConfig(image_size=16, channels=3))
    assert splits.image_shape == (3, 16, 16) and len(splits.mean) == 3


@pytest.mark.parametrize(("name", "hint"), [("digit", "'digits'"), ("cifar-10", "'cifar10'"), ("folder", "folder:")])
def test_unknown_data_names_the_nearest(name, hint):
    with pytest.raises(UserError, match=hint):
        load_splits(DataConfig(name=name))


def test_net_normalisation_replaces_the_datas_own():
    splits = divide(raw(40, 10), DataConfig()).normalised((0.1,), (0.2,))
    assert splits.search.mean == splits.mean == (0.1,) and splits.record["std"] == [0.2]
    assert splits.normalised(None, None) is splits
