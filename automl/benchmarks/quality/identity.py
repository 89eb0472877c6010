"""What results were made with, so that results of different evaluators or splits never meet in one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from automl.benchmarks.quality.plan import Cell, Job, label
from automl.config import SearchConfig
from automl.files import storage_errors, write_atomic
from automl.open_run import agent_facts
from automl.place import versions
from automl.run_info import RunInfo
from automl.runs import Run
from compressors.errors import UserError

VERSION = 1
Facts = dict[str, Any]

_YOUNGER = {"warm_start": True, "profile_in_observation": True}
"""Switches that results may be older than: what has no such switch was made as with this value."""


def facts_here(
    config: SearchConfig, cell: Cell, net_fingerprint: str, calibration: str, splits: Mapping[str, Any]
) -> Facts:
    """What results of a cell are made with here and now: the evaluator, and what else its searches have in common."""
    plain = config.model_dump(mode="json")
    facts = _facts({**plain, "calibration": calibration, "splits": dict(splits)}, net_fingerprint, cell.ablated)
    facts["evaluator"] |= {"threads": torch.get_num_threads(), "torch": versions().get("torch"), "device": cell.device}
    return facts


def facts_of(info: RunInfo, ablated: str = "") -> Facts:
    """The same of a run that was made some time.

    Args:
        info: What the run folder says.
        ablated: As in its cell.
    """
    facts = _facts(info.config, info.net_fingerprint, ablated)
    facts["evaluator"] |= {"threads": info.threads, "torch": info.versions.get("torch")}
    return facts


def settings_of(agent: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What matters of the agents' settings where `name` searches."""
    return _without_younger(agent_facts({**agent, "name": name}, name))


def _facts(config: Mapping[str, Any], net_fingerprint: str, ablated: str) -> Facts:
    splits = dict(config["splits"])
    # The same images in another folder are the same images.
    splits["data"] = label(str(splits.get("data", "")))
    evaluator = {
        "net": net_fingerprint,
        "calibration": config["calibration"],
        "splits": splits,
        "compressor": config["compressor"],
        "evaluation": config["evaluation"],
        "batch_size": config["data"]["batch_size"],
    }
    loop = config["loop"]
    return {
        "evaluator": evaluator,
        "env": _without_younger(config["env"]),
        "episodes": loop["episodes"],
        "staleness": loop["staleness"],
        **({"agent": settings_of(config["agent"], ablated)} if ablated else {}),
    }


def _without_younger(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_younger(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if name not in _YOUNGER or value != _YOUNGER[name]
    }


def digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of plain facts, in hex."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> list[str]:
    """Settings that differ, each as `episodes: 40 there, 60 here`."""
    found = []
    for name in sorted({*there, *here}):
        old, new = there.get(name), here.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{path}{name}.")
        elif old != new:
            found.append(f"{path}{name}: {_short(old)} there, {_short(new)} here")
    return found


def require_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any], example: str) -> None:
    """Refuses to mix.

    Args:
        folder: Whose results they are.
        there: What they were made with.
        here: What they must have been made with.
        example: What to do instead, a sentence.

    Raises:
        UserError: The two differ; says in what.
    """
    found = differences(there, here)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{folder} holds results that were made differently ({'; '.join(found[:3])}{more}), and such results are "
            f"never put into one table. {example}"
        )


def claim_cell(cell: Cell, facts: Facts, original: Mapping[str, float], cost: str) -> None:
    """Writes down what a cell is made with, or checks that it is still made with the same.

    Raises:
        UserError: The folder holds results that were made differently, or cannot be written to.
    """
    if cell.file.exists():
        there = read_cell(cell.file)["facts"]
        require_same(cell.folder, there, facts, "Choose another --out, or delete that folder.")
        return
    with storage_errors(f"make {cell.folder}"):
        cell.folder.mkdir(parents=True, exist_ok=True)
    document = {
        "version": VERSION,
        "net": cell.net,
        "data": cell.data,
        "target": cell.target,
        "fingerprint": digest(facts),
        "cost": cost,
        "original": dict(original),
        "facts": facts,
    }
    write_atomic(cell.file, (json.dumps(document, indent=1) + "\n").encode())


def check_job(job: Job) -> None:
    """Checks that what is there of a search was begun with its present settings.

    Raises:
        UserError: It was not.
    """
    run = Run(job.folder)
    if run.config.exists():
        again = f"Choose another --out, or delete {job.folder.parent} to run {job.variant or 'the agent'} again."
        there, here = run.info().config, job.config.model_dump(mode="json")
        require_same(job.folder, _decided(there, job.agent), _decided(here, job.agent), again)


def _decided(config: Mapping[str, Any], agent: str) -> Facts:
    """The sections that a variant may change."""
    env, evaluation = (_without_younger(config[name]) for name in ("env", "evaluation"))
    return {"agent": settings_of(config["agent"], agent), "env": env, "evaluation": evaluation}


def read_cell(file: Path) -> dict[str, Any]:
    """What a cell was made with.

    Raises:
        UserError: The file cannot be read, is damaged, or of another version.
    """
    with storage_errors(f"read {file}"):
        text = file.read_text()
    try:
        document: dict[str, Any] = json.loads(text)
        version = document["version"]
        complete = {"net", "data", "target", "fingerprint", "cost", "original", "facts"} <= set(document)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}). Restore it from a copy.") from None
    if version != VERSION or not complete:
        raise UserError(f"{file} has version {version} or lacks a part; this Secateur reads version {VERSION}.")
    return document


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
