"""Makes the profile: every group's order and error curve, every layer's quantisation errors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from compressors.layers import Group, Layer, LayerTable
from compressors.profile import BITS, Floats, Profile
from compressors.quantize.activations import activation_error
from compressors.quantize.weights import quantize_weight, weight_scales
from compressors.select import SELECTORS, Problem
from compressors.select.surgeon import eliminate
from compressors.statistics import LayerStatistics, Statistics
from compressors.threads import single_threaded

_WIDE = 1024
"""Columns from which linear algebra gains from several threads."""


def blocks(weight: Tensor, groups: int) -> Tensor:
    """A weight as one matrix for each block of a grouped convolution; `(groups, out / groups, columns)` float64."""
    return weight.detach().cpu().double().reshape(groups, weight.shape[0] // groups, -1)


def build_profile(
    net: nn.Module,
    table: LayerTable,
    statistics: Statistics,
    order: str = "surgeon",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Ranks the units of every group and measures what each cut and each width costs.

    Args:
        net: The original net.
        table: Its layer table.
        statistics: Its statistics.
        order: Name of a channel order, see `SELECTORS`.
        seed: For orders that draw.
        progress: Called with steps done and in all.

    Raises:
        UserError: Unknown order.
    """
    select = SELECTORS[order]
    weights = {layer.weight: blocks(net.get_parameter(layer.weight), layer.groups) for layer in table.layers}
    steps = len(table.groups) + len(table.layers)
    orders, errors = [], []
    for group in table.groups:
        problems = [_problem(table, group, table.by_name[name], weights, statistics) for name in group.consumers]
        rng = np.random.default_rng([seed, group.index])
        chosen = select(_filters(net, table, group), problems, rng)
        wide = any(problem.second.shape[-1] > _WIDE for problem in problems)
        with nullcontext() if wide else single_threaded():
            found, curve = eliminate(problems, group.size, chosen)
        orders.append(found)
        errors.append(curve)
        if progress is not None:
            progress(group.index + 1, steps)
    weight_errors = np.zeros((len(table.layers), len(BITS)))
    activation_errors = np.zeros_like(weight_errors)
    for layer in table.layers:
        seen = statistics.layers[layer.name]
        with single_threaded():
            weight_errors[layer.index] = _weight_errors(weights[layer.weight], net.get_parameter(layer.weight), seen)
            activation_errors[layer.index] = [activation_error(seen.samples, b) if b < 32 else 0.0 for b in BITS]
        if progress is not None:
            progress(len(table.groups) + layer.index + 1, steps)
    return Profile(order, tuple(orders), tuple(errors), weight_errors, activation_errors, statistics.notes)


def _filters(net: nn.Module, table: LayerTable, group: Group) -> Tensor:
    """All weights that produce each unit, each layer's scaled to unit mean square; `(units, weights)`."""
    found = []
    for name in group.layers:
        layer = table.by_name[name]
        weight = net.get_parameter(layer.weight).detach().cpu().double().flatten(1)
        weight = weight / weight.square().mean().sqrt().clamp_min(1e-12)
        units = torch.from_numpy(table.axis_units(layer.weight, 0))
        inside = (units >= group.start) & (units < group.start + group.size)
        rows = inside.nonzero().reshape(-1)
        ranked = rows[(units[rows] - group.start).argsort(stable=True)]
        found.append(weight[ranked].reshape(group.size, -1))
    return torch.cat(found, 1)


def _problem(
    table: LayerTable, group: Group, layer: Layer, weights: dict[str, Tensor], statistics: Statistics
) -> Problem:
    seen = statistics.layers[layer.name]
    weight = weights[layer.weight]
    area = weight.shape[2] // (layer.in_channels // layer.groups)
    units = torch.from_numpy(table.axis_units(layer.weight, 1))
    inside = ((units >= group.start) & (units < group.start + group.size)).nonzero().reshape(-1)
    channels = inside[(units[inside] - group.start).argsort(stable=True)].reshape(group.size, -1)
    columns = (channels[:, :, None] * area + torch.arange(area)).reshape(group.size, -1)
    scaled = weight * seen.scale.reshape(layer.groups, -1)[:, :, None]
    return Problem(seen.second if seen.second is not None else seen.diagonal, scaled, columns)


def _weight_errors(weight: Tensor, raw: Tensor, seen: LayerStatistics) -> Floats:
    scaled = seen.scale.reshape(weight.shape[0], -1)[:, :, None]
    energy = _energy(weight * scaled, seen)
    found = np.zeros(len(BITS))
    for column, bits in enumerate(BITS):
        if bits == 32 or energy <= 0:
            continue
        flat = raw.detach().cpu()
        held = quantize_weight(flat, weight_scales(flat, bits), bits)
        found[column] = _energy((blocks(held, weight.shape[0]) - weight) * scaled, seen) / energy
    return found


def _energy(weight: Tensor, seen: LayerStatistics) -> float:
    """Mean squared output of these weights on the layer's inputs."""
    if seen.second is None:
        return float((weight.square() * seen.diagonal[:, None]).sum())
    return float((torch.bmm(weight, seen.second) * weight).sum())
