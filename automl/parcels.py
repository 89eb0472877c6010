"""Objects packed such that processes of one machine read their tensors and arrays from the same memory.

Pickle's protocol 5 (PEP 574) hands large arrays out beside the stream. Tensors are sent as arrays too, with their
strides, so that a memory format such as channels last survives the journey.
"""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Parcel:
    """A packed object.

    Attributes:
        stream: Everything but the arrays.
        buffers: The arrays' memory; whoever unpacks gets objects that lie in it and must not be written to.
    """

    stream: bytes
    buffers: tuple[Bytes, ...]


def pack(value: Any) -> Parcel:
    """Packs an object, functions and classes of `__main__` included; nothing large is copied.

    Raises:
        TypeError: Something in it, e.g. an open file, cannot be sent to another process.
    """
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    return Parcel(stream.getvalue(), tuple(np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers))


def unpack(parcel: Parcel) -> Any:
    """The object; its large arrays and tensors share the parcel's memory."""
    return pickle.loads(parcel.stream, buffers=parcel.buffers)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and _plain(obj):
            return _tensor, (_memory(obj), obj.dtype, tuple(obj.shape), obj.stride(), str(obj.device))
        if type(obj) is np.memmap:  # would be copied into the stream
            return np.asarray, (np.ascontiguousarray(np.asarray(obj)),)
        return super().reducer_override(obj)


def _plain(tensor: Tensor) -> bool:
    """Whether a tensor is numbers in memory, each at a place of its own and without gaps."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.requires_grad or tensor.is_complex():
        return False
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > 0 and span == tensor.numel() and tensor.device.type != "meta"


def _memory(tensor: Tensor) -> Bytes:
    # In the order in which the numbers lie, since numpy has neither bfloat16 nor a name for channels last.
    flat = tensor.detach().cpu().as_strided((tensor.numel(),), (1,))
    memory: Bytes = flat.view(torch.uint8).numpy()
    return memory


def _tensor(memory: Bytes, dtype: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...], device: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only memory: nobody writes, see `Parcel`
        flat = torch.from_numpy(memory)
    found = flat.view(dtype).as_strided(shape, strides)
    return found if device == "cpu" or not _present(device) else found.to(device)


def _present(device: str) -> bool:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True
