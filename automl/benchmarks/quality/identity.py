"""What results were made with, so that results of different evaluators or splits never meet in one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from automl.benchmarks.quality.plan import Cell, Job, label
from automl.files import storage_errors, write_atomic
from automl.open_run import agent_facts
from automl.place import versions
from automl.run_info import RunInfo
from automl.runs import Run
from compressors.errors import UserError

VERSION = 1
Facts = dict[str, Any]


def facts_here(cell: Cell, net_fingerprint: str, calibration: str, splits: Mapping[str, Any]) -> Facts:
    """What a cell's results are made with here and now: the evaluator, and what else its searches have in common."""
    plain = cell.config.model_dump(mode="json")
    facts = _facts({**plain, "calibration": calibration, "splits": dict(splits)}, net_fingerprint)
    facts["evaluator"] |= {"threads": torch.get_num_threads(), "torch": versions().get("torch"), "device": cell.device}
    return facts


def facts_of(info: RunInfo) -> Facts:
    """The same of a run that was made some time."""
    facts = _facts(info.config, info.net_fingerprint)
    facts["evaluator"] |= {"threads": info.threads, "torch": info.versions.get("torch")}
    return facts


def _facts(config: Mapping[str, Any], net_fingerprint: str) -> Facts:
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
        "env": config["env"],
        "episodes": loop["episodes"],
        "staleness": loop["staleness"],
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
    """Checks that what is there of a search was begun with the agent's present settings.

    Raises:
        UserError: It was not.
    """
    run = Run(job.folder)
    if run.config.exists():
        there = agent_facts(run.info().config["agent"], job.agent)
        here = agent_facts(job.config.agent.model_dump(mode="json"), job.agent)
        again = f"Choose another --out, or delete {job.folder.parent} to run the agent again."
        require_same(job.folder, {"agent": there}, {"agent": here}, again)


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
