"""Reading and writing weights, without ever running code that a file carries."""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from compressors.errors import UserError

ENDINGS = (".pt", ".pth", ".th", ".safetensors")
"""Files that can be read."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")
_LISTED = 5


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Reads tensors by name from a weights file.

    A dict that wraps the weights (`state_dict`, `model`, ...) is unwrapped, and the prefixes that parallel and compiled
    nets add to every name (`module.`, `_orig_mod.`) are taken off.

    Args:
        path: A `.pt`, `.pth`, `.th` or `.safetensors` file.

    Raises:
        UserError: The file is missing, empty, truncated, no checkpoint, or holds anything that could run code.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"Weights must be a file that ends in {', '.join(ENDINGS)}, but got {str(path)!r}.")
    if not path.is_file():
        raise UserError(
            f"Weights file {str(path)!r} must exist, but {'it is a folder' if path.is_dir() else 'does not'}."
        )
    try:
        empty = path.stat().st_size == 0
        found = _EMPTY if empty else _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    except OSError as error:
        raise UserError(f"Weights file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    if found is _EMPTY:
        raise UserError(f"Weights file {str(path)!r} must hold weights, but it is empty.")
    return _clean(_unwrap(found, path))


def load_weights(net: nn.Module, path: Path | str, *, ignored: tuple[str, ...] = ()) -> None:
    """Loads a weights file into `net`, all of it or nothing.

    Args:
        net: Gets the weights, in place.
        path: As for `read_state_dict`.
        ignored: Prefixes of names that the file may hold although the net has no such tensors.

    Raises:
        UserError: Besides what `read_state_dict` raises: names or shapes do not fit (the first few are listed), or a
            weight is NaN or infinite.
    """
    path = Path(path)
    found = {name: value for name, value in read_state_dict(path).items() if not name.startswith(ignored or "\0")}
    wanted = net.state_dict()
    # Files from before BatchNorm counted its batches lack these; nothing that we do reads them.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in found and name not in optional]
    unexpected = [name for name in found if name not in wanted]
    if missing or unexpected:
        parts = [f"{word} {_some(names)}" for word, names in (("lacks", missing), ("also has", unexpected)) if names]
        raise UserError(
            f"Weights in {str(path)!r} must fit the net, but the file {' and '.join(parts)}.{_made_for(path)}"
        )
    shapes = [name for name, value in found.items() if value.shape != wanted[name].shape]
    if shapes:
        listed = _some([f"{n} {tuple(found[n].shape)} (net: {tuple(wanted[n].shape)})" for n in shapes])
        raise UserError(
            f"Weights in {str(path)!r} must fit the net, but shapes differ: {listed}."
            f"{_class_hint(net, shapes, found) or _made_for(path)}"
        )
    broken = [n for n, value in found.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        raise UserError(f"Weights in {str(path)!r} must be finite, but there is NaN or infinity in {_some(broken)}.")
    net.load_state_dict({**{name: wanted[name] for name in optional}, **found})


def save_weights(net: nn.Module, path: Path | str, *, name: str, num_classes: int) -> None:
    """Writes a net's weights as safetensors, whole or not at all; equal weights give equal bytes.

    Args:
        net: Whose weights.
        path: A `.safetensors` file; its folder is made if need be.
        name: Of the net, noted in the file.
        num_classes: Its outputs, noted in the file.

    Raises:
        UserError: The name ends otherwise, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"Weights are written as .safetensors, but got {str(path)!r}.")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in net.state_dict().items()}
    # One entry, because safetensors writes several in no fixed order.
    metadata = {"secateur": json.dumps({"net": name, "num_classes": num_classes}, sort_keys=True)}
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(prefix=".new-", suffix=".safetensors", dir=path.parent)
        os.close(handle)
        scratch = Path(made)
        save_file(tensors, scratch, metadata=metadata)
        scratch.chmod(0o644)
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        raise UserError(f"Weights cannot be written to {str(path)!r}: {str(error).splitlines()[0]}") from error


_EMPTY: dict[str, Any] = {}


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"Weights file {str(path)!r} is truncated or no safetensors file ({error}).") from error


def _read_torch(path: Path) -> Any:
    refused = f"Weights file {str(path)!r} must hold tensors alone, but it"
    advice = "Such files can run code when they are loaded: save net.state_dict() alone."
    try:
        with warnings.catch_warnings():
            # torch warns of old pickle protocols and of TorchScript, and then raises for those that it cannot read.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        named = re.search(r"GLOBAL ([\w.]+\w)", text)
        if named:
            raise UserError(f"{refused} also holds a Python object ({named[1]}). {advice}") from error
        if re.search(r"Unsupported (operand|class)", text) and path.read_bytes()[:1] == b"\x80":
            raise UserError(f"{refused} is a general pickle. {advice}") from error
        raise UserError(f"Weights file {str(path)!r} is damaged or no checkpoint.") from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise UserError(f"{refused} is a TorchScript program. {advice}") from error
        raise UserError(f"Weights file {str(path)!r} is truncated, damaged or no checkpoint.") from error
    except OSError:
        raise
    except Exception as error:
        # The reader stumbles over bytes that are no pickle in many ways: KeyError, EOFError, IndexError, ...
        raise UserError(f"Weights file {str(path)!r} is truncated, damaged or no checkpoint.") from error


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(found, Mapping):
        for key in _WRAPPERS:
            if isinstance(found.get(key), Mapping):
                return _unwrap(found[key], path)
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    what = f"keys {_some([str(key) for key in found])}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
    raise UserError(
        f"Weights file {str(path)!r} must hold tensors by name (or under 'state_dict'), but it holds {what}."
    )


def _clean(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _clean({name.removeprefix(prefix): value for name, value in tensors.items()})
    return tensors


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _class_hint(net: nn.Module, shapes: list[str], found: Mapping[str, Tensor]) -> str:
    """What to say where nothing but the number of classes differs, else ''."""
    weighted = [name for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not weighted or {name.rpartition(".")[0] for name in shapes} != {weighted[-1]}:
        return ""
    wanted = net.state_dict()
    if any(found[name].shape[1:] != wanted[name].shape[1:] for name in shapes):
        return ""
    return f" Only the number of classes differs: pass --num-classes {found[shapes[0]].shape[0]}."


def _made_for(path: Path) -> str:
    """Which net the file says it is for, else ''."""
    if not _is_safetensors(path):
        return ""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["secateur"])
        return f" The file was written for net {str(facts['net'])!r} with {int(facts['num_classes'])} classes."
    except (SafetensorError, KeyError, ValueError, TypeError):
        return ""
