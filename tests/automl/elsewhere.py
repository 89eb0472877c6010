"""File systems for tests: one in memory that can be down, slow or full of traps, and another machine's cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from searching import ORIGINAL

from automl.run_info import RunInfo


class Flaky(MemoryFileSystem):
    """Files in memory at `flaky://`.

    Attributes:
        error: Raised by everything while it is set.
        slow_s: How long each reading and writing takes.
        reads: Paths that were read, in order.
        written: Called after each writing.
        cut: How many bytes are lost at the end of what is read.
    """

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    error: ClassVar[Exception | None] = None
    slow_s: ClassVar[float] = 0.0
    reads: ClassVar[list[str]] = []
    writes: ClassVar[list[str]] = []
    written: ClassVar[Callable[[str], None] | None] = None
    cut: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    @classmethod
    def restart(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.error, cls.slow_s, cls.written, cls.cut = None, 0.0, None, 0
        cls.reads.clear()
        cls.writes.clear()

    def _work(self) -> None:
        time.sleep(self.slow_s)
        if type(self).error is not None:
            raise type(self).error

    def find(self, path, *args, **more):
        self._work()
        return super().find(path, *args, **more)

    def ls(self, path, *args, **more):
        self._work()
        return super().ls(path, *args, **more)

    def info(self, path, **more):
        self._work()
        return super().info(path, **more)

    def cat_file(self, path, **more):
        self._work()
        if self._strip_protocol(path) not in self.store:
            raise FileNotFoundError(path)
        return self.store[self._strip_protocol(path)].getvalue()

    def get_file(self, rpath, lpath, **more):
        self._work()
        self.reads.append(self._strip_protocol(rpath))
        # Not as the class above does it: its files have one position for all threads.
        data = self.store[self._strip_protocol(rpath)].getvalue()
        Path(lpath).write_bytes(data[: len(data) - self.cut])

    def pipe_file(self, path, value, mode="overwrite", **more):
        self._work()
        super().pipe_file(path, value, mode=mode, **more)
        self._after(path)

    def put_file(self, lpath, rpath, **more):
        self._work()
        super().put_file(lpath, rpath, **more)
        self._after(rpath)

    def _after(self, path):
        self.writes.append(self._strip_protocol(path))
        hook = type(self).written
        if hook is not None:
            hook(self._strip_protocol(path))


fsspec.register_implementation("flaky", Flaky, clobber=True)


@contextmanager
def down(error: Exception | None = None):
    """The time during which `flaky://` cannot be reached."""
    Flaky.error = error or ConnectionError("the cable is out")
    try:
        yield
    finally:
        Flaky.error = None


def make_info(name: str) -> RunInfo:
    """What a run of the small search says of itself."""
    return RunInfo(
        search_id=name,
        config={"episodes": 12},
        net="tiny",
        net_fingerprint="ab" * 32,
        fingerprint="cd" * 32,
        original=ORIGINAL,
    )


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Results of functions that run at the same time; what one raises is its result."""
    results: list[Any] = [None] * len(functions)

    def call(index: int) -> None:
        try:
            results[index] = functions[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
