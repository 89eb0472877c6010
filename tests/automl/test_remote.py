"""Data and weights at URLs: fetched once, fetched again when they change, and refused in one line."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from elsewhere import Flaky, at_once, down
from journeys import refused, secateur
from PIL import Image

from automl.data import DataConfig, load_splits
from automl.data import remote as fetching
from automl.remote.errors import remote_errors
from automl.remote.folder import RemoteFolder
from automl.remote.url import check_no_secret, is_url, joined, shown
from automl.weights import save_weights
from automl.zoo import NetConfig, load_net
from compressors.errors import UserError


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    Flaky.restart()
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def images(first: int = 0) -> dict[str, bytes]:
    """A data set of class folders."""
    made = {f"train/{kind}/{n}.png": png(first + 10 * n + 5 * (kind == "b")) for kind in "ab" for n in range(20)}
    return made | {f"test/{kind}/{n}.png": png(100 + n) for kind in "ab" for n in range(8)}


def lay(url: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        Flaky().pipe_file(f"{url}/{name}", data)
    Flaky.writes.clear()


def parquet(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("test", 16)):
        table = pa.table({"image": [{"bytes": png(n)} for n in range(count)], "label": [n % 2 for n in range(count)]})
        pq.write_table(table, folder / f"{part}-00000.parquet")


def load(name: str, **more):
    return load_splits(DataConfig(name=name, calibration_images=6, search_images=6, **more))


def same(first, second) -> bool:
    return all(
        np.array_equal(np.asarray(getattr(first, part).images), np.asarray(getattr(second, part).images))
        for part in ("train", "calibration", "search", "test")
    )


# -- URLs -------------------------------------------------------------------------------------------------------------


def test_urls_are_told_from_paths():
    assert all(is_url(text) for text in ("s3://b/x", "gs://b", "file:///x", "memory://", "abfs://c@a/x"))
    assert not any(is_url(text) for text in ("runs", "/a/b", "C:/x", "C://x", "folder:x", "a:b://", Path("x"), None, 3))
    assert [joined(url, "x") for url in ("s3://b/r/", "s3://b", "file:///", "file:///a", "memory://")] == [
        "s3://b/r/x", "s3://b/x", "file:///x", "file:///a/x", "memory://x",
    ]  # fmt: skip
    assert joined("s3://b/r//") == "s3://b/r"
    assert shown("https://h/x.pt?Signature=abc") == "https://h/x.pt" and shown("a?b.pt") == "a?b.pt"


def test_unknown_and_unusable_urls_are_one_line():
    with pytest.raises(UserError, match=r"Unknown kind of URL 's4'\. Did you mean 's3'"):
        RemoteFolder("s4://bucket")
    with pytest.raises(UserError, match=r"must not hold a password.*ftp://\*\*\*@") as caught:
        RemoteFolder("ftp://me:secret@host/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["ftp://me:se/cret@host/x", "ftp://me:secret@host", "s3://me@corp:secret@bucket/x", "ftp://me:12secret@h/x",
     "https://h/x.pt?sig=secret&se=1", "s3://b/x?versionId=1&X-Amz-Signature=secret", "gs://b/x?X-Goog-Credential=secret",
     "https://h/x?access_token=secret#y", "https://h/x?Key-Pair-Id=secret"],
)  # fmt: skip
def test_urls_with_secrets_are_refused(url):
    with pytest.raises(UserError, match=r"A URL must not hold a (password|signature or a token)") as caught:
        RemoteFolder(url)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/a:b@c", "abfs://box@account.dfs.core.windows.net/x:y@z", "sftp://me@host:22/a@b", "http://[::1]:80/a@b",
     "https://h:8080/x@2.pt?download=true", "s3://b/x?versionId=3", "/a:b@c?sig=1", "https://h/x?raw=1"],
)  # fmt: skip
def test_other_urls_are_not(url):
    check_no_secret(url)


def test_a_missing_package_is_named(monkeypatch):
    fsspec.register_implementation("oss", "not_there.OSS", errtxt="no", clobber=True)
    with pytest.raises(UserError, match=r"oss://b/x needs a package.*pip install ossfs .*on its nodes"):
        RemoteFolder("oss://b/x")


class _Answer(Exception):
    def __init__(self, text, **facts):
        super().__init__(text)
        self.__dict__.update(facts)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError("b/x"), "nothing at s3://b/x"),
        (_Answer("gone", code="404"), "nothing at s3://b/x"),
        (_Answer("no", response={"ResponseMetadata": {"HTTPStatusCode": 404}}), "nothing at s3://b/x"),
        (PermissionError("denied"), "No permission to read s3://b/x.*AWS_PROFILE"),
        (_Answer("Unable to locate credentials"), "No permission"),
        (_Answer("bad", status=403), "No permission"),
        (ConnectionResetError("reset"), "No connection to s3://b/x: reset"),
        (TimeoutError(), "No connection to s3://b/x: TimeoutError"),
        (_Answer('Could not connect to the endpoint URL: "https://b?Signature=1"'), "No connection.*https://b"),
        (OSError(errno.ENOSPC, "No space left on device"), "Cannot read s3://b/x: No space left.*free some space"),
        (NotImplementedError(), "Cannot read s3://b/x: NotImplementedError"),
        (RuntimeError("odd\nsecond line"), "Cannot read s3://b/x: odd. "),
    ],
)
def test_whatever_a_file_system_raises_is_one_line(error, words):
    with pytest.raises(UserError, match=words) as caught, remote_errors("read", "s3://b/x?Signature=1"):
        raise error
    assert "\n" not in str(caught.value) and "Signature" not in str(caught.value)


# -- data -------------------------------------------------------------------------------------------------------------


def test_images_are_those_of_a_local_folder_and_fetched_once(tmp_path):
    lay("flaky://bucket/pets", images())
    for name, data in images().items():
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    steps: list[tuple[str, int, int | None]] = []
    config = DataConfig(name="folder:flaky://bucket/pets", calibration_images=6, search_images=6)
    found = load_splits(config, lambda *step: steps.append(step))
    assert same(found, load(f"folder:{tmp_path / 'pets'}"))
    assert len(Flaky.reads) == len(images())
    assert steps[0][0] == "Fetching flaky://bucket/pets (MB)" and steps[-1][1] == steps[-1][2]
    steps.clear()
    again = load_splits(config, lambda *step: steps.append(step))
    assert same(found, again) and len(Flaky.reads) == len(images()) and not steps


def test_changed_data_is_fetched_again_and_the_old_copy_goes_in_time(tmp_path, caplog):
    lay("flaky://bucket/pets", images())
    first = load("folder:flaky://bucket/pets")
    assert "Fetching flaky://bucket/pets" in caplog.text
    (old,) = (tmp_path / "cache" / "remote").glob("*-*")
    lay("flaky://bucket/pets", images(first=1))
    assert not same(first, load("folder:flaky://bucket/pets"))
    assert len(Flaky.reads) == 2 * len(images())
    assert old.is_dir()  # somebody may be reading it
    os.utime(old, (0, 0))
    lay("flaky://bucket/pets", images(first=2))
    load("folder:flaky://bucket/pets")
    assert not old.exists()


def test_parquet_of_this_machine_is_used_where_it_is(tmp_path):
    parquet(tmp_path / "set" / "data")
    found = load(f"parquet:file://{tmp_path / 'set'}")
    assert same(found, load(f"parquet:{tmp_path / 'set'}"))
    assert not (tmp_path / "cache" / "remote").exists()


def test_only_what_is_needed_of_parquet_is_fetched(tmp_path):
    parquet(tmp_path / "set")
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "set").iterdir()}
    lay("flaky://bucket/set", {**files, "README.md": b"x", "other/train-0.parquet": b"x", "../train-0.parquet": b"x"})
    assert same(load("parquet:flaky://bucket/set"), load(f"parquet:{tmp_path / 'set'}"))
    assert sorted(Flaky.reads) == [f"/bucket/set/{name}" for name in sorted(files)]


def test_what_is_missing_is_said_before_anything_is_fetched():
    with pytest.raises(UserError, match="There is nothing at flaky://bucket/pets"):
        load("folder:flaky://bucket/pets")
    lay("flaky://bucket/pets", {"readme.txt": b"x"})
    with pytest.raises(UserError, match=r"flaky://bucket/pets must hold train-.*none of its files"):
        load("parquet:flaky://bucket/pets")
    with down(), pytest.raises(UserError, match="No connection to flaky://bucket/pets: the cable is out"):
        load("parquet:flaky://bucket/pets")
    with down(PermissionError("no")), pytest.raises(UserError, match="No permission to list flaky://bucket/pets"):
        load("parquet:flaky://bucket/pets")
    assert not Flaky.reads


def test_messages_about_the_copy_name_the_url(tmp_path):
    lay("flaky://bucket/pets", {**images(), "train/b/3.png": b"no image"})
    with pytest.raises(UserError, match=r"flaky://bucket/pets/train/b/3\.png") as caught:
        load("folder:flaky://bucket/pets")
    assert str(tmp_path) not in str(caught.value)


def test_no_room_is_said_before_anything_is_fetched(monkeypatch):
    lay("flaky://bucket/pets", images())
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(UserError, match=r"flaky://bucket/pets has .* MB to fetch, but .* set SECATEUR_CACHE"):
        load("folder:flaky://bucket/pets")
    assert not Flaky.reads


def test_a_full_disk_in_the_midst_is_one_line(monkeypatch):
    lay("flaky://bucket/pets", images())

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching.os, "replace", full)
    with pytest.raises(UserError, match=r"Cannot keep flaky://bucket/pets in the cache .*No space left"):
        load("folder:flaky://bucket/pets")


def test_an_interrupted_fetch_goes_on_where_it_stopped(monkeypatch):
    monkeypatch.setattr(fetching, "_BATCH_FILES", 4)
    lay("flaky://bucket/pets", images())

    def cable(stage, done, total):
        if len(Flaky.reads) >= 12:
            Flaky.error = ConnectionError("the cable is out")

    config = DataConfig(name="folder:flaky://bucket/pets", calibration_images=6, search_images=6)
    with pytest.raises(UserError, match="No connection"):
        load_splits(config, cable)
    Flaky.error = None
    load_splits(config)
    assert len(Flaky.reads) == len(set(Flaky.reads)) == len(images())


def test_what_came_incomplete_is_refused_and_fetched_again():
    lay("flaky://bucket/pets", images())
    Flaky.cut = 3
    with pytest.raises(UserError, match=r"flaky://bucket/pets/\S+ came incomplete"):
        load("folder:flaky://bucket/pets")
    Flaky.cut = 0
    load("folder:flaky://bucket/pets")


@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_at_once_get_the_same_whole_copy(locks, monkeypatch):
    lay("flaky://bucket/pets", images())
    Flaky.slow_s = 0.002
    if not locks:
        monkeypatch.setattr(fetching, "fcntl", None)
        # Threads have one process number, which two processes have not.
        monkeypatch.setattr(fetching.os, "getpid", threading.get_ident)
    found = at_once(*[lambda: fetching.fetched_data("folder", "flaky://bucket/pets")] * 3)
    assert len(set(found)) == 1 and isinstance(found[0], Path), found
    there = {path.relative_to(found[0]).as_posix(): path.read_bytes() for path in found[0].rglob("*.png")}
    assert there == images()
    assert [path for path in found[0].parent.iterdir() if path.is_dir()] == [found[0]]
    if locks:
        assert len(Flaky.reads) == len(images())


# -- weights ----------------------------------------------------------------------------------------------------------


def small_net(**more):
    return load_net(NetConfig(name="resnet8_digits", **more), in_channels=1, num_classes=10, image_size=(8, 8))


def test_weights_come_from_a_url(tmp_path):
    net = small_net().net
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    save_weights(net, tmp_path / "half.safetensors", name="resnet8_digits", num_classes=10)
    lay("flaky://bucket/nets", {"half.safetensors": (tmp_path / "half.safetensors").read_bytes()})
    loaded = small_net(weights="flaky://bucket/nets/half.safetensors")
    assert all((a == b).all() for a, b in zip(loaded.net.parameters(), net.parameters(), strict=True))
    assert "flaky://bucket/nets/half.safetensors" in loaded.source
    small_net(weights=f"file://{tmp_path / 'half.safetensors'}")
    small_net(weights="flaky://bucket/nets/half.safetensors")
    assert len(Flaky.reads) == 1


def test_unusable_weights_name_the_url(tmp_path):
    with pytest.raises(UserError, match=r"There is nothing at flaky://bucket/half.safetensors"):
        small_net(weights="flaky://bucket/half.safetensors")
    lay("flaky://bucket", {"half.safetensors": b"no weights", "folder/x": b""})
    with pytest.raises(UserError, match=r"Weights file 'flaky://bucket/half.safetensors' is truncated") as caught:
        small_net(weights="flaky://bucket/half.safetensors")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UserError, match="must be a file, but it is a folder"):
        small_net(weights="flaky://bucket/folder")


def test_a_url_survives_the_settings():
    config = NetConfig.model_validate({"weights": "s3://bucket/x.pt"})
    assert config.weights == "s3://bucket/x.pt"
    assert NetConfig.model_validate_json(config.model_dump_json()) == config
    assert NetConfig.model_validate({"weights": "x.pt"}).weights == Path("x.pt")
    with pytest.raises(ValueError, match="must be a path or a URL"):
        NetConfig.model_validate({"weights": 3})


def test_the_command_line_takes_urls(tmp_path):
    lay("flaky://bucket/pets", images())
    done = secateur(
        "search", "--data", "folder:flaky://bucket/pets", "--net", "resnet20", "--weights", "flaky://bucket/x.pt",
        "--runs", tmp_path / "runs", "--calibration-images", "6", "--search-images", "6",
    )  # fmt: skip
    refused(done, "There is nothing at flaky://bucket/x.pt")
    assert "Fetching flaky://bucket/pets" in done.err
