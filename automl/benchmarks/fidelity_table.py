"""The table of the fidelity benchmark: rank correlations with their intervals, as text for people and programs."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from scipy.stats import rankdata

from automl.benchmarks.fidelity_log import FidelityLog, scores_of
from compressors.profile import Floats

FINETUNED = "finetuned"
"""The name under which the log holds what criteria are held against."""

TITLES = ("criterion", "Spearman", "95% interval", "seconds", "Spearman / s")
_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One criterion's result.

    Attributes:
        criterion: Its name.
        policies: How many it was measured on.
        spearman: Rank correlation with the finetuned accuracy; NaN where all scores are equal.
        low: Lower end of its 95% bootstrap interval.
        high: Upper end.
        seconds: Median of one policy.
        per_second: Correlation over seconds.
    """

    criterion: str
    policies: int
    spearman: float
    low: float
    high: float
    seconds: float
    per_second: float


def correlations(log: FidelityLog, policies: int) -> list[Row]:
    """The table: every criterion that was measured on all of the first so many policies, in the order measured."""
    rows = []
    truth = log.of(FINETUNED, policies)
    for name in log.criteria:
        found = log.of(name, policies)
        if name == FINETUNED or found is None or truth is None:
            continue
        pair = scores_of(found), scores_of(truth)
        rank, (low, high) = spearman(*pair), interval(*pair)
        seconds = statistics.median(one.seconds for one in found)
        rows.append(Row(name, policies, rank, low, high, seconds, rank / max(seconds, 1e-9)))
    return rows


def spearman(one: Floats, other: Floats) -> float:
    """Rank correlation, equal values sharing their mean rank; NaN where one side does not vary."""
    return float(_rank_correlations(one[None], other[None])[0])


def interval(one: Floats, other: Floats, seed: int = 0) -> tuple[float, float]:
    """95% bootstrap interval of the rank correlation; resamples in which one side does not vary are left out."""
    picks = np.random.default_rng(seed).integers(len(one), size=(_RESAMPLES, len(one)))
    found = _rank_correlations(one[picks], other[picks])
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _rank_correlations(one: Floats, other: Floats) -> Floats:
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    first, second = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    # Ranks are whole or half numbers, so that a scale is 0 or well above it.
    return np.where(scale > 0, (first * second).sum(1) / np.where(scale > 0, scale, 1), np.nan)


def as_csv(rows: Sequence[Row]) -> str:
    """The table as CSV; NaN is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value != value else value for key, value in asdict(row).items()})
    return text.getvalue()


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """What a person reads of a row, as `TITLES` names it."""
    if math.isnan(row.spearman):
        return row.criterion, "-", "-", f"{row.seconds:.3g}", "-"
    return (
        row.criterion, f"{row.spearman:.3f}", f"{row.low:.3f} .. {row.high:.3f}", f"{row.seconds:.3g}",
        f"{row.per_second:.3g}",
    )  # fmt: skip


def as_markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [TITLES, ("---",) * len(TITLES), *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
