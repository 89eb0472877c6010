"""From ledgers to `summary.csv` and `summary.json`, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from automl.archive import Archive
from automl.benchmarks.quality.searches import Expected, Search, cell_files, read_searches
from automl.benchmarks.quality.statistics import METHOD
from automl.benchmarks.rows import read_csv, rounded, write_csv
from automl.files import storage_errors, write_atomic
from automl.place import versions
from compressors.errors import UserError

CSV_FILE = "summary.csv"
JSON_FILE = "summary.json"
GRID = (1, 2, 3, 5, 8, 10, 15, 20, 30, 40, 60, 80, 100, 120, 150, 200, 300, 400, 600, 800, 1000)
"""Numbers of evaluations at which every search has a row, besides its last and those at which its best changed."""


@dataclass(frozen=True)
class Row:
    """One search after some evaluations; rounded as in the file, so that tables from either are equal.

    Attributes:
        net: Short name.
        data: Short name.
        target: As typed.
        agent: Who searched, or which variant did.
        seed: Of the search.
        evaluations: How many so far.
        seconds: Of the whole episodes so far.
        best_accuracy: Best accuracy on the search split so far among trials that are done; 0 before the first.
        hypervolume: Of (cost ratio, accuracy) so far, against (1, 0).
    """

    net: str
    data: str
    target: str
    agent: str
    seed: int
    evaluations: int
    seconds: float
    best_accuracy: float
    hypervolume: float


@dataclass(frozen=True)
class Results:
    """All there is to show.

    Attributes:
        rows: In the order of cells, agents, seeds and evaluations.
        facts: Content of `summary.json`; empty where only the CSV is known.
        notes: Lines for people, e.g. on unfinished searches.
    """

    rows: tuple[Row, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


def collect(out: Path, expected: Expected | None = None) -> Results:
    """Reads all cells, agents and seeds below a folder. Unfinished searches are left out, and counted.

    Args:
        out: Folder of all results.
        expected: As for `read_searches`.

    Raises:
        UserError: There are none, something is damaged, or results of one cell were made differently.
    """
    rows: list[Row] = []
    cells, notes = [], []
    for file in cell_files(out):
        found = read_searches(file, expected)
        for search in found.searches:
            rows += _rows(found.cell, search)
        cells.append(
            {name: value for name, value in found.cell.items() if name != "version"} | {"agents": found.agents}
        )
        notes += [found.note] if found.note else []
    facts = {"version": 1, "interval": METHOD, "versions": versions(), "cells": cells}
    return Results(tuple(rows), facts, tuple(notes))


def _rows(cell: Mapping[str, Any], search: Search) -> list[Row]:
    names = (str(cell["net"]), str(cell["data"]), str(cell["target"]), search.name, search.seed)
    archive, records = Archive(search.info.original, search.info.cost), search.records
    seconds = list(accumulate(sum(record.seconds.values()) for record in records))
    best = volume = 0.0
    rows = []
    for count, record in enumerate(records, start=1):
        if archive.add(record):
            volume = archive.hypervolume()
        better = record.status == "done" and record.accuracy_search > best
        best = record.accuracy_search if better else best
        if better or count in GRID or count == len(records):
            rows.append(Row(*names, count, rounded(seconds[count - 1]), rounded(best), rounded(volume)))
    return rows


def to_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV."""
    return write_csv(Row, rows)


def from_csv(path: Path) -> tuple[Row, ...]:
    """Rows of a CSV file.

    Raises:
        UserError: It cannot be read, or is not such a file; the message names the line.
    """
    return tuple(read_csv(path, Row, "a summary", _row))


def _row(line: list[str]) -> Row:
    net, data, target, agent, seed, evaluations, seconds, best, volume = line
    return Row(net, data, target, agent, int(seed), int(evaluations), float(seconds), float(best), float(volume))


def read_summary(path: Path) -> Results:
    """A CSV file, with what the `summary.json` beside it says.

    Raises:
        UserError: One of them is damaged.
    """
    rows, beside = from_csv(path), path.with_name(JSON_FILE)
    if not beside.exists():
        return Results(rows, {})
    with storage_errors(f"read {beside}"):
        text = beside.read_text()
    try:
        facts = json.loads(text)
        known = {(cell["net"], cell["data"], cell["target"]) for cell in facts["cells"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{beside} is damaged ({error}). Restore it from a copy, or delete it.") from None
    # Another comparison's facts may lie beside a CSV that was copied.
    return Results(rows, facts if known >= {(row.net, row.data, row.target) for row in rows} else {})


def write_summary(results: Results, out: Path) -> list[Path]:
    """Writes `summary.csv` and `summary.json`.

    Raises:
        UserError: They cannot be written.
    """
    paths = [out / CSV_FILE, out / JSON_FILE]
    write_atomic(paths[0], to_csv(results.rows).encode())
    write_atomic(paths[1], (json.dumps(results.facts, indent=1) + "\n").encode())
    return paths
