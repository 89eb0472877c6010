"""A compressor: one choice of channel order, repair and quantisation, composed.

The same object serves search, command line and export.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compressors.batchnorm import fold_batchnorms, reestimate_batchnorms
from compressors.cost import Allocation, CostModel
from compressors.layers import Bools, Layer, LayerTable
from compressors.policy import CompressionPolicy, make_policy, units_of
from compressors.profile import Profile
from compressors.profiling import blocks, build_profile
from compressors.quantize.bake import bake_weights
from compressors.quantize.modules import Width, quantize_net
from compressors.repair import REPAIRS
from compressors.repair.base import LEAST_EXPLAINED
from compressors.select import SELECTORS
from compressors.sequential import Sequential
from compressors.slicing import cut, keep_mask
from compressors.statistics import LayerStatistics, Statistics, can_take_intercept, gather_statistics

_CACHE_BYTES = 256 << 20


class CompressorConfig(BaseModel):
    """Settings of a compressor.

    Attributes:
        order: Which channels go first: a name in `SELECTORS`.
        repair: How what is left makes up for it: a name in `REPAIRS`.
        batchnorm: `keep` the running statistics, `reestimate` them on calibration images, or `auto`: after a
            least-squares or sequential repair the variance of the fitted outputs, which the fit knows; otherwise
            re-estimate.
        rows: About how many positions of the calibration images are sampled for each layer.
        sequential_images: How many calibration images the sequential repair runs through each candidate; fewer where
            feature maps are large.
        memory_mib: Bound on all second moments together, in MiB.
        seed: Seeds the sampled positions and random orders.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: str = "surgeon"
    repair: str = "least_squares"
    batchnorm: str = Field(default="auto", pattern="^(auto|keep|reestimate)$")
    rows: int = Field(default=20_000, ge=100)
    sequential_images: int = Field(default=256, ge=1)
    memory_mib: int = Field(default=2048, ge=0)
    seed: int = Field(default=0, ge=0)


