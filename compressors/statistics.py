"""Second moments of every layer's inputs, measured once on the original net.

They are all that a least-squares repair, its error and a quantisation error need: no candidate is ever run for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressors.layers import Layer, LayerTable


@dataclass(frozen=True)
class LayerStatistics:
    """What one layer's inputs look like.

    The columns of a block are those of `weight.reshape(groups, out, -1)`: channel first, then kernel.

    Attributes:
        second: Second moments X'X / rows, `(groups, columns, columns)` float64, or None where only the diagonal was
            kept. Centred if the layer can take an intercept.
        diagonal: Its diagonal, `(groups, columns)` float64.
        mean: Mean of each column, `(groups, columns)` float64; zero where the layer cannot take an intercept.
        scale: Weight of each output channel in an error: the gain of the BatchNorm that follows, else 1; `(out,)`.
        samples: A sample of the layer's input values, `(samples,)` float32, for the range of activations.
    """

    second: Tensor | None
    diagonal: Tensor
    mean: Tensor
    scale: Tensor
    samples: Tensor


@dataclass(frozen=True)
class Statistics:
    """Statistics of all layers, by layer name.

    Attributes:
        layers: One entry for each layer of the table.
        notes: Layers for which only the diagonal was kept, and why.
    """

    layers: dict[str, LayerStatistics]
    notes: tuple[str, ...]


class _Accumulator:
    """Sums over sampled rows of one layer's input."""

    def __init__(self, layer: Layer, columns: int, full: bool) -> None:
        self.layer, self.full = layer, full
        self.rows = 0
        # Sums are taken about the first rows' mean: products of large means would swallow small deviations.
        self.shift: Tensor | None = None
        self.sum = torch.zeros(layer.groups, columns, dtype=torch.float64)
        self.diagonal = torch.zeros(layer.groups, columns, dtype=torch.float64)
        self.second = torch.zeros(layer.groups, columns, columns, dtype=torch.float64) if full else None
        self.samples: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Adds rows `(groups, rows, columns)`."""
        rows = rows.to("cpu", torch.float32)
        if self.shift is None:
            self.shift = rows.mean(1)
        rows = rows - self.shift[:, None]
        self.rows += rows.shape[1]
        self.sum += rows.sum(1, dtype=torch.float64)
        if self.second is not None:
            # One block of rows is short enough for float32 products; blocks are summed in float64.
            self.second += torch.bmm(rows.transpose(1, 2), rows).double()
        else:
            self.diagonal += rows.square().sum(1, dtype=torch.float64)


def device_of(net: nn.Module) -> torch.device:
    """Where a net's parameters are; the CPU for a net without any."""
    return next((parameter.device for parameter in net.parameters()), torch.device("cpu"))


