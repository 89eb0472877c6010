"""What a trace says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compressors.layers import Ints


@dataclass
class Call:
    """One use of a weighted layer.

    Attributes:
        weight: Name of the weight.
        bias: Name of the bias, or None.
        kind: `conv`, `grouped`, `depthwise` or `linear`.
        columns: Node of each input channel, -1 for none; `(in_channels,)`.
        groups: Groups of the convolution.
        stride: Stride, `()` for linear maps.
        positions: Output positions of one input.
    """

    weight: str
    bias: str | None
    kind: str
    columns: Ints
    groups: int
    stride: tuple[int, ...]
    positions: int


@dataclass
class Trace:
    """What one forward pass says about channels.

    A *node* is one index along an axis of one tensor: an output channel of a layer, an element of a BatchNorm's weight.

    Attributes:
        nodes: For each tensor's name the axis and the nodes along it.
        calls: Uses of weighted layers in order.
        pairs: Nodes that go together, `(2, n)` each.
        sums: The pairs that a sum of two branches made.
        pins: Nodes that are left whole, with the operator.
        batchnorms: BatchNorm weight that follows a layer's weight directly.
        reads: How often each layer's output (by weight) was read.
        num_nodes: Number of nodes.
    """

    nodes: dict[str, tuple[int, Ints]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    pairs: list[Ints] = field(default_factory=list)
    sums: list[Ints] = field(default_factory=list)
    pins: list[tuple[Ints, str]] = field(default_factory=list)
    batchnorms: dict[str, str] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    num_nodes: int = 0


def components_of(full: Trace) -> Ints:
    """For each node the number of its connected component of ties; `(nodes,)`."""
    pairs = np.concatenate([np.zeros((2, 0), dtype=np.int64), *full.pairs], axis=1)
    graph = coo_array((np.ones(pairs.shape[1], dtype=bool), (pairs[0], pairs[1])), shape=(full.num_nodes,) * 2)
    labels: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
