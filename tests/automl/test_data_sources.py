import gzip
import io
import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from automl.data import DataConfig, load_splits
from automl.data.cache import cached, files_key
from automl.data.decode import Fit, refit
from automl.data.idx import _FILES
from compressors.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SECATEUR_CACHE", str(folder))
    return folder


def png(value: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(out, "PNG")
    return out.getvalue()


def write_folder(root: Path, count: int = 6, test: str = "test") -> Path:
    for part in ("train", test):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                (root / part / name / f"{i}.png").write_bytes(png(100 * label + i))
    return root


def write_parquet(root: Path, part: str, images: list, labels: list, names=("cat", "dog"), column: str = "img") -> Path:
    root.mkdir(exist_ok=True)
    schema = pa.schema(
        [(column, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": {"label": {"names": list(names)}}}})},
    )
    rows = [{"bytes": image, "path": None} for image in images]
    table = pa.Table.from_pydict({column: rows, "label": labels}, schema=schema)
    pq.write_table(table, root / f"{part}-00000-of-00001.parquet")
    return root


def good_parquet(root: Path) -> Path:
    for part in ("train", "test"):
        write_parquet(root, part, [png(i) for i in range(20)], [i % 2 for i in range(20)])
    return root


@pytest.mark.parametrize("test", ["test", "val"])
def test_folder_holds_every_image_with_its_class(tmp_path, test):
    splits = load_splits(DataConfig(name=f"folder:{write_folder(tmp_path, test=test)}"))
    assert splits.class_names == ("cat", "dog") and splits.image_shape == (3, 6, 6) and len(splits.test) == 12
    red = splits.test.images[:, 0, 0, 0]
    assert sorted(red.tolist()) == [*range(6), *range(100, 106)]
    assert ((red >= 100) == splits.test.labels).all()


def test_second_start_reads_the_cache_and_a_changed_file_is_seen(tmp_path, monkeypatch):
    config = DataConfig(name=f"folder:{write_folder(tmp_path)}")
    first = load_splits(config)
    with monkeypatch.context() as patch:
        patch.setattr("automl.data.folder.decode", lambda *_: pytest.fail("decoded again"))
        second = load_splits(config)
    assert isinstance(second.test.store, np.memmap)
    assert first.test.fingerprint() == second.test.fingerprint()
    (tmp_path / "test" / "cat" / "0.png").write_bytes(png(77))
    assert 77 in load_splits(config).test.images[:, 0, 0, 0]


def test_everything_works_where_the_cache_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("SECATEUR_CACHE", str(blocked / "below"))
    splits = load_splits(DataConfig(name=f"folder:{write_folder(tmp_path / 'data')}"))
    assert len(splits.test) == 12 and not isinstance(splits.test.store, np.memmap)


def test_a_damaged_or_half_written_entry_is_made_again(cache):
    made = []

    def produce(allocate):
        made.append(1)
        values = allocate("a", (3,), np.uint8)
        values[:] = (1, 2, 3)
        return {"a": values, "b": np.arange(2)}, {"fact": 1}

    for _ in range(2):
        arrays, facts = cached("toy", "key", produce)
        assert arrays["a"].tolist() == [1, 2, 3] and arrays["b"].tolist() == [0, 1] and facts == {"fact": 1}
    assert len(made) == 1
    (cache / "data" / "toy-key" / "a.npy").write_bytes(b"")
    assert cached("toy", "key", produce)[0]["a"].tolist() == [1, 2, 3] and len(made) == 2
    assert [path.name for path in (cache / "data").iterdir()] == ["toy-key"]


def test_what_a_killed_process_left_behind_is_swept_after_a_day(cache):
    left, recent = cache / "data" / ".new-old", cache / "data" / ".new-recent"
    left.mkdir(parents=True)
    recent.mkdir()
    os.utime(left, (time.time() - 90_000,) * 2)
    cached("toy", "key", lambda allocate: ({"a": np.zeros(1)}, {}))
    assert not left.exists() and recent.exists()


def test_an_error_while_decoding_leaves_nothing_in_the_cache(cache):
    def produce(allocate):
        allocate("a", (3,), np.uint8)
        raise UserError("bad image")

    with pytest.raises(UserError):
        cached("toy", "key", produce)
    assert list((cache / "data").iterdir()) == []


def test_key_depends_on_settings_and_files(tmp_path):
    file = tmp_path / "a"
    file.write_text("x")
    before = files_key([file], {"size": 1})
    assert files_key([file], {"size": 1}) == before != files_key([file], {"size": 2})
    file.write_text("xy")
    assert files_key([file], {"size": 1}) != before


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_missing_and_empty_folders_are_named(tmp_path, kind):
    with pytest.raises(UserError, match=r"nowhere' must exist"):
        load_splits(DataConfig(name=f"{kind}:{tmp_path / 'nowhere'}"))
    with pytest.raises(UserError, match="must hold train"):
        load_splits(DataConfig(name=f"{kind}:{tmp_path}"))


def test_folder_without_images_or_with_a_strange_class_is_refused(tmp_path):
    root = write_folder(tmp_path)
    config = DataConfig(name=f"folder:{root}")
    (root / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="empty has none"):
        load_splits(config)
    (root / "train" / "empty").rmdir()
    (root / "test" / "bird").mkdir()
    (root / "test" / "bird" / "0.png").write_bytes(png(1))
    with pytest.raises(UserError, match=r"bird is none of them"):
        load_splits(config)


def test_corrupt_images_are_named_and_skipped_only_on_request(tmp_path):
    root = write_folder(tmp_path)
    bad = root / "train" / "dog" / "3.png"
    bad.write_bytes(png(1)[:40])
    with pytest.raises(UserError, match=r"dog/3\.png is not .*--skip-corrupt"):
        load_splits(DataConfig(name=f"folder:{root}"))
    for _ in range(2):  # decoded, then from the cache
        splits = load_splits(DataConfig(name=f"folder:{root}", skip_corrupt=True))
        assert splits.record["skipped"] == {"train": 1, "test": 0}
        used = np.concatenate([splits.train.indices, splits.calibration.indices, splits.search.indices])
        assert sorted(used.tolist()) == [i for i in range(12) if i != 9]


def test_mixed_sizes_and_channels_say_which_setting_helps(tmp_path):
    root = write_folder(tmp_path)
    odd = root / "train" / "dog" / "3.png"
    odd.write_bytes(png(1, (9, 6)))
    with pytest.raises(UserError, match=r"3\.png is 9x6 .* 6x6: pass --image-size"):
        load_splits(DataConfig(name=f"folder:{root}"))
    assert load_splits(DataConfig(name=f"folder:{root}", image_size=4)).image_shape == (3, 4, 4)
    odd.write_bytes(png(1, mode="L"))
    with pytest.raises(UserError, match=r"3\.png has 1 .*--channels"):
        load_splits(DataConfig(name=f"folder:{root}"))
    assert load_splits(DataConfig(name=f"folder:{root}", channels=1)).image_shape == (1, 6, 6)


def test_parquet_holds_every_image_with_its_label_and_names(tmp_path):
    root = good_parquet(tmp_path / "data")
    for path in (root, tmp_path):  # also below data/
        splits = load_splits(DataConfig(name=f"parquet:{path}"))
        assert splits.class_names == ("cat", "dog") and len(splits.test) == 20
        assert (splits.test.images[:, 0, 0, 0] == splits.test.indices).all()
        assert (splits.test.labels == splits.test.indices % 2).all()


def test_parquet_second_start_does_not_decode(tmp_path, monkeypatch):
    config = DataConfig(name=f"parquet:{good_parquet(tmp_path)}")
    first = load_splits(config)
    monkeypatch.setattr("automl.data.parquet.decode", lambda *_: pytest.fail("decoded again"))
    second = load_splits(config)
    assert first.record == second.record and first.train.fingerprint() == second.train.fingerprint()


def test_parquet_names_rows_that_are_wrong(tmp_path):
    root = good_parquet(tmp_path)
    config = DataConfig(name=f"parquet:{root}")
    images = [png(i) for i in range(20)]
    write_parquet(root, "train", [*images[:5], b"junk", *images[6:]], [0, 1] * 10)
    with pytest.raises(UserError, match=r"row 5 of .*train-00000"):
        load_splits(config)
    assert load_splits(DataConfig(name=config.name, skip_corrupt=True)).record["skipped"]["train"] == 1
    write_parquet(root, "train", images, [0, 1] * 9 + [0, 2])
    with pytest.raises(UserError, match=r"in 0..1, but training row 19 has 2"):
        load_splits(config)
    write_parquet(root, "train", images, [0, None] * 10)
    with pytest.raises(UserError, match=r"row 1 of .* has none"):
        load_splits(config)
    write_parquet(root, "train", images, [0, 1] * 10, column="picture")
    with pytest.raises(UserError, match="img or image, but it has picture, label"):
        load_splits(config)
    (root / "train-00000-of-00001.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(UserError, match="must be a parquet file"):
        load_splits(config)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + b"".join(struct.pack(">i", n) for n in values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def write_fashion(root: Path, count: int = 30) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for key, name in _FILES.items():
        shape = (count, 28, 28) if key.endswith("images") else (count,)
        write_idx(root / f"{name}.gz", rng.integers(0, 10, shape))
    return root


@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_straight_and_in_torchvisions_layout(tmp_path, below):
    write_fashion(tmp_path / below)
    splits = load_splits(DataConfig(name="fashion-mnist", data_dir=tmp_path))
    assert splits.image_shape == (1, 28, 28) and len(splits.test) == 30 and splits.class_names[9] == "ankle boot"


def test_fashion_mnist_missing_or_damaged_is_one_line(tmp_path):
    config = DataConfig(name="fashion-mnist", data_dir=tmp_path)
    with pytest.raises(UserError, match="install Debian's dataset-fashion-mnist, pass --data-dir, or --download"):
        load_splits(config)
    write_fashion(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(UserError, match="must be a readable IDX file"):
        load_splits(config)
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-5]))
    with pytest.raises(UserError, match="it is damaged"):
        load_splits(config)
    file.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match="header"):
        load_splits(config)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_never_fetched_unasked(tmp_path, name, monkeypatch):
    monkeypatch.setattr("automl.data.torchvision_sets.download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(UserError, match="--data-dir with the folder that holds it, or --download"):
        load_splits(DataConfig(name=name, data_dir=tmp_path))


def test_cifar_with_a_damaged_file_is_refused_unread(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"no pickle that anyone should open")
    with pytest.raises(UserError, match="complete and undamaged"):
        load_splits(DataConfig(name="cifar10", data_dir=tmp_path))


def test_gray_images_are_repeated_to_colour_and_cut_to_squares():
    images = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 1, 4, 6)
    coloured = refit(images, Fit(channels=3))
    assert coloured.shape == (2, 3, 4, 6) and (coloured == images).all()
    assert (refit(images, Fit(image_size=4)) == images[:, :, :, 1:5]).all()
    assert refit(images, Fit()) is images


@pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="needs SECATEUR_DATA")
def test_real_cifar_copy_starts_fast_the_second_time(monkeypatch):
    monkeypatch.delenv("SECATEUR_CACHE")
    path = Path(os.environ["SECATEUR_DATA"]) / "cifar10-jpeg"
    config = DataConfig(name=f"parquet:{path}", search_from="test:0.5")
    load_splits(config)
    started = time.perf_counter()
    splits = load_splits(config)
    assert time.perf_counter() - started < 1
    assert len(splits.search) == 2000 and splits.search.indices.max() < 5000 <= splits.test.indices.min()
    assert len(splits.train) == 49_000 and splits.class_names[0] == "airplane"
