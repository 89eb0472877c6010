"""Finished searches below a folder, each checked to be what its cell says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.benchmarks.quality.identity import Facts, facts_of, read_cell, require_same, settings_of
from automl.benchmarks.quality.plan import CELL_FILE
from automl.ledger import TrialRecord, read_ledger
from automl.run_info import RunInfo
from automl.runs import Run
from compressors.errors import UserError

Expected = Callable[[str, Facts], Facts]
"""What the searches of a variant, by its name, must be made with where the cell is made with the given facts."""


@dataclass(frozen=True)
class Search:
    """One finished search.

    Attributes:
        name: Of the agent or the variant.
        seed: Of the search.
        info: What the search was asked to do.
        records: Its trials.
    """

    name: str
    seed: int
    info: RunInfo
    records: tuple[TrialRecord, ...]


@dataclass(frozen=True)
class CellSearches:
    """All searches of a cell.

    Attributes:
        cell: Content of `cell.json`.
        searches: Those that are finished, in the order of names and seeds.
        agents: For each name the settings, seeds and commands of its finished searches.
        unfinished: How many are left out.
    """

    cell: dict[str, Any]
    searches: tuple[Search, ...]
    agents: dict[str, Any]
    unfinished: int

    @property
    def note(self) -> str:
        """A line for people on what is left out, or empty."""
        if not self.unfinished:
            return ""
        names = f"{self.cell['net']} on {self.cell['data']}, {self.cell['target']}"
        return f"{names}: {self.unfinished} unfinished search(es) are left out."


def cell_files(out: Path) -> list[Path]:
    """The `cell.json` of all cells.

    Raises:
        UserError: There are none.
    """
    files = sorted(out.glob(f"*/*/{CELL_FILE}"))
    if not files:
        raise UserError(f"{out} holds no results: it has no folder NET-DATA/TARGET with a {CELL_FILE}.")
    return files


def read_searches(file: Path, expected: Expected | None = None) -> CellSearches:
    """Reads the searches of a cell.

    Args:
        file: Its `cell.json`.
        expected: What each variant must be made with; None where the folders are named after agents.

    Raises:
        UserError: Something is damaged, or results were made differently.
    """
    cell, folder = read_cell(file), file.parent
    facts: Facts = cell["facts"]
    if ("agent" in facts) != (expected is not None):
        kind, other = ("variants of an agent", "ablation") if "agent" in facts else ("agents", "quality")
        raise UserError(f"{folder} compares {kind}: show it with secateur bench {other}.")
    ablated = str(facts["agent"]["name"]) if "agent" in facts else ""
    searches: list[Search] = []
    agents: dict[str, Any] = {}
    unfinished = 0
    for config in sorted(folder.glob("*/seed-*/config.json"), key=lambda path: (path.parts[-3], _seed(path.parent))):
        run = Run(config.parent)
        name = run.folder.parent.name
        info = run.info()
        _require_facts(run, facts_of(info, ablated), facts if expected is None else expected(name, facts))
        settings = settings_of(info.config["agent"], ablated or name)
        held = agents.setdefault(name, {"settings": settings, "seeds": [], "commands": []})
        again = "Delete one of them."
        require_same(run.folder.parent, {"agent": held["settings"]}, {"agent": settings}, again)
        records = read_ledger(run.ledger)
        if len(records) < facts["episodes"]:
            unfinished += 1
            continue
        held["seeds"].append(_seed(run.folder))
        held["commands"] += [info.command] if info.command not in held["commands"] else []
        searches.append(Search(name, _seed(run.folder), info, tuple(records)))
    return CellSearches(
        cell, tuple(searches), {name: found for name, found in agents.items() if found["seeds"]}, unfinished
    )


def _require_facts(run: Run, found: Facts, expected: Facts) -> None:
    # A run folder does not say on which device it ran.
    found["evaluator"]["device"] = expected["evaluator"].get("device")
    require_same(run.folder, found, expected, "Move that folder elsewhere.")


def _seed(folder: Path) -> int:
    number = folder.name.removeprefix("seed-")
    if not number.isdigit():
        raise UserError(f"{folder} must be named seed-NUMBER. Move it elsewhere.")
    return int(number)
