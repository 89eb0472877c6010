"""One small finished search that many tests look at, and the command line as a function."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from journeys import SMALL, secateur

from automl.runs import Run


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Run:
    runs = tmp_path_factory.mktemp("finished") / "runs"
    done = secateur("search", *SMALL, "--runs", runs, "--name", "done", "--target", "macs=0.3..0.8")
    assert done.code == 0, done.err
    return Run(runs / "done")


@pytest.fixture
def finished(_finished, tmp_path) -> Run:
    """A copy of the finished run, to be done with as a test likes."""
    shutil.copytree(_finished.folder, tmp_path / "runs" / "done")
    return Run(tmp_path / "runs" / "done")


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"