class Compressor:
    """Makes smaller nets from one original net.

    Args:
        config: The settings.

    Raises:
        UserError: Unknown order or repair.
    """

    def __init__(self, config: CompressorConfig | None = None) -> None:
        self.config = config or CompressorConfig()
        self._repair = REPAIRS[self.config.repair]
        SELECTORS.entry(self.config.order)
        self.table: LayerTable
        self.statistics: Statistics
        self.profile: Profile
        self._calibration: Sequence[Tensor] = ()
        self._solved: OrderedDict[tuple[str, bytes], tuple[Tensor, Tensor, Tensor]] = OrderedDict()
        self._solved_bytes = 0
        self._sequential: Sequential | None = None

    def measure(
        self,
        net: nn.Module,
        table: LayerTable,
        calibration: Sequence[Tensor],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Gathers the statistics that `apply` needs, without ranking channels.

        Args:
            net: The original net.
            table: Its layer table.
            calibration: Batches of inputs, `(N, C, H, W)` each.
            progress: Called with the stage, steps done and steps in all.
        """
        images = sum(len(batch) for batch in calibration)
        self.use(
            table,
            gather_statistics(
                net, table, calibration, images=images, rows=self.config.rows,
                memory_bytes=self.config.memory_mib << 20, seed=self.config.seed,
                progress=None if progress is None else lambda done: progress("statistics", done, images),
            ),
            calibration,
        )  # fmt: skip

    def use(self, table: LayerTable, statistics: Statistics, calibration: Sequence[Tensor]) -> None:
        """Takes statistics that were gathered before."""
        self.table, self.statistics, self._calibration = table, statistics, calibration
        self.cost = CostModel(table)
        self._solved.clear()
        self._solved_bytes = 0
        self._sequential = None

    def with_repair(self, repair: str, batchnorm: str | None = None) -> Compressor:
        """A compressor with the same statistics and profile, but another repair.

        Args:
            repair: A name in `REPAIRS`.
            batchnorm: As in `CompressorConfig`; None: the same.

        Raises:
            UserError: Unknown repair.
        """
        chosen = {"repair": repair, "batchnorm": batchnorm or self.config.batchnorm}
        other = Compressor(self.config.model_copy(update=chosen))
        other.use(self.table, self.statistics, self._calibration)
        other.profile = self.profile
        return other

    def prepare(
        self,
        net: nn.Module,
        table: LayerTable,
        calibration: Sequence[Tensor],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Profile:
        """Measures the net once: statistics, then the profile; arguments as in `measure`."""
        self.measure(net, table, calibration, progress)
        self.profile = build_profile(
            net, table, self.statistics, self.config.order, self.config.seed,
            None if progress is None else lambda done, total: progress("profile", done, total),
        )  # fmt: skip
        return self.profile

    def policy(self, allocation: Allocation) -> CompressionPolicy:
        """The policy that keeps each group's best units, by the profile's order."""
        kept = np.ones(self.table.num_units, dtype=bool)
        for group, order, count in zip(self.table.groups, self.profile.orders, allocation.kept, strict=True):
            kept[group.start + order[: group.size - int(count)]] = False
        return make_policy(self.table, kept, allocation, self.cost.of(allocation), self.cost.original)

    def apply(self, net: nn.Module, policy: CompressionPolicy) -> nn.Module:
        """The compressed net: channels removed, what is left repaired, layers quantised.

        Args:
            net: The original net; untouched.
            policy: What to keep.

        Raises:
            UserError: The policy is for another net or cuts channels apart that go together.
        """
        kept = units_of(policy, self.table)
        replace: dict[str, Tensor] = {}
        for layer in self.table.layers:
            if self._loses_inputs(layer, kept):
                self._repaired(net, layer, kept, replace)
        smaller = cut(net, self.table, kept, replace)
        cut_any = not kept.all()
        if cut_any and self.config.repair == "sequential":
            self._refitter(net).refit(smaller, kept, self._fits_variance)
        again = self.config.batchnorm == "reestimate" or (self.config.batchnorm == "auto" and not self._fits_variance)
        if cut_any and again:
            reestimate_batchnorms(smaller, self._calibration)
        widths = {entry.name: Width(entry.weight_bits, entry.activation_bits) for entry in policy.layers}
        samples = {name: seen.samples for name, seen in self.statistics.layers.items()}
        quantize_net(smaller, widths, samples)
        return smaller

    def fold(self, net: nn.Module) -> nn.Module:
        """Folds BatchNorms of a compressed net and bakes its quantised weights, in place, for inference."""
        return bake_weights(fold_batchnorms(net, self.table))

    def _loses_inputs(self, layer: Layer, kept: Bools) -> bool:
        units = self.table.axis_units(layer.weight, 1)
        return units is not None and not keep_mask(units, kept).all()

    def _repaired(self, net: nn.Module, layer: Layer, kept: Bools, replace: dict[str, Tensor]) -> None:
        """Adds to `replace` the layer's repaired weight and whatever takes its intercept."""
        weight, intercept, explained = self._solve(net, layer, kept)
        original = net.get_parameter(layer.weight)
        units = self.table.axis_units(layer.weight, 0)
        rows = torch.from_numpy(np.flatnonzero(keep_mask(units, kept))) if units is not None else slice(None)
        shape = (layer.out_channels, -1, *original.shape[2:])
        replace[layer.weight] = weight.reshape(shape)[rows].to(original)
        if not can_take_intercept(self.table, layer):
            return
        shift = intercept.reshape(-1)[rows]
        norm = self.table.batchnorms.get(layer.name)
        if layer.bias is not None:
            bias = net.get_parameter(layer.bias).detach()
            replace[layer.bias] = bias[rows] + shift.to(bias)
        elif norm is not None:
            # The BatchNorm subtracts its running mean: a smaller mean is a larger output.
            mean = net.get_buffer(f"{norm}.running_mean")
            replace[f"{norm}.running_mean"] = mean[rows] - shift.to(mean)
        if norm is not None and self._fits_variance:
            variance = net.get_buffer(f"{norm}.running_var")
            replace[f"{norm}.running_var"] = variance[rows] * explained.reshape(-1)[rows].to(variance)

    @property
    def _fits_variance(self) -> bool:
        return self.config.batchnorm == "auto" and self.config.repair in ("least_squares", "sequential")

    def _refitter(self, net: nn.Module) -> Sequential:
        """Holds what the original net computes; taken at the first candidate, as it does not go into the cache."""
        if self._sequential is None:
            config = self.config
            self._sequential = Sequential(
                net, self.table, self.statistics, self._calibration,
                rows=config.rows, images=config.sequential_images, seed=config.seed,
            )  # fmt: skip
        return self._sequential

    def _solve(self, net: nn.Module, layer: Layer, kept: Bools) -> tuple[Tensor, Tensor, Tensor]:
        """Repaired weights, what to add to the outputs, and the share of the outputs' variance that is left."""
        units = self.table.axis_units(layer.weight, 1)
        assert units is not None
        stays = keep_mask(units, kept)
        key = (layer.name, np.packbits(stays).tobytes())
        if key in self._solved:
            self._solved.move_to_end(key)
            return self._solved[key]
        weight = blocks(net.get_parameter(layer.weight), layer.groups)
        area = weight.shape[2] // len(stays)
        columns = torch.from_numpy(np.flatnonzero(np.repeat(stays, area)))
        seen = self.statistics.layers[layer.name]
        repaired, intercept = self._repair(weight, seen, columns)
        solved = (repaired.float(), intercept.float(), _explained(weight, repaired, columns, seen).float())
        self._solved[key] = solved
        self._solved_bytes += sum(4 * part.numel() for part in solved)
        while self._solved_bytes > _CACHE_BYTES and len(self._solved) > 1:
            _, old = self._solved.popitem(last=False)
            self._solved_bytes -= sum(4 * part.numel() for part in old)
        return solved


def _explained(weight: Tensor, repaired: Tensor, columns: Tensor, seen: LayerStatistics) -> Tensor:
    """Variance of the repaired outputs, relative to that of the original ones; `(blocks, out)`, at most 1.

    A fit has less variance than its target. A BatchNorm that divides by the old one makes every layer's output a little
    too small, and the layers after it multiply that.
    """
    if seen.second is None:
        return torch.ones(weight.shape[:2])
    whole = (torch.bmm(weight, seen.second) * weight).sum(2)
    left = (torch.bmm(repaired, seen.second[:, columns][:, :, columns]) * repaired).sum(2)
    return (left / whole.clamp_min(1e-30)).clamp(LEAST_EXPLAINED, 1.0)
