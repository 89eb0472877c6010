"""What every test runs under: one thread, since two of them fight over small tensors, and a cache of its own."""

import os
import tempfile

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache():
    before = os.environ.get("SECATEUR_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SECATEUR_CACHE"] = before or folder
        yield
    if before is None:
        del os.environ["SECATEUR_CACHE"]
