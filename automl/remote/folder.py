"""Folders elsewhere: object stores and servers by URL, through fsspec."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.remote.errors import first_line, remote_errors
from automl.remote.url import check_no_secret, joined, shown
from compressors.errors import UserError, one_of

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "http": "aiohttp requests", "https": "aiohttp requests", "sftp": "paramiko", "ssh": "paramiko",
    "smb": "smbprotocol", "hf": "huggingface_hub", "oss": "ossfs",
}  # fmt: skip
_VERSIONS = (
    "ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "mtime", "modified",
    "updated", "created",
)  # fmt: skip
# Where folders must be made, and a file is seen before it is whole.
_WITH_FOLDERS = frozenset({"file", "local", "sftp", "ssh", "smb", "hdfs", "webhdfs", "arrow_hdfs", "ftp"})


@dataclass(frozen=True)
class RemoteFile:
    """What a listing says of a file.

    Attributes:
        path: As its file system names it.
        size: In bytes; None where nobody knows.
        version: Changes with the content: a tag or a time, whatever there is; may be empty.
    """

    path: str
    size: int | None
    version: str


class CameIncomplete(UserError):
    """A file has another size than it was listed with: it was cut off, or replaced meanwhile."""


class RemoteFolder:
    """A folder elsewhere, or the folder of a single file.

    Args:
        url: Its URL.

    Raises:
        UserError: No such kind of URL, a secret in it, or what it needs is not installed; from every method: nothing
            there, no permission, no connection.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.scheme = url.partition("://")[0].lower()
        check_no_secret(url)
        self.fs, self.path = _opened(url, self.scheme)

    def files(self) -> dict[str, RemoteFile]:
        """All files, also in inner folders, by their paths in this one; none where there is no such folder."""
        with remote_errors("list", self.url):
            self.fs.invalidate_cache()
            try:
                found = self.fs.find(self.path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        root = self.path.rstrip("/") + "/"
        return {
            name.removeprefix(root): _file(name, info)
            for name, info in found.items()
            if name.startswith(root) and ".." not in name.removeprefix(root).split("/")
        }

    def folders(self) -> list[str]:
        """Names of the folders directly inside; none where there is no such folder."""
        with remote_errors("list", self.url):
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")

    def file(self) -> RemoteFile:
        """What is known of this URL itself, as of a file."""
        with remote_errors("read", self.url):
            self.fs.invalidate_cache()
            info = self.fs.info(self.path)
        if info["type"] == "directory":
            raise UserError(f"{shown(self.url)} must be a file, but it is a folder.")
        return _file(self.path, info)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with remote_errors("look into", self.url):
            self.fs.invalidate_cache()
            try:
                return bool(self.fs.info(self._at(name))["type"] != "directory")
            except (FileNotFoundError, NotADirectoryError):
                return False  # `isfile` says so of every error

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        with remote_errors("read", joined(self.url, name)):
            self.fs.invalidate_cache()
            try:
                return bytes(self.fs.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file, whole or not at all where the file system can do that."""
        with remote_errors("write", joined(self.url, name)), self._place(name) as place:
            self.fs.pipe_file(place, data)

    def send(self, name: str, source: Path) -> None:
        """As `write`, from a local file."""
        with remote_errors("write", joined(self.url, name)), self._place(name) as place:
            self.fs.put_file(str(source), place)

    def create(self, name: str, data: bytes) -> bool:
        """Makes a file; whether there was none. Exact on local disks, S3 and Google's store, elsewhere nearly."""
        with remote_errors("write", joined(self.url, name)):
            self._make_parent(name)
            self.fs.invalidate_cache()
            try:
                if self.scheme in ("file", "local"):
                    with open(self._at(name), "xb") as file:
                        file.write(data)
                else:
                    self.fs.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def fetch(self, files: Sequence[RemoteFile], targets: Sequence[Path]) -> None:
        """Copies files to this disk, at once where the file system can do that.

        Raises:
            CameIncomplete: Besides what every method raises: one has another size than it was listed with.
        """
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        with remote_errors("read", self.url):
            self.fs.get([file.path for file in files], [str(target) for target in targets])
        for file, target in zip(files, targets, strict=True):
            came = target.stat().st_size if target.exists() else 0
            if file.size is not None and came != file.size:
                raise CameIncomplete(
                    f"{self._named(file)} came incomplete ({came:,} of {file.size:,} bytes), or was replaced meanwhile."
                    " Please try again."
                )

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        with remote_errors("remove", joined(self.url, name)), suppress(FileNotFoundError):
            self.fs.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def _named(self, file: RemoteFile) -> str:
        return joined(shown(self.url), file.path.removeprefix(self.path.rstrip("/") + "/"))

    def _make_parent(self, name: str) -> None:
        # Elsewhere there are no folders, and asking for one might make a bucket.
        if self.scheme in _WITH_FOLDERS:
            self.fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _place(self, name: str) -> Iterator[str]:
        """Where to write, so that nobody reads half a file."""
        if self.scheme not in _WITH_FOLDERS:
            yield self._at(name)
            return
        self._make_parent(name)
        folder, _, last = self._at(name).rpartition("/")
        beside = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}"
        try:
            yield beside
            self.fs.mv(beside, self._at(name))
        except BaseException:
            with suppress(Exception):
                self.fs.rm_file(beside)
            raise


def _opened(url: str, scheme: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise UserError(f"{shown(url)} needs a package that is not installed: pip install fsspec") from None
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        advice = f"pip install {package} (on a cluster: on its nodes)" if package else first_line(error)
        raise UserError(f"{shown(url)} needs a package that is not installed: {advice}") from error
    except Exception as error:  # each file system has its own opinion of what a URL may be
        if scheme not in known_implementations and "rotocol" in str(error):
            raise one_of("kind of URL", scheme, ["s3", "gs", "abfs", "https", "sftp", "hf", "file"]) from error
        raise UserError(f"{shown(url)} cannot be used: {first_line(error)}.") from error
    return fs, str(path)


def _file(name: str, info: dict[str, Any]) -> RemoteFile:
    version = next((f"{key}={info[key]}" for key in _VERSIONS if info.get(key) is not None), "")
    return RemoteFile(name, info.get("size"), version)
