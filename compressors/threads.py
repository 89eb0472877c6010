"""Threads for work on small matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def single_threaded() -> Iterator[None]:
    """Runs the block on one thread of torch and of numpy.

    Small operations gain nothing from more, and lose much where another process is busy: each waits for the slowest
    thread. Their results then do not depend on the number of threads either.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def _pools() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, limiting them microseconds.
    return ThreadpoolController()
