"""Fronts and hypervolume: functions of arrays, and an archive that grows trial by trial. Nothing is stored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from automl.ledger import TrialRecord

COST_KEYS = {"macs": "macs", "params": "params", "size": "size_bytes", "bops": "bops"}
"""For each cost that a target can name its key in a record's costs."""


def front(costs: ArrayLike, accuracies: ArrayLike) -> NDArray[np.int64]:
    """The points that no other point beats in both cost (less is better) and accuracy (more is better).

    Args:
        costs: `(points,)`.
        accuracies: `(points,)`.

    Returns:
        Their indices in the order of rising cost; of equal points only the first.
    """
    cost = np.asarray(costs, dtype=np.float64)
    accuracy = np.asarray(accuracies, dtype=np.float64)
    order = np.lexsort((np.arange(len(cost)), -accuracy, cost))
    best = -np.inf
    members = []
    for index in order:
        if accuracy[index] > best:
            best = accuracy[index]
            members.append(index)
    return np.array(members, dtype=np.int64)


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float] = (1.0, 0.0)) -> float:
    """The area that points dominate, in units of cost ratio x accuracy.

    Args:
        points: `(cost_ratio, accuracy)` each.
        reference: The worst corner; points that are worse in either count nothing.

    Returns:
        In 0..1 for the default reference and accuracies in 0..1.
    """
    if not points:
        return 0.0
    return float(moocore.hypervolume(np.asarray(points, dtype=np.float64), ref=reference, maximise=[False, True]))


class Archive:
    """The finished trials of a search and the best of them so far.

    Args:
        original: Costs of the original net, as in a record.
        cost: The cost of the front, one of `macs`, `params`, `size`, `bops`.

    Attributes:
        records: All trials, failed ones too, in episode order.
        front: Members of the front in the order of rising cost.
    """

    def __init__(self, original: Mapping[str, float], cost: str = "macs") -> None:
        self.original = dict(original)
        self.cost = cost
        self.records: list[TrialRecord] = []
        self.front: tuple[TrialRecord, ...] = ()

    def cost_ratio(self, record: TrialRecord) -> float:
        """The front's cost of a trial as a ratio to the original."""
        key = COST_KEYS[self.cost]
        return record.costs[key] / self.original[key]

    def add(self, record: TrialRecord) -> bool:
        """Takes in a trial and says whether it changed the front. Failed and stopped trials never do."""
        self.records.append(record)
        if record.status != "done":
            return False
        # Older members come first, so that an equal newcomer leaves the front as it is.
        candidates = (*self.front, record)
        ratios = [self.cost_ratio(candidate) for candidate in candidates]
        chosen = front(ratios, [candidate.accuracy_search for candidate in candidates])
        self.front = tuple(candidates[index] for index in chosen)
        return bool((chosen == len(candidates) - 1).any())

    def snapshot(self) -> list[tuple[float, float]]:
        """The front as `(cost_ratio, accuracy)` points."""
        return [(self.cost_ratio(member), member.accuracy_search) for member in self.front]

    def best(self, max_ratio: float | None = None, min_accuracy: float | None = None) -> TrialRecord | None:
        """The most accurate trial within a cost ratio, or the cheapest with an accuracy, or None where none fits."""
        fits = [
            member
            for member in self.front
            if (max_ratio is None or self.cost_ratio(member) <= max_ratio)
            and (min_accuracy is None or member.accuracy_search >= min_accuracy)
        ]
        if not fits:
            return None
        return fits[0] if min_accuracy is not None else fits[-1]

    def hypervolume(self) -> float:
        """Hypervolume of the front against (1, 0)."""
        return hypervolume(self.snapshot())


def front_after(records: Sequence[TrialRecord], original: Mapping[str, float], cost: str) -> list[tuple[float, float]]:
    """The front's points after the given trials."""
    archive = Archive(original, cost)
    for record in records:
        archive.add(record)
    return archive.snapshot()
