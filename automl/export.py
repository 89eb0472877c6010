"""What a user takes home: the policy, the net as a program, its weights; each read back and compared."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from automl.candidate import for_inference
from automl.files import storage_errors
from compressors.compressor import Compressor
from compressors.cost import FULL_BITS
from compressors.counting import recount
from compressors.errors import UserError
from compressors.policy import CompressionPolicy
from compressors.storage import load_packed, save_packed

TOLERANCE = 1e-4
"""Largest difference between the outputs of the net and of what was read back, relative to the largest output."""

STEP_TOLERANCE = 0.1
"""The same for nets with quantised activations: a value on the border of two steps of a grid falls to either side by
its last bit, and a layer of few bits passes a whole step on."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        policy: `policy.json`: what is kept of each layer.
        program: `model.pt2`: the net as an exported program, for any batch size.
        weights: `model.safetensors`: the net's tensors, quantised weights packed to their bits.
        macs: Multiply-accumulates of the exported net, counted on it.
        params: Its parameters.
        largest_difference: Between outputs of the net and of what was read back, relative to the largest output.
    """

    folder: Path
    policy: Path
    program: Path
    weights: Path
    macs: int
    params: int
    largest_difference: float


def export(
    net: nn.Module,
    original: nn.Module,
    policy: CompressionPolicy,
    compressor: Compressor,
    example: Tensor,
    folder: Path,
) -> Exported:
    """Writes `policy.json`, `model.pt2` and `model.safetensors`, and checks them.

    Args:
        net: The compressed net, BatchNorms not folded; untouched.
        original: The original net, needed to read the weights back.
        policy: The policy that `net` was made by.
        compressor: Knows the layer table.
        example: Inputs with a batch axis, `(N, C, H, W)`.
        folder: Where to; made where missing.

    Raises:
        UserError: The folder cannot be written, the net cannot be exported, its costs are not those of the policy, or
            what was read back computes something else.
    """
    net = copy.deepcopy(net).eval()
    macs, params = recount(net, example[:1].contiguous())
    claimed = policy.costs["params"]
    if params != claimed:
        raise UserError(
            f"The net has {params:,} parameters, but its policy says {claimed:,}: they do not belong together."
        )
    with storage_errors(f"write the export to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "policy.json", folder / "model.pt2", folder / "model.safetensors"
        policy.save(paths[0])
        save_packed(net, paths[2])
        ready = for_inference(copy.deepcopy(net), compressor)
        _save_program(ready, example, paths[1])
    with torch.no_grad():
        expected = _tensors(net(example))
        again = load_packed(original, compressor.table, CompressionPolicy.load(paths[0]), paths[2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own about its file format
            program = torch.export.load(paths[1]).module()
        difference = max(
            _difference(expected, _tensors(again(example))),
            _difference(expected, _tensors(program(example))),
        )
    stepped = any(layer.activation_bits < FULL_BITS for layer in policy.layers)
    tolerance = STEP_TOLERANCE if stepped else TOLERANCE
    if not difference <= tolerance:
        raise UserError(
            f"The exported net must compute what the compressed one does to {tolerance:g}, but differs by "
            f"{difference:.3g} in {folder}: do not use it."
        )
    return Exported(folder, *paths, macs, params, difference)


def _save_program(net: nn.Module, example: Tensor, path: Path) -> None:
    # Two inputs, since a batch of one would be taken for a constant.
    sample = example[:2] if len(example) > 1 else torch.cat([example, example])
    shapes = ({0: torch.export.Dim.AUTO},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about how it traces
        try:
            program = torch.export.export(net, (sample,), dynamic_shapes=shapes)
        except Exception as error:
            raise UserError(
                f"torch.export cannot trace this net ({type(error).__name__}: {str(error).splitlines()[0][:200]}). "
                "policy.json and model.safetensors are written and complete."
            ) from error
        try:
            torch.export.save(program, path)
        except RuntimeError as error:  # what torch makes of a disk that is full
            raise UserError(f"Cannot write {path}: {str(error).splitlines()[0][:200]}. Is the disk full?") from error


def _tensors(outputs: object) -> list[Tensor]:
    from torch.utils._pytree import tree_flatten

    return [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    if len(expected) != len(found) or any(a.shape != b.shape for a, b in zip(expected, found, strict=True)):
        return float("inf")
    pairs = zip(expected, found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-6)) for a, b in pairs)
