"""The layer table: every weighted layer of a net, and which of its channels can only be cut together.

Everything here is plain data (strings, numbers, numpy arrays), so that a table can be pickled, cached and
sent to a worker. `compressors/grouping.py` makes it from a net; `compressors/slicing.py` cuts by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """One weighted layer: a convolution or a linear map.

    Attributes:
        name: Path of the module inside the net, e.g. `layer1.0.conv2`.
        kind: `conv`, `grouped`, `depthwise` or `linear`.
        index: Position in the order of execution, from 0.
        in_channels: Input channels (features for `linear`).
        out_channels: Output channels (features for `linear`).
        kernel_size: Kernel, `()` for `linear`.
        stride: Stride, `()` for `linear`.
        groups: Groups of the convolution, 1 otherwise.
        positions: Output positions of one input, summed over all calls (height x width, or tokens).
        macs: Multiply-accumulates of one input; biases are not counted.
        params: Weights plus biases.
        weight: Name of the weight, e.g. `layer1.0.conv2.weight`.
        bias: Name of the bias, or None.
    """

    name: str
    kind: str
    index: int
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    positions: int
    macs: int
    params: int
    weight: str
    bias: str | None


@dataclass(frozen=True)
class TensorSlice:
    """How one axis of one parameter or buffer follows the units.

    Attributes:
        name: Name of the parameter or buffer.
        axis: The axis that is cut.
        units: For each index along the axis the unit it belongs to, -1 where it always stays; `(size,)`.
    """

    name: str
    axis: int
    units: Ints


@dataclass(frozen=True)
class Group:
    """Units that can be cut one by one, each unit being channels of several layers that go together.

    All units of a group touch the same tensors equally often, so costs depend on how many are kept, not on which.

    Attributes:
        index: Position in `LayerTable.groups`.
        name: Name of the head, the first layer that produces its channels.
        layers: Names of the layers whose output channels are cut.
        consumers: Names of the layers whose input channels are cut and whose output channels are not tied to them.
        start: First unit; the group's units are `start .. start + size - 1`.
        size: Number of units.
        inner: Whether no sum of two branches ties the channels (a block's inside, not the residual stream).
    """

    index: int
    name: str
    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    start: int
    size: int
    inner: bool

    @property
    def units(self) -> slice:
        """The group's units, as a slice of any array over units."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Pin:
    """Output channels of a layer that are left whole.

    Attributes:
        layer: Name of the layer.
        channels: How many of its output channels are left whole.
        operator: The operator that pins them, e.g. `native_layer_norm` or `output of the net`.
    """

    layer: str
    channels: int
    operator: str


@dataclass(frozen=True)
class LayerTable:
    """All layers, groups and pins of one net.

    Attributes:
        net: Name of the net, for messages and files.
        fingerprint: SHA-256 over the names, shapes and values of the net's tensors, in hex.
        input_shape: Shape of one input without the batch axis, e.g. `(3, 32, 32)`.
        layers: In order of execution.
        groups: In order of their heads.
        slices: Every axis of every tensor that is cut with some group.
        pins: What is left whole, and why.
        batchnorms: For a convolution or linear layer the BatchNorm that alone follows it, by module name.
        param_shapes: Shapes of all parameters, by name.
        buffer_shapes: Shapes of all floating-point buffers, by name.
    """

    net: str
    fingerprint: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    slices: tuple[TensorSlice, ...]
    pins: tuple[Pin, ...]
    batchnorms: dict[str, str] = field(default_factory=dict)
    param_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    buffer_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by module name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def slices_of(self) -> dict[str, tuple[TensorSlice, ...]]:
        """Slices by the tensor's name."""
        found: dict[str, list[TensorSlice]] = {}
        for piece in self.slices:
            found.setdefault(piece.name, []).append(piece)
        return {name: tuple(pieces) for name, pieces in found.items()}

    @cached_property
    def unit_groups(self) -> Ints:
        """For each unit the index of its group; `(units,)`."""
        sizes = [group.size for group in self.groups]
        return np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)

    @property
    def num_units(self) -> int:
        """Number of units over all groups."""
        return sum(group.size for group in self.groups)

    @cached_property
    def group_sizes(self) -> Ints:
        """Units of each group; `(groups,)`."""
        return np.array([group.size for group in self.groups], dtype=np.int64)

    def axis_units(self, tensor: str, axis: int) -> Ints | None:
        """The units along one axis of a tensor, or None where that axis is never cut."""
        for piece in self.slices_of.get(tensor, ()):
            if piece.axis == axis:
                return piece.units
        return None

    def heads(self, layer: str) -> tuple[Group, ...]:
        """The groups whose head is `layer`."""
        return tuple(group for group in self.groups if group.name == layer)
