"""Backward elimination of whole channels by the optimal-brain-surgeon criterion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.layers import Ints
from compressors.linalg import damped_cholesky, damping_of
from compressors.select.base import SELECTORS, Problem


@SELECTORS.register(
    "surgeon",
    "the channel whose loss costs least after least-squares repair first",
    "Hassibi & Stork 1993, Optimal Brain Surgeon, on blocks of columns",
)
def surgeon(filters: Tensor, problems: Sequence[Problem], rng: np.random.Generator) -> Ints | None:
    """Elimination chooses by itself."""
    return None


class _State:
    """One consumer during elimination: inverse second moments and repaired weights of what is left."""

    def __init__(self, problem: Problem) -> None:
        self.columns = problem.columns
        self.weight = problem.weight.double().clone()
        if problem.second.dim() == 2:
            diagonal = problem.second.double()
            self.energy = float((self.weight.square() * diagonal[:, None]).sum())
            self.inverse: Tensor | None = None
            kept = (self.weight.square() * diagonal[:, None]).sum((0, 1))
            self.losses = kept[self.columns].sum(1)
            return
        second = problem.second.double()
        self.energy = float(torch.einsum("boc,bcd,bod->", self.weight, second, self.weight))
        damping = damping_of(second.diagonal(dim1=1, dim2=2))
        self.inverse = torch.cholesky_inverse(damped_cholesky(second, damping))

    def costs(self, left: Tensor) -> Tensor:
        """Error added by removing each of the units `left` alone."""
        if self.inverse is None:
            return self.losses[left]
        columns = self.columns[left]  # (n, m)
        blocks = self.inverse[:, columns[:, :, None], columns[:, None, :]]  # (b, n, m, m)
        weights = self.weight[:, :, columns].permute(0, 2, 3, 1)  # (b, n, m, out)
        costs: Tensor = (weights * torch.linalg.solve(blocks, weights)).sum((0, 2, 3))
        return costs

    def remove(self, units: Tensor) -> float:
        """Removes units together, repairs the rest, and returns the error that this added."""
        if self.inverse is None:
            return float(self.losses[units].sum())
        gone = self.columns[units].reshape(-1)
        rows = self.inverse[:, gone]  # (b, r, c)
        block = rows[:, :, gone]
        weights = self.weight[:, :, gone]  # (b, out, r)
        gain = torch.linalg.solve(block, rows)  # (b, r, c)
        added = float((weights * torch.linalg.solve(block, weights.transpose(1, 2)).transpose(1, 2)).sum())
        self.weight.baddbmm_(weights, gain, alpha=-1)
        self.inverse.baddbmm_(rows.transpose(1, 2), gain, alpha=-1)
        return added

    def compact(self, left: Tensor) -> None:
        """Forgets columns that are gone, so that later steps are cheaper."""
        if self.inverse is None:
            return
        stays = self.columns[left].reshape(-1)
        others = torch.ones(self.inverse.shape[1], dtype=torch.bool)
        others[self.columns[self.columns >= 0]] = False  # columns of other groups
        index = torch.cat([others.nonzero().reshape(-1), stays]).sort().values
        position = torch.full((self.inverse.shape[1],), -1)
        position[index] = torch.arange(len(index))
        self.inverse = self.inverse[:, index][:, :, index].contiguous()
        self.weight = self.weight[:, :, index].contiguous()
        columns = torch.full_like(self.columns, -1)
        columns[left] = position[self.columns[left]]
        self.columns = columns


def eliminate(problems: Sequence[Problem], units: int, order: Ints | None = None) -> tuple[Ints, NDArray[np.float64]]:
    """Removes the units of a group one after the other, repairing the consumers after each.

    The error of a quadratic is tracked exactly: removing columns R from a least-squares fit adds
    tr(W_R [H_RR]^-1 W_R'), H being the inverse second moments of the columns that are left (Hassibi & Stork 1993, eq.
    5, on blocks). Groups of over 128 units lose a fortieth of what is left at once, and the error in between is
    interpolated.

    Args:
        problems: The group's consumers.
        units: Number of units.
        order: Remove in this order; None removes the cheapest unit each time.

    Returns:
        The order of removal and, for 0..units kept, the relative squared error averaged over consumers, 1 at most.
    """
    states = [state for state in map(_State, problems) if state.energy > 0]
    errors = np.zeros(units + 1)
    if not states:
        return np.arange(units) if order is None else order, errors
    removed: list[int] = []
    left = torch.arange(units)
    compacted = units
    total = 0.0
    while len(left) > 1:
        step = 1 if len(left) <= 128 else len(left) // 40
        if order is None:
            costs = torch.stack([state.costs(left) / state.energy for state in states]).sum(0)
            chosen = left[costs.argsort(stable=True)[:step]]
        else:
            chosen = torch.from_numpy(np.asarray(order[len(removed) : len(removed) + step]).copy())
        added = sum(max(0.0, state.remove(chosen)) / state.energy for state in states) / len(states)
        for _ in range(len(chosen)):
            total += added / len(chosen)
            removed.append(0)
            errors[units - len(removed)] = total
        removed[-len(chosen) :] = chosen.tolist()
        left = left[~torch.isin(left, chosen)]
        if len(left) <= 0.75 * compacted and units > 16:
            for state in states:
                state.compact(left)
            compacted = len(left)
    removed += left.tolist()
    errors[0] = 1.0
    return np.array(removed, dtype=np.int64), np.minimum(errors, 1.0)
