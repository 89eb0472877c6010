"""What a compressed net costs, from the number of units kept and the bits alone, without building it.

The same numbers come from a recount of the cut net (`compressors/counting.py`); the tests hold the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressors.layers import Ints, LayerTable

COSTS = ("macs", "params", "size", "bops")
"""What a target can be set on."""

FULL_BITS = 32
"""The width that means: not quantised."""


@dataclass(frozen=True)
class Allocation:
    """How much of each group is kept and how many bits each layer gets: what an episode decides.

    Attributes:
        kept: Units kept, `(groups,)`, each in 1..size.
        weight_bits: `(layers,)`, 2..8, or 32 for not quantised.
        activation_bits: Bits of each layer's input, `(layers,)`, 2..8, or 32.
    """

    kept: Ints
    weight_bits: Ints
    activation_bits: Ints

    @classmethod
    def full(cls, table: LayerTable) -> Allocation:
        """The allocation that keeps everything."""
        bits = np.full(len(table.layers), FULL_BITS, dtype=np.int64)
        return cls(table.group_sizes.copy(), bits, bits.copy())

    def key(self) -> tuple[int, ...]:
        """A hashable identity."""
        return (*self.kept.tolist(), *self.weight_bits.tolist(), *self.activation_bits.tolist())


@dataclass(frozen=True)
class Costs:
    """Costs of one net (or arrays of them).

    Attributes:
        macs: Multiply-accumulates of one input.
        params: Learnable parameters.
        size_bytes: Bytes to store the net: layer weights at their bits, one 4-byte scale for each output channel
            of a quantised layer, everything else (biases, normalisation, running statistics) at 4 bytes.
        bops: Sum over layers of macs x weight_bits x activation_bits.
    """

    macs: int
    params: int
    size_bytes: int
    bops: int

    @property
    def flops(self) -> int:
        """Floating-point operations, 2 x macs."""
        return 2 * self.macs

    def of(self, target: str) -> int:
        """The cost that a target named `target` (one of `COSTS`) is set on."""
        return int({"macs": self.macs, "params": self.params, "size": self.size_bytes, "bops": self.bops}[target])

    def as_dict(self) -> dict[str, int]:
        """All costs by name, flops included."""
        return {
            "macs": self.macs,
            "flops": self.flops,
            "params": self.params,
            "size_bytes": self.size_bytes,
            "bops": self.bops,
        }


class CostModel:
    """Exact costs of any allocation of one net, vectorised over leading axes."""

    def __init__(self, table: LayerTable) -> None:
        self.table = table
        sizes = table.group_sizes
        layers, groups = len(table.layers), len(table.groups)
        self._out_const = np.zeros(layers)
        self._out_coef = np.zeros((layers, groups))
        self._in_const = np.zeros(layers)
        self._in_coef = np.zeros((layers, groups))
        self._area = np.zeros(layers)
        self._positions = np.array([layer.positions for layer in table.layers], dtype=np.float64)
        weights: set[str] = set()
        for row, layer in enumerate(table.layers):
            shape = table.param_shapes[layer.weight]
            weights.add(layer.weight)
            self._out_const[row], self._out_coef[row] = self._axis(layer.weight, 0, shape[0], sizes)
            self._in_const[row], self._in_coef[row] = self._axis(layer.weight, 1, shape[1], sizes)
            self._area[row] = float(np.prod(shape[2:], dtype=np.int64))
        self._param_const, self._param_coef = self._rest(table.param_shapes, weights, sizes)
        self._buffer_const, self._buffer_coef = self._rest(table.buffer_shapes, set(), sizes)
        self.original = self.of(Allocation.full(table))

    def _axis(self, name: str, axis: int, size: int, sizes: Ints) -> tuple[float, NDArray[np.float64]]:
        units = self.table.axis_units(name, axis)
        if units is None:
            return float(size), np.zeros(len(sizes))
        groups = self.table.unit_groups[units[units >= 0]]
        counts = np.bincount(groups, minlength=len(sizes)).astype(np.float64)
        return float((units < 0).sum()), counts / np.maximum(sizes, 1)

    def _rest(
        self, shapes: dict[str, tuple[int, ...]], skip: set[str], sizes: Ints
    ) -> tuple[float, NDArray[np.float64]]:
        """Elements of all tensors outside `skip`, as a constant plus a term linear in the units kept."""
        const, coef = 0.0, np.zeros(len(sizes))
        for name, shape in shapes.items():
            if name in skip:
                continue
            pieces = self.table.slices_of.get(name, ())
            if not pieces:
                const += float(np.prod(shape, dtype=np.int64))
                continue
            # Outside the layers' weights only one axis of a tensor ever carries channels.
            (piece,) = pieces
            fixed, per_unit = self._axis(name, piece.axis, shape[piece.axis], sizes)
            other = float(np.prod(shape, dtype=np.int64)) / shape[piece.axis]
            const += fixed * other
            coef += per_unit * other
        return const, coef

    def arrays(self, kept: Ints, weight_bits: Ints, activation_bits: Ints) -> dict[str, NDArray[np.float64]]:
        """Costs by target name over leading axes.

        Args:
            kept: `(..., groups)`.
            weight_bits: `(..., layers)`.
            activation_bits: `(..., layers)`.

        Returns:
            For each name in `COSTS` an array `(...)`; `size` in bytes. Whole numbers, exact below 2**53.
        """
        outputs = kept @ self._out_coef.T + self._out_const  # (..., layers)
        weights = outputs * (kept @ self._in_coef.T + self._in_const) * self._area
        macs = weights * self._positions
        others = kept @ self._param_coef + self._param_const
        buffers = kept @ self._buffer_coef + self._buffer_const
        scales = np.where(weight_bits < FULL_BITS, outputs * 4, 0.0)
        held = np.ceil(weights * weight_bits / 8)
        return {
            "macs": macs.sum(-1),
            "params": weights.sum(-1) + others,
            "size": (held + scales).sum(-1) + 4 * (others + buffers),
            "bops": (macs * weight_bits * activation_bits).sum(-1),
        }

    def of(self, allocation: Allocation) -> Costs:
        """Costs of one allocation."""
        found = self.arrays(allocation.kept, allocation.weight_bits, allocation.activation_bits)
        macs, params, size, bops = (round(float(found[name])) for name in COSTS)
        return Costs(macs, params, size, bops)

    def layer_macs(self, kept: Ints) -> NDArray[np.float64]:
        """Multiply-accumulates of each layer; `(..., layers)`."""
        outputs = kept @ self._out_coef.T + self._out_const
        inputs = kept @ self._in_coef.T + self._in_const
        return np.asarray(outputs * inputs * self._area * self._positions)
