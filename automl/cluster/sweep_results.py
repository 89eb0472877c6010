"""What a sweep found, read from the run folders of its searches: who did best, and what is missing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from automl.archive import COST_KEYS, Archive
from automl.cluster.sweep_config import Search
from automl.files import write_atomic
from automl.front import read_front
from automl.ledger import read_ledger
from automl.runs import Run
from compressors.errors import UserError

TITLES = ("net", "target", "agent", "compressor", "seed")
"""Columns that say which search it is."""


class SearchRow(BaseModel):
    """One search of a sweep and how it did.

    Attributes:
        rank: Among the finished searches of the same net and target, from 1; None where it is not finished.
        name: Of its run folder.
        net: Short name of the net.
        target: What it had to reach.
        agent: Who searched.
        compressor: Order and repair.
        seed: Of the search.
        status: Whether it is done.
        accuracy: Of the front's best member on the search split, after the finetune; it decides the rank.
        accuracy_search: Of the same member as the search saw it.
        accuracy_test: Of the same member on the test split, after the finetune.
        cost: Its cost as a ratio to the original net's, in the target's (first) kind.
        hypervolume: Of all trials, against cost ratio 1 and accuracy 0; decides between equal accuracies.
        trials: How many are recorded.
        seconds: Of all trials and of the front's finetune, summed over workers; decides what is still equal.
        failure: Why it failed, else empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int | None = None
    name: str
    net: str
    target: str
    agent: str
    compressor: str
    seed: int
    status: Literal["finished", "failed", "unfinished"] = "unfinished"
    accuracy: float | None = None
    accuracy_search: float | None = None
    accuracy_test: float | None = None
    cost: float | None = None
    hypervolume: float | None = None
    trials: int = 0
    seconds: float = 0.0
    failure: str = ""


def read_results(folder: Path, searches: Sequence[Search], failures: Mapping[str, str]) -> list[SearchRow]:
    """The searches of a sweep, by net and target in the order of the sweep, the best first; failed ones last.

    Args:
        folder: The sweep's.
        searches: Which.
        failures: Why a search failed, by name.
    """
    rows = [_row(Run(folder / search.name), search, failures.get(search.name, "")) for search in searches]
    groups: dict[tuple[str, str], list[SearchRow]] = {}
    for row in rows:
        groups.setdefault((row.net, row.target), []).append(row)
    return [row for group in groups.values() for row in _ranked(group)]


def _ranked(rows: Sequence[SearchRow]) -> list[SearchRow]:
    done = sorted((row for row in rows if row.status == "finished"), key=_better)
    ranked = [row.model_copy(update={"rank": rank}) for rank, row in enumerate(done, start=1)]
    return [*ranked, *(row for row in rows if row.status != "finished")]


def _better(row: SearchRow) -> tuple[float, float, float]:
    return -(row.accuracy or 0.0), -(row.hypervolume or 0.0), row.seconds


def _row(run: Run, search: Search, failure: str) -> SearchRow:
    row = SearchRow(name=search.name, seed=search.seed, **{title: getattr(search, title) for title in TITLES[:4]})
    try:
        if not run.front.exists():
            status: Literal["failed", "unfinished"] = "failed" if failure else "unfinished"
            trials = run.ledger.read_bytes().count(b"\n") if run.ledger.exists() else 0
            return row.model_copy(update={"status": status, "failure": failure, "trials": trials})
        front, info = read_front(run), run.info()
        archive = Archive(info.original, info.cost)
        for record in read_ledger(run.ledger):
            archive.add(record)
    except UserError as error:
        return row.model_copy(update={"status": "failed", "failure": str(error)})
    best, key = front.best(), COST_KEYS[info.cost]
    seconds = sum(sum(record.seconds.values()) for record in archive.records)
    return row.model_copy(
        update={
            "status": "finished",
            "accuracy": best.accuracy_finetuned,
            "accuracy_search": best.accuracy_search,
            "accuracy_test": best.accuracy_test,
            "cost": getattr(best, key) / info.original[key],
            "hypervolume": archive.hypervolume(),
            "trials": len(archive.records),
            "seconds": seconds + sum(member.seconds for member in front.front),
        }
    )


def as_csv(rows: Sequence[SearchRow]) -> str:
    """All rows, with a line of titles."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(SearchRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    return text.getvalue()


def as_json(name: str, rows: Sequence[SearchRow]) -> str:
    """All rows, with the sweep's name."""
    return json.dumps({"sweep": name, "searches": [row.model_dump() for row in rows]}, indent=1) + "\n"


def write_results(folder: Path, rows: Sequence[SearchRow]) -> tuple[Path, Path]:
    """Writes `sweep.csv` and `sweep.json` to the sweep's folder.

    Raises:
        UserError: The disk refuses.
    """
    table, document = folder / "sweep.csv", folder / "sweep.json"
    write_atomic(table, as_csv(rows).encode())
    write_atomic(document, as_json(folder.name, rows).encode())
    return table, document


def cells(rows: Sequence[SearchRow]) -> tuple[dict[str, str], list[str], list[list[str]], int]:
    """The finished searches as texts for a table.

    Args:
        rows: As `read_results` gives them.

    Returns:
        What all have in common, the titles of the columns, the lines under them, and how many columns hold words.
    """
    done = [row for row in rows if row.status == "finished"]
    shared = {
        title: str(getattr(done[0], title)) for title in TITLES if len({getattr(row, title) for row in done}) == 1
    }
    words = [title for title in TITLES if title not in shared]
    titles = [*words, "rank", "search", "tuned", "test", "cost", "hypervolume", "seconds"]
    lines = [
        [
            *(str(getattr(row, title)) for title in words),
            str(row.rank),
            _percent(row.accuracy_search),
            _percent(row.accuracy),
            _percent(row.accuracy_test),
            f"{row.cost:.3f}",
            f"{row.hypervolume:.4f}",
            f"{row.seconds:,.1f}",
        ]
        for row in done
    ]
    return shared, titles, lines, len(words)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
