"""Safetensors in which quantised weights take just their bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from compressors.errors import UserError
from compressors.layers import LayerTable
from compressors.policy import CompressionPolicy, units_of
from compressors.quantize.modules import FULL_BITS, Width, _Quantized, quantize_net
from compressors.quantize.weights import levels
from compressors.slicing import cut

_PACKED = ".packed"


def pack(values: Tensor, bits: int) -> Tensor:
    """Integers of a symmetric grid as a stream of `bits` each; `(bytes,)` uint8."""
    low, _ = levels(bits)
    unsigned = (values.reshape(-1).to(torch.int16) - low).numpy().astype(np.uint8)
    stream = np.unpackbits(unsigned[:, None], axis=1)[:, 8 - bits :]
    return torch.from_numpy(np.packbits(stream.reshape(-1)))


def unpack(stream: Tensor, count: int, bits: int) -> Tensor:
    """The inverse of `pack`; `(count,)` float32."""
    low, _ = levels(bits)
    digits = np.unpackbits(stream.numpy())[: count * bits].reshape(count, bits)
    unsigned = np.packbits(np.pad(digits, ((0, 0), (8 - bits, 0))), axis=1)[:, 0]
    return torch.from_numpy(unsigned.astype(np.float32)) + low


def save_packed(net: nn.Module, path: Path) -> None:
    """Writes a compressed net's tensors; quantised weights are packed to their bits.

    Args:
        net: The net, BatchNorms not folded.
        path: Where to, `.safetensors`.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    for name, module in net.named_modules():
        if isinstance(module, _Quantized) and module.weight_bits < FULL_BITS:
            low, high = levels(module.weight_bits)
            scales = module.weight_scale.detach().cpu().reshape(-1, *[1] * (module.weight.dim() - 1))
            weight = state.pop(f"{name}.weight")
            grid = (weight / scales).round().clamp(low, high)
            state[f"{name}.weight{_PACKED}"] = pack(grid, module.weight_bits)
    path.write_bytes(save(state, metadata={"format": "pt"}))


def load_packed(original: nn.Module, table: LayerTable, policy: CompressionPolicy, path: Path) -> nn.Module:
    """The compressed net that `save_packed` wrote.

    Args:
        original: The original net, which gives the structure; untouched.
        table: Its layer table.
        policy: The policy that the compressed net was made by.
        path: The file.

    Raises:
        UserError: The policy is for another net, or the file is unreadable or does not fit.
    """
    net = cut(original, table, units_of(policy, table))
    widths = {layer.name: Width(layer.weight_bits, layer.activation_bits) for layer in policy.layers}
    quantize_net(net, widths, {name: torch.zeros(0) for name in widths})
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot read the compressed net {path}: {error}.") from error
    for name, module in net.named_modules():
        key = f"{name}.weight{_PACKED}"
        if isinstance(module, _Quantized) and module.weight_bits < FULL_BITS and key in state:
            scales = state[f"{name}.weight_scale"].reshape(-1, *[1] * (module.weight.dim() - 1))
            grid = unpack(state.pop(key), module.weight.numel(), module.weight_bits).reshape(module.weight.shape)
            state[f"{name}.weight"] = grid * scales
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} does not hold the net that the policy describes: {reason}") from error
    return net.eval()
