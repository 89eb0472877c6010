"""Which code a process runs: what must be equal on all nodes for results to be equal."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOMS = ("compressors", "envs", "agents", "automl")
_PACKAGES = ("ray", "torch", "numpy")


@functools.cache
def code_facts() -> dict[str, str]:
    """Versions by name; `secateur` with the beginning of a digest of its source."""
    facts = {"python": platform.python_version().rpartition(".")[0], "secateur": f"{_version('secateur')}+{_digest()}"}
    # Without a local version: builds for CPU and for CUDA, e.g. 2.14.1+cpu, work together.
    return facts | {name: _version(name).partition("+")[0] for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "uninstalled"


def _digest() -> str:
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:10]