def gather_statistics(
    net: nn.Module,
    table: LayerTable,
    batches: Iterable[Tensor],
    *,
    images: int,
    rows: int = 20_000,
    memory_bytes: int = 2 << 30,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Runs the calibration images through the net once and gathers every layer's second moments.

    Args:
        net: The original net.
        table: Its layer table.
        batches: Calibration inputs, `(N, C, H, W)` each.
        images: How many there are in all.
        rows: About how many rows (positions of images) are sampled for each layer.
        memory_bytes: Bound on all second moments together; the layers with the widest inputs keep only a diagonal.
        seed: Seeds the sampled positions.
        progress: Called with the number of images done after each batch.

    Returns:
        The statistics, on the CPU.
    """
    modules = dict(net.named_modules())
    kept_full, notes = _plan(table, memory_bytes)
    sums = {layer.name: _Accumulator(layer, _columns(layer), layer.name in kept_full) for layer in table.layers}
    generator = torch.Generator().manual_seed(seed)
    handles = []
    for layer in table.layers:
        module = modules.get(layer.name)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            handles.append(module.register_forward_pre_hook(_hook(sums[layer.name], rows, images, generator)))
    training = net.training
    net.eval()
    done = 0
    try:
        with torch.no_grad():
            for batch in batches:
                net(batch.to(device_of(net)))
                done += len(batch)
                if progress is not None:
                    progress(done)
    finally:
        for handle in handles:
            handle.remove()
        net.train(training)
    found = {}
    for layer in table.layers:
        if sums[layer.name].rows == 0:
            notes.append(f"{layer.name}: its inputs could not be seen, so its cuts are ranked by weights alone")
        found[layer.name] = _finish(net, table, layer, sums[layer.name])
    return Statistics(found, tuple(notes))


def can_take_intercept(table: LayerTable, layer: Layer) -> bool:
    """Whether a constant can be added to the layer's outputs: by its bias, or by the BatchNorm that follows."""
    return layer.bias is not None or layer.name in table.batchnorms


def _columns(layer: Layer) -> int:
    return layer.in_channels // layer.groups * int(np.prod(layer.kernel_size, dtype=np.int64))


def _plan(table: LayerTable, memory_bytes: int) -> tuple[set[str], list[str]]:
    """Which layers keep full second moments: consumers of groups first, narrow before wide."""
    consumers = {name for group in table.groups for name in group.consumers}
    order = sorted(table.layers, key=lambda layer: (layer.name not in consumers, layer.groups * _columns(layer) ** 2))
    used, full, notes = 0, set(), []
    for layer in order:
        need = 8 * layer.groups * _columns(layer) ** 2
        if used + need <= memory_bytes:
            used += need
            full.add(layer.name)
        elif layer.name in consumers:
            notes.append(
                f"{layer.name}: second moments of {_columns(layer)} columns need {need / 2**20:.0f} MiB, which exceeds "
                f"the bound of {memory_bytes / 2**20:.0f} MiB for all layers; repaired by its mean output only"
            )
    return full, notes


def _hook(sums: _Accumulator, rows: int, images: int, generator: torch.Generator) -> Callable[..., None]:
    def record(module: nn.Module, inputs: Sequence[Tensor]) -> None:
        x = inputs[0]
        per_image = max(1, -(-rows // max(images, 1)))
        sums.add(sampled_rows(module, sums.layer, x, per_image, generator))
        count = max(1, 16_384 * len(x) // max(images, 1))
        flat = x.reshape(-1)
        picks = torch.randint(flat.numel(), (min(count, flat.numel()),), generator=generator)
        sums.samples.append(flat[picks.to(flat.device)].float().cpu())

    return record


def sampled_rows(module: nn.Module, layer: Layer, x: Tensor, per_image: int, generator: torch.Generator) -> Tensor:
    """Sampled rows of the layer's unfolded input; `(groups, rows, columns)`."""
    if isinstance(module, nn.Linear):
        flat = x.reshape(len(x), -1, x.shape[-1])  # (N, tokens, features)
        picks = torch.randperm(flat.shape[1], generator=generator)[:per_image]
        return flat[:, picks.to(x.device)].reshape(1, -1, x.shape[-1])
    if not isinstance(module, nn.Conv2d):
        return _rows_any(module, layer, x)
    if module.padding_mode != "zeros" and any(module._reversed_padding_repeated_twice):
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        before_x = after_x = before_y = after_y = 0
    else:
        before_x, after_x, before_y, after_y = module._reversed_padding_repeated_twice
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    n, channels, rows, columns = x.shape
    height = (rows + before_y + after_y - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    width = (columns + before_x + after_x - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    picks = torch.randperm(height * width, generator=generator)[:per_image].to(x.device)
    top, left = picks // width * stride[0] - before_y, picks % width * stride[1] - before_x
    down = top[:, None] + torch.arange(kernel[0], device=x.device) * dilation[0]  # (P, kh)
    along = left[:, None] + torch.arange(kernel[1], device=x.device) * dilation[1]  # (P, kw)
    inside = ((down >= 0) & (down < rows))[:, :, None] & ((along >= 0) & (along < columns))[:, None, :]
    places = down.clamp(0, rows - 1)[:, :, None] * columns + along.clamp(0, columns - 1)[:, None, :]  # (P, kh, kw)
    # Whole pixels are copied, all their channels at once: several times faster than indexing a padded map.
    patches = x.permute(0, 2, 3, 1).reshape(n, rows * columns, channels).index_select(1, places.reshape(-1))
    patches = patches.masked_fill(~inside.reshape(-1, 1), 0)
    patches = patches.reshape(n, len(picks), -1, layer.groups, channels // layer.groups)
    return patches.permute(3, 0, 1, 4, 2).reshape(layer.groups, n * len(picks), -1)


def _rows_any(module: nn.Module, layer: Layer, x: Tensor) -> Tensor:
    """One-dimensional convolutions, as two-dimensional ones of height 1; other ranks by their centre column."""
    if isinstance(module, nn.Conv1d):
        unfolded = F.unfold(
            x.unsqueeze(2), (1, module.kernel_size[0]), (1, module.dilation[0]),
            (0, int(module.padding[0])) if not isinstance(module.padding, str) else (0, 0), (1, module.stride[0]),
        )  # fmt: skip
        n, columns, positions = unfolded.shape
        return (
            unfolded.reshape(n, layer.groups, columns // layer.groups, positions)
            .permute(1, 0, 3, 2)
            .reshape(layer.groups, n * positions, -1)
        )
    pooled = x.flatten(2).mean(2)  # (N, C)
    area = int(np.prod(layer.kernel_size, dtype=np.int64))
    rows = pooled.repeat_interleave(area, dim=1)
    return rows.reshape(len(x), layer.groups, -1).transpose(0, 1)


def _finish(net: nn.Module, table: LayerTable, layer: Layer, sums: _Accumulator) -> LayerStatistics:
    columns = _columns(layer)
    scale = torch.ones(layer.out_channels, dtype=torch.float64)
    if layer.name in table.batchnorms:
        norm = net.get_submodule(table.batchnorms[layer.name])
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None:
            gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
            scale = (gain.abs() / (norm.running_var + norm.eps).sqrt()).double().cpu()
    if sums.rows == 0:
        ones = torch.ones(layer.groups, columns, dtype=torch.float64)
        return LayerStatistics(None, ones, torch.zeros_like(ones), scale, torch.zeros(0))
    assert sums.shift is not None
    offset = sums.sum / sums.rows
    mean = offset + sums.shift.double()
    # Centred moments; where the layer cannot take an intercept, those about zero.
    about = torch.zeros_like(mean) if can_take_intercept(table, layer) else mean
    second = None
    if sums.second is not None:
        second = sums.second / sums.rows
        second += about[:, :, None] * about[:, None, :] - offset[:, :, None] * offset[:, None, :]
        diagonal = second.diagonal(dim1=1, dim2=2).clamp_min(0).clone()
    else:
        diagonal = (sums.diagonal / sums.rows - offset.square() + about.square()).clamp_min(0)
    mean = mean - about
    return LayerStatistics(second, diagonal, mean, scale, torch.cat(sums.samples))
