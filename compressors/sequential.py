"""Sequential repair: every layer of a cut net is fitted to what the original net computed, on the inputs it now has.

The independent repair knows each layer's original inputs only. Behind a cut the inputs are others, and errors add up
from layer to layer. Here one batch of calibration images runs through the cut net: when it reaches a layer, all layers
before it have been fitted already, and the layer is fitted to the original outputs from its present inputs (He et al.
2017, Channel Pruning, "Whole Model Pruning"; Luo et al. 2017, ThiNet). Where the output goes, perhaps through its
BatchNorm, straight into a sum with another branch, the target is the sum of the original net (He et al., "Pruning
Multi-Branch Networks"), so that the layer makes up for the drift of the other branch as well.

What differs from the papers: layers that lose no input are fitted too, since their inputs have drifted; and the fit
starts from the independent one and is damped towards it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from compressors.layers import Bools, Layer, LayerTable
from compressors.linalg import damped_cholesky
from compressors.repair.base import LEAST_EXPLAINED
from compressors.repair.targets import Target, intercept, matrices, normalisation
from compressors.repair.watching import watch
from compressors.slicing import keep_mask
from compressors.statistics import Statistics, can_take_intercept, device_of, sampled_rows

_LARGEST_MAP_BYTES = 256 << 20
_TARGET_BYTES = 512 << 20

_UNCHANGED = 1e-10
"""Relative squared error below which a layer is as it was: nothing was cut before it."""


class Sequential:
    """Fits cut nets, layer after layer, to one original net.

    Layers that cannot be followed stay as the independent repair left them: those called never or several times or
    with shared weights, other than `nn.Conv2d` and `nn.Linear`, or too wide for full second moments.

    Args:
        net: The original net; run once on the chosen images, and untouched.
        table: Its layer table.
        statistics: Its statistics.
        calibration: Batches of inputs, `(N, C, H, W)` each.
        rows: About how many positions of all calibration images were sampled; as many of each image are here.
        images: How many images to take, evenly spread.
        seed: Seeds the positions.
    """

    def __init__(
        self,
        net: nn.Module,
        table: LayerTable,
        statistics: Statistics,
        calibration: Sequence[Tensor],
        *,
        rows: int,
        images: int,
        seed: int,
    ) -> None:
        self.table, self.seed = table, seed
        total = sum(len(batch) for batch in calibration)
        wanted = min(images, total)
        widest = max(4 * layer.positions * max(layer.out_channels, layer.in_channels) for layer in table.layers)
        count = max(1, min(wanted, _LARGEST_MAP_BYTES // max(widest, 1)))
        outputs = sum(4 * layer.out_channels for layer in table.layers)
        # Fewer images at once are made up for by more positions of each.
        sampled = min(-(-rows // max(total, 1)) * wanted, _TARGET_BYTES // outputs)
        self.per_image = max(1, -(-sampled // count))
        self.targets: dict[str, Target] = {}
        self.images = torch.zeros(0)
        if len({batch.shape[1:] for batch in calibration}) > 1:
            return  # images of several shapes make no one batch: the independent repair stands
        self.images = _spread(calibration, count).to(device_of(net))
        self._record(net, [layer for layer in table.layers if statistics.layers[layer.name].second is not None])

    def refit(self, smaller: nn.Module, kept: Bools, fit_variance: bool) -> None:
        """Fits a cut net, in place.

        Args:
            smaller: The net as it was cut and repaired.
            kept: Whether each unit is kept; `(units,)`.
            fit_variance: Whether BatchNorms behind fitted outputs take the variance of the fit.
        """
        modules = dict(smaller.named_modules())
        waiting: dict[str, tuple[Tensor, Tensor, int]] = {}

        def reached(layer: Layer, module: nn.Module, x: Tensor) -> None:
            if x.shape[0] % len(self.images):
                return
            rows = self._sample(layer, module, x)
            if rows.shape[1] != len(self.targets[layer.name].values):
                return
            if self.targets[layer.name].summed:
                waiting[layer.name] = (rows, x, _version(x))
            else:
                target = self.targets[layer.name].values[:, self._outputs(layer, kept)]
                self._fit(smaller, layer, rows, target, kept, fit_variance)

        def summed(name: str, own: Tensor, other: Tensor, rival: str | None) -> Tensor | None:
            if name not in waiting:
                return None
            rows, x, version = waiting.pop(name)
            layer, module, target = self.table.by_name[name], modules[name], self.targets[name]
            if _version(x) != version:  # overwritten meanwhile: what the layer would now compute cannot be told
                return None
            outputs = self._outputs(layer, kept)
            wanted = target.values[:, outputs] - self._sample_outputs(layer, module, other)
            wanted = (wanted - target.offset[outputs]) / target.gain[outputs]
            self._fit(smaller, layer, rows, wanted, kept, False)
            again: Tensor = module.forward(x)
            if name in self.table.batchnorms:
                again = modules[self.table.batchnorms[name]].forward(again)
            return again

        layers = [layer for layer in self.table.layers if layer.name in self.targets]
        if not layers:
            return
        watch(smaller, self.table, layers, [self.images], reached, summed)

    def _record(self, net: nn.Module, layers: list[Layer]) -> None:
        """Takes the targets of all layers that can be followed."""
        modules = dict(net.named_modules())
        owners = Counter(id(p) for module in net.modules() for p in module._parameters.values() if p is not None)
        plain: dict[str, list[Tensor]] = {}
        sums: dict[str, list[tuple[Tensor, Tensor]]] = {}
        rivals: dict[str, str | None] = {}
        batches = self.images.split(64)
        sizes = [len(batch) for batch in batches]
        layers = [
            layer
            for layer in layers
            if isinstance(modules.get(layer.name), (nn.Conv2d, nn.Linear))
            and all(owners[id(p)] == 1 for p in modules[layer.name].parameters())
        ]

        def reached(layer: Layer, module: nn.Module, x: Tensor) -> None:
            if x.shape[0] % sizes[len(plain.get(layer.name, ())) % len(sizes)]:
                return  # its first axis is not that of the images, so rows of two passes would not be the same
            rows, weight = self._sample(layer, module, x), matrices(module, layer.groups)
            values = _together(torch.bmm(rows, weight.transpose(1, 2))) + intercept(net, self.table, layer)
            plain.setdefault(layer.name, []).append(values)

        def summed(name: str, own: Tensor, other: Tensor, rival: str | None) -> None:
            layer = self.table.by_name[name]
            found = (self._sample_outputs(layer, modules[name], part) for part in (own, own + other))
            sums.setdefault(name, []).append((next(found), next(found)))
            rivals[name] = rival

        seen = watch(net, self.table, layers, batches, reached, summed)
        for layer in layers:
            if len(plain.get(layer.name, ())) != len(batches):
                continue  # called never, or several times
            values = torch.cat(plain[layer.name])
            gain, offset, variance = normalisation(net, self.table, layer)
            self.targets[layer.name] = Target(values, False, gain, offset, variance)
        # Of two layers whose outputs are added, the one with more weights makes up for the other.
        order = sorted(self.targets, key=lambda name: (self.table.by_name[name].macs, self.table.by_name[name].index))
        for name in reversed(order):
            rival = self.targets.get(rivals.get(name) or "")
            if (rival and rival.summed) or not seen[name] == len(batches) == len(sums.get(name, ())):
                continue
            target = self.targets[name]
            own, total = (torch.cat(part) for part in zip(*sums[name], strict=True))
            # The outputs must be those of the sampled rows: code between input and output could move positions.
            expected = target.values * target.gain + target.offset
            if own.shape == expected.shape and _relative(own - expected, own) < 1e-6:
                # A channel without gain cannot make up for anything, and is not blown up to.
                alive = target.gain.abs() > 1e-6 * target.gain.abs().max()
                gain = target.gain.where(alive, torch.inf)
                self.targets[name] = replace(target, values=total, summed=True, gain=gain)

    def _fit(self, net: nn.Module, layer: Layer, rows: Tensor, target: Tensor, kept: Bools, fit_variance: bool) -> None:
        """Adds to the weights of one layer what its outputs lack; `rows` `(groups, rows, columns)`."""
        module = net.get_submodule(layer.name)
        groups, count, columns = rows.shape
        weight = matrices(module, groups)
        target = target.reshape(count, groups, -1).transpose(0, 1)
        lacks = target - torch.bmm(rows, weight.transpose(1, 2)) - intercept(net, self.table, layer).view(groups, 1, -1)
        if _relative(lacks, target) < _UNCHANGED:
            return
        shifts = can_take_intercept(self.table, layer)
        mean, missing = rows.mean(1, keepdim=True) * shifts, lacks.mean(1, keepdim=True) * shifts
        rows = rows - mean
        second = torch.bmm(rows.transpose(1, 2), rows).double() / count
        right = torch.bmm(rows.transpose(1, 2), lacks - missing).double() / count
        # The weights so far count as much as one observation for each of them: few rows change little.
        damping = second.diagonal(dim1=1, dim2=2).mean(1) * columns / count + torch.finfo(torch.float64).tiny ** 0.5
        change = torch.cholesky_solve(right, damped_cholesky(second, damping)).transpose(1, 2)
        if not bool(torch.isfinite(change).all()):
            return
        weight = weight + change.float()
        shift = (missing[:, 0] - (change.float() * mean).sum(2)).reshape(-1)
        held = net.get_parameter(layer.weight)
        held.copy_(weight.reshape(held.shape))
        norm = self.table.batchnorms.get(layer.name)
        if layer.bias is not None:
            net.get_parameter(layer.bias).add_(shift.to(held))
        elif norm is not None:
            net.get_buffer(f"{norm}.running_mean").sub_(shift.to(held))
        if norm is not None:
            variance = self.targets[layer.name].variance[self._outputs(layer, kept)]
            if fit_variance:
                fitted = (torch.bmm(weight.double(), second) * weight).sum(2)
                share = fitted / target.double().var(1, correction=0).clamp_min(1e-30)
                variance = variance * share.clamp(LEAST_EXPLAINED, 1.0).reshape(-1).float()
            net.get_buffer(f"{norm}.running_var").copy_(variance)

    def _outputs(self, layer: Layer, kept: Bools) -> Tensor:
        """Output channels that the cut net has."""
        units = self.table.axis_units(layer.weight, 0)
        stays = np.ones(layer.out_channels, dtype=bool) if units is None else keep_mask(units, kept)
        return torch.from_numpy(np.flatnonzero(stays))

    def _sample(self, layer: Layer, module: nn.Module, x: Tensor) -> Tensor:
        """Sampled rows of a layer's input, the same positions at each call; `(groups, rows, columns)`."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + layer.index)
        layer = replace(layer, groups=getattr(module, "groups", 1))
        return sampled_rows(module, layer, x, self.per_image, generator).float().cpu()

    def _sample_outputs(self, layer: Layer, module: nn.Module, outputs: Tensor) -> Tensor:
        """The outputs at the positions of the rows; `(rows, out)`."""
        if isinstance(module, nn.Conv2d):
            # The inputs of a 1x1 convolution lie where its outputs do.
            module = nn.Conv2d(1, 1, 1, device="meta")
        return self._sample(layer, module, outputs)[0]


def _spread(batches: Sequence[Tensor], count: int) -> Tensor:
    """`count` inputs, evenly spread over all batches, as one batch."""
    total = sum(len(batch) for batch in batches)
    picks = np.arange(count) * total // count
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    of_batch = np.searchsorted(starts, picks, side="right") - 1
    found = torch.stack([batches[b][int(i - starts[b])] for b, i in zip(of_batch, picks, strict=True)])
    # Channels last: patches of images are then runs of memory.
    return found.contiguous(memory_format=torch.channels_last) if found.dim() == 4 else found


def _together(outputs: Tensor) -> Tensor:
    """`(groups, rows, out / groups)` to `(rows, out)`."""
    return outputs.transpose(0, 1).reshape(outputs.shape[1], -1)


def _relative(error: Tensor, outputs: Tensor) -> float:
    """Squared error relative to the squared outputs."""
    return float(error.square().mean() / outputs.square().mean().clamp_min(1e-30))


def _version(x: Tensor) -> int:
    """Grows whenever a tensor is overwritten; tensors of inference mode do not count that."""
    return 0 if x.is_inference() else x._version
