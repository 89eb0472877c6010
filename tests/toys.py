"""Small layer tables and profiles made by hand, for tests that need no net."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressors.cost import Allocation
from compressors.layers import Group, Layer, LayerTable, TensorSlice
from compressors.profile import BITS, Profile
from envs.evaluation import Evaluation


@dataclass
class Spec:
    """One layer of a toy net: `source` and `made` are groups (or a number of fixed channels)."""

    name: str
    kind: str
    source: int | str
    made: int | str
    kernel: int
    positions: int
    stride: int = 1


def make_table(name: str, sizes: dict[str, tuple[int, bool]], specs: list[Spec], norms: bool = True) -> LayerTable:
    """A layer table; `sizes` holds units and innerness of each group by name, specs refer to them."""
    names = list(sizes)
    starts = dict(zip(names, np.cumsum([0, *(size for size, _ in sizes.values())])[:-1].tolist(), strict=True))
    layers: list[Layer] = []
    slices: list[TensorSlice] = []
    params: dict[str, tuple[int, ...]] = {}
    buffers: dict[str, tuple[int, ...]] = {}

    def width(end: int | str) -> int:
        return end if isinstance(end, int) else sizes[end][0]

    def cut(tensor: str, axis: int, end: int | str) -> None:
        if isinstance(end, str):
            units = np.arange(starts[end], starts[end] + sizes[end][0], dtype=np.int64)
            slices.append(TensorSlice(tensor, axis, units))

    for index, spec in enumerate(specs):
        outs, ins = width(spec.made), width(spec.source)
        depthwise = spec.kind == "depthwise"
        kernel = () if spec.kind == "linear" else (spec.kernel, spec.kernel)
        shape = (outs, 1 if depthwise else ins, *kernel)
        weight = f"{spec.name}.weight"
        bias = f"{spec.name}.bias" if spec.kind == "linear" else None
        params[weight] = shape
        cut(weight, 0, spec.made)
        if not depthwise:
            cut(weight, 1, spec.source)
        count = int(np.prod(shape))
        if bias:
            params[bias] = (outs,)
            cut(bias, 0, spec.made)
        elif norms:
            for tensor, shapes in (("weight", params), ("bias", params), ("running_mean", buffers)):
                shapes[f"{spec.name}_bn.{tensor}"] = (outs,)
                cut(f"{spec.name}_bn.{tensor}", 0, spec.made)
        layers.append(
            Layer(
                name=spec.name,
                kind=spec.kind,
                index=index,
                in_channels=ins,
                out_channels=outs,
                kernel_size=kernel,
                stride=() if spec.kind == "linear" else (spec.stride, spec.stride),
                groups=outs if depthwise else 1,
                positions=spec.positions,
                macs=count * spec.positions,
                params=count + (outs if bias else 0),
                weight=weight,
                bias=bias,
            )
        )
    groups = []
    for index, (key, (size, inner)) in enumerate(sizes.items()):
        made = tuple(spec.name for spec in specs if spec.made == key)
        used = tuple(spec.name for spec in specs if spec.source == key and spec.made != key)
        head = key.split("@")[-1] if "@" in key else made[0]
        groups.append(Group(index, head, made, used, starts[key], size, inner))
    return LayerTable(name, "0" * 64, (3, 8, 8), tuple(layers), tuple(groups), tuple(slices), (), {}, params, buffers)


def chain(widths: tuple[int, ...] = (8, 12, 16, 10), classes: int = 5) -> LayerTable:
    """Convolutions one after the other and a linear layer; every convolution heads an inner group."""
    sizes = {f"g{index}": (width, True) for index, width in enumerate(widths)}
    ends: list[int | str] = [3, *sizes]
    specs = [
        Spec(f"conv{index}", "conv", ends[index], f"g{index}", 3, 64 // (index + 1)) for index in range(len(widths))
    ]
    specs.append(Spec("fc", "linear", f"g{len(widths) - 1}", classes, 1, 1))
    return make_table("chain", sizes, specs)


def residual() -> LayerTable:
    """A stem and two blocks on one residual stream: one group of three layers, two inner ones."""
    sizes = {"stream": (8, False), "a": (8, True), "b": (12, True)}
    specs = [
        Spec("stem", "conv", 3, "stream", 3, 64),
        Spec("block1.conv1", "conv", "stream", "a", 3, 64),
        Spec("block1.conv2", "conv", "a", "stream", 3, 64),
        Spec("block2.conv1", "conv", "stream", "b", 3, 64),
        Spec("block2.conv2", "conv", "b", "stream", 3, 64),
        Spec("fc", "linear", "stream", 5, 1, 1),
    ]
    return make_table("residual", sizes, specs)


def depthwise() -> LayerTable:
    """Pointwise and depthwise convolutions in turn: a group of two layers where they follow each other."""
    sizes = {"stem": (6, True), "wide": (18, True), "out": (9, True)}
    specs = [
        Spec("stem", "conv", 3, "stem", 3, 64, 2),
        Spec("expand", "conv", "stem", "wide", 1, 64),
        Spec("depthwise", "depthwise", "wide", "wide", 3, 16, 2),
        Spec("project", "conv", "wide", "out", 1, 16),
        Spec("fc", "linear", "out", 4, 1, 1),
    ]
    return make_table("depthwise", sizes, specs)


def two_headed() -> LayerTable:
    """A layer whose output is split in two halves of different sizes: it heads two groups."""
    sizes = {"left@split": (6, True), "right@split": (9, True), "out": (8, True)}
    table = make_table(
        "two_headed",
        sizes,
        [
            Spec("split", "conv", 3, 15, 3, 64),
            Spec("left", "conv", "left@split", "out", 3, 64),
            Spec("right", "conv", "right@split", 7, 3, 64),
            Spec("last", "conv", "out", 8, 3, 64),
        ],
        norms=False,
    )
    units = np.arange(15, dtype=np.int64)
    slices = (*table.slices, TensorSlice("split.weight", 0, units))
    return LayerTable(
        table.net,
        table.fingerprint,
        table.input_shape,
        table.layers,
        table.groups,
        slices,
        (),
        {},
        table.param_shapes,
        table.buffer_shapes,
    )


TABLES = {"chain": chain, "residual": residual, "depthwise": depthwise, "two_headed": two_headed}


def make_profile(table: LayerTable, seed: int = 0) -> Profile:
    """Random error curves that fall with what is kept, from at most 1 to 0."""
    rng = np.random.default_rng(seed)
    orders = tuple(rng.permutation(group.size).astype(np.int64) for group in table.groups)
    errors = []
    for group in table.groups:
        drops = np.sort(rng.exponential(size=group.size) ** 3)[::-1]
        errors.append(np.concatenate([np.cumsum(drops[::-1])[::-1] / drops.sum(), [0.0]]) * rng.uniform(0.3, 1))
    widths = np.array(BITS[:-1], dtype=np.float64)

    def bits() -> np.ndarray:
        scale = rng.uniform(0.3, 1.2, (len(table.layers), 1))
        return np.concatenate([scale * 4.0 ** (1 - widths), np.zeros((len(table.layers), 1))], axis=1)

    return Profile("random", orders, tuple(errors), bits(), bits())


def constant(accuracy: float = 0.5):
    """An evaluation that always answers the same."""

    def evaluate(allocation: Allocation, seed: int, bar: float) -> Evaluation:
        return Evaluation(accuracy, {"evaluate": 0.0})

    return evaluate


def by_profile(table: LayerTable, profile: Profile):
    """An evaluation that falls with the profile's errors; deterministic, costs nothing."""

    def evaluate(allocation: Allocation, seed: int, bar: float) -> Evaluation:
        lost = sum(profile.cut_error(group, int(kept)) for group, kept in enumerate(allocation.kept))
        for layer, (weight, activation) in enumerate(
            zip(allocation.weight_bits, allocation.activation_bits, strict=True)
        ):
            lost += profile.bits_error(layer, int(weight), int(activation))
        return Evaluation(float(np.exp(-lost)), {"evaluate": 0.0})

    return evaluate
