"""Threads for work on small matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded() -> Iterator[None]:
    """Runs the block on one thread of torch.

    Small operations gain nothing from more, and lose much where another process is busy: each waits for the slowest
    thread. Their results then do not depend on the number of threads either.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
