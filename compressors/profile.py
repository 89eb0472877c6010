"""The profile: what each cut and each bit width costs in relative L2 error, measured once before any episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressors.layers import Ints

BITS = (2, 3, 4, 5, 6, 7, 8, 32)
"""The widths that a profile knows; 32 means not quantised."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """Sensitivity of one net, measured on the calibration split.

    Errors are squared and relative: 0 is perfect, 1 means that the layer's output is lost.

    Attributes:
        order: Name of the channel order, e.g. `surgeon`.
        orders: For each group its units (0 .. size-1) in the order in which they go, first removed first.
        errors: For each group `(size + 1,)`: entry k is the relative squared L2 error of the consumers' outputs with k
            units kept, after repair; entry `size` is 0.
        weight_errors: `(layers, len(BITS))`: relative squared L2 error of a layer's output with such weights.
        activation_errors: `(layers, len(BITS))`: the same for the layer's input activations.
        notes: What a person should know, e.g. which layers fell back to a cheaper repair.
    """

    order: str
    orders: tuple[Ints, ...]
    errors: tuple[Floats, ...]
    weight_errors: Floats
    activation_errors: Floats
    notes: tuple[str, ...] = ()

    def cut_error(self, group: int, kept: int) -> float:
        """Relative squared L2 error with `kept` units of a group kept."""
        return float(self.errors[group][kept])

    def bits_error(self, layer: int, weight_bits: int, activation_bits: int = 32) -> float:
        """Relative squared L2 error of a layer held at these widths."""
        return float(
            self.weight_errors[layer, BITS.index(weight_bits)]
            + self.activation_errors[layer, BITS.index(activation_bits)]
        )
