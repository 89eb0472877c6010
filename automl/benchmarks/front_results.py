"""From the ledgers of a comparison of fronts to `front.csv`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.archive import COST_KEYS, Archive
from automl.benchmarks.front import Question, read_question
from automl.benchmarks.quality.identity import require_same
from automl.benchmarks.quality.plan import CELL_FILE
from automl.benchmarks.quality.searches import CellSearches, Search, cell_files, read_searches
from automl.benchmarks.rows import read_csv, rounded, write_csv
from automl.ledger import TrialRecord
from automl.run_info import RunInfo
from compressors.cost import COSTS, Costs
from envs.target import limit, parse_targets

CSV_FILE = "front.csv"
ONE, SPLIT = "one search", "split"
"""The two ways to spend the episodes."""
HYPERVOLUME = "hypervolume"


@dataclass(frozen=True)
class FrontRow:
    """One figure of one seed; rounded as in the file.

    Attributes:
        net: Short name.
        data: Short name.
        range: Of the one search.
        agent: Who searched.
        way: `one search` or `split`.
        seed: Of the search or the searches.
        evaluations: In all.
        seconds: In all.
        measure: A target, whose value is the best accuracy within it, or `hypervolume`, of all trials.
        value: The figure; None where no trial lies within the target.
    """

    net: str
    data: str
    range: str
    agent: str
    way: str
    seed: int
    evaluations: int
    seconds: float
    measure: str
    value: float | None


def collect(out: Path) -> tuple[list[FrontRow], list[str]]:
    """Reads what a folder compares. Seeds of which a search is missing or unfinished are left out, and noted.

    Args:
        out: Folder of all results.

    Raises:
        UserError: There is nothing, something is damaged, or results were made differently.
    """
    asked = read_question(out)
    rows: list[FrontRow] = []
    notes: list[str] = []
    folders = sorted({file.parent.parent for file in cell_files(out)})
    for folder in folders:
        cells = {}
        for target in (asked.range, *asked.targets):
            if (folder / target / CELL_FILE).exists():
                cells[target] = read_searches(folder / target / CELL_FILE)
        if len(cells) <= len(asked.targets):
            notes.append(f"{folder.name}: left out, since not all of its searches are there.")
            continue
        _require_alike(folder, cells, asked)
        found, unfinished = _rows(cells, asked)
        rows += found
        if unfinished:
            notes.append(f"{folder.name}: {unfinished} unfinished seed(s) are left out.")
    return rows, notes


def _require_alike(folder: Path, cells: Mapping[str, CellSearches], asked: Question) -> None:
    """Checks that the cells differ in their targets alone."""
    first = cells[asked.range]
    for (target, cell), episodes in zip(cells.items(), (asked.episodes, *asked.shares), strict=True):
        facts, wanted = dict(cell.cell["facts"]), dict(first.cell["facts"])
        wanted |= {"episodes": episodes, "env": {**wanted["env"], "targets": facts["env"]["targets"]}}
        require_same(folder / target, facts, wanted, "Choose another --out.")
        for name in cell.agents.keys() & first.agents.keys():
            there, here = (one.agents[name]["settings"] for one in (cell, first))
            require_same(folder / target / name, {"agent": there}, {"agent": here}, "Delete one of them.")


def _rows(cells: Mapping[str, CellSearches], asked: Question) -> tuple[list[FrontRow], int]:
    """Rows of all agents and seeds, and how many of these are not finished."""
    searches = {target: {(one.name, one.seed): one for one in cell.searches} for target, cell in cells.items()}
    known = sorted({key for found in searches.values() for key in found})
    cell = cells[asked.range].cell
    rows: list[FrontRow] = []
    unfinished = 0
    for name, seed in known:
        whole, parts = searches[asked.range].get((name, seed)), []
        for target in asked.targets:
            parts += [searches[target][name, seed]] if (name, seed) in searches[target] else []
        if whole is None or len(parts) < len(asked.targets):
            unfinished += 1
            continue
        names = {"net": str(cell["net"]), "data": str(cell["data"]), "range": asked.range, "agent": name, "seed": seed}
        rows += _figures({**names, "way": ONE}, [whole], asked)
        rows += _figures({**names, "way": SPLIT}, parts, asked)
    return rows, unfinished


def _figures(names: Mapping[str, Any], searches: Sequence[Search], asked: Question) -> list[FrontRow]:
    records = [record for search in searches for record in search.records]
    info = searches[0].info
    common = {
        **names,
        "evaluations": len(records),
        "seconds": rounded(sum(sum(record.seconds.values()) for record in records)),
    }
    values: dict[str, float | None] = {target: best_within(target, records, info) for target in asked.targets}
    archive = Archive(info.original, info.cost)
    for record in records:
        archive.add(record)
    values[HYPERVOLUME] = archive.hypervolume()
    return [
        FrontRow(**common, measure=measure, value=None if value is None else rounded(value))
        for measure, value in values.items()
    ]


def best_within(target: str, records: Iterable[TrialRecord], info: RunInfo) -> float | None:
    """The best accuracy of finished trials that meet a target, whatever they were asked for; None without any."""
    one = parse_targets([target])[0]
    original = Costs(*(int(info.original[COST_KEYS[kind]]) for kind in COSTS))
    most, key = limit(one.kind, one.high, original), COST_KEYS[one.kind]
    found = [record.accuracy_search for record in records if record.status == "done" and record.costs[key] <= most]
    return max(found, default=None)


def to_csv(rows: Iterable[FrontRow]) -> str:
    """The rows as CSV."""
    return write_csv(FrontRow, rows)


def from_csv(path: Path) -> list[FrontRow]:
    """Rows of a CSV file.

    Raises:
        UserError: It cannot be read, or is not such a file; the message names the line.
    """
    return read_csv(path, FrontRow, "a comparison of fronts", _row)


def _row(line: list[str]) -> FrontRow:
    net, data, span, agent, way, seed, evaluations, seconds, measure, value = line
    found = float(value) if value else None
    return FrontRow(net, data, span, agent, way, int(seed), int(evaluations), float(seconds), measure, found)
