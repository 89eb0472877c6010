"""What each choice of each step costs in relative squared L2 error, looked up in the profile once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressors.errors import UserError
from compressors.layers import LayerTable
from compressors.profile import BITS, Profile
from envs.decisions import Choice, Decision, DecisionSpace, Floats


@dataclass(frozen=True)
class StepErrors:
    """Relative squared L2 errors of one step's choices, each clipped to 0..1.

    Attributes:
        cut: Sum over the groups headed, `(levels,)`.
        weight: Error of the weights' bits, `(widths,)`.
        activation: Error of the activations' bits, `(widths,)`.
    """

    cut: Floats
    weight: Floats
    activation: Floats

    def of(self, choice: Choice) -> float:
        """Error of one choice."""
        return float(self.cut[choice.level] + self.weight[choice.weight] + self.activation[choice.activation])


def step_errors(profile: Profile, space: DecisionSpace) -> tuple[StepErrors, ...]:
    """Errors of all choices of all steps."""
    return tuple(_errors(profile, step) for step in space.steps)


def check_profile(profile: Profile, table: LayerTable) -> None:
    """Refuses a profile of another net.

    Raises:
        UserError: Its groups or layers are not those of the table, or an error is NaN.
    """
    curves = [len(curve) - 1 for curve in profile.errors]
    if curves != table.group_sizes.tolist():
        raise UserError(
            f"The profile must have one curve of size + 1 errors for each of the {len(table.groups)} groups of "
            f"{table.net!r}, but it has curves for groups of {curves} units; profile this net again."
        )
    wanted = (len(table.layers), len(BITS))
    for name, errors in (("weight", profile.weight_errors), ("activation", profile.activation_errors)):
        if errors.shape != wanted:
            raise UserError(
                f"The profile's {name} errors must be {wanted} (layers, widths) for {table.net!r}, "
                f"but are {errors.shape}; profile this net again."
            )
    if not all(np.isfinite(curve).all() for curve in (*profile.errors, profile.weight_errors)):
        raise UserError(f"The profile of {table.net!r} contains NaN or infinite errors; check the net's weights.")


def _errors(profile: Profile, step: Decision) -> StepErrors:
    cut = np.zeros(len(step.ratios))
    for column, group in enumerate(step.groups):
        cut += profile.errors[group][step.kept[:, column]].clip(0, 1)
    weight = profile.weight_errors[step.layer, [BITS.index(bits) for bits in step.weight_bits]]
    activation = profile.activation_errors[step.layer, [BITS.index(bits) for bits in step.activation_bits]]
    return StepErrors(cut, weight.clip(0, 1), activation.clip(0, 1))
