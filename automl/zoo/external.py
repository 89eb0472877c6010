"""Nets that others wrote: torchvision's, timm's, and a user's own factory."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from torch import nn

from compressors.errors import UserError, one_of

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, eq=False)
class Made:
    """A net that was just made.

    Attributes:
        net: The module.
        mean: Normalisation that its public weights expect; None: unknown.
        std: Likewise.
        source: Who wrote it.
        licence: Of the code.
        ignored: Prefixes of weights that files may hold but the net has no use for.
    """

    net: nn.Module
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    source: str
    licence: str
    ignored: tuple[str, ...] = ()


def torchvision_names() -> list[str]:
    """Names of torchvision's classification nets."""
    import torchvision.models

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def make_torchvision(name: str, num_classes: int) -> Made:
    """One of torchvision's classification nets, without weights.

    Raises:
        UserError: There is none of that name.
    """
    import torchvision
    from torchvision.models import get_model

    names = torchvision_names()
    if name not in names:
        raise one_of("torchvision net", name, names)
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    mean, std = _IMAGENET
    ignored: tuple[str, ...] = ()
    if name in ("googlenet", "inception_v3"):
        # The published weights were trained on images in -1..1, and hold two classifiers that only training uses.
        options.update(aux_logits=False, init_weights=True)
        mean, std = _HALF
        ignored = ("aux1.", "aux2.", "AuxLogits.")
    net: nn.Module = get_model(name, **options)
    return Made(net, mean, std, f"torchvision {torchvision.__version__}", "BSD-3-Clause", ignored)


def make_timm(name: str, num_classes: int) -> Made:
    """One of timm's nets, without weights.

    Raises:
        UserError: There is none of that name, or it cannot be made.
    """
    import timm

    if not timm.is_model(name):
        raise UserError(f"Unknown timm net {name!r}.{_hint(name, timm.list_models())} timm.list_models() lists all.")
    with _one_line(f"timm net {name!r}"):
        net: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    facts: Any = getattr(net, "pretrained_cfg", None) or {}
    mean, std = facts.get("mean"), facts.get("std")
    known = mean is not None and std is not None and len(mean) == len(std) == 3
    return Made(
        net,
        tuple(map(float, mean)) if known else None,
        tuple(map(float, std)) if known else None,
        f"timm {timm.__version__}",
        "Apache-2.0",
    )


def make_own(name: str, in_channels: int, num_classes: int) -> Made:
    """Calls a user's factory `package.module:factory`, looked for in installed packages and the working folder.

    It gets `num_classes` and `in_channels` where it has parameters of these names.

    Raises:
        UserError: It cannot be found or called, or does not return a net.
    """
    path, _, attribute = name.partition(":")
    with _working_folder():
        module = _module(path, name)
        factory: Any = module
        for part in attribute.split("."):
            if not hasattr(factory, part):
                there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
                raise UserError(f"Module {path!r} must have {attribute!r}, but it has none.{_hint(attribute, there)}")
            factory = getattr(factory, part)
        if not callable(factory):
            raise UserError(f"Net factory {name!r} must be a function or class, but it is a {type(factory).__name__}.")
        with _one_line(f"net factory {name!r}"):
            net = factory(**_arguments(factory, {"num_classes": num_classes, "in_channels": in_channels}))
    if not isinstance(net, nn.Module):
        raise UserError(f"Net factory {name!r} must return a torch.nn.Module, but it returned {type(net).__name__}.")
    return Made(net, None, None, name, "unknown")


def _module(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise UserError(
                f"Net {name!r} needs module {path!r}, but it is neither installed nor in {os.getcwd()}."
            ) from error
        raise UserError(f"Module {path!r} of net {name!r} cannot be imported: {_first_line(error)}") from error
    except Exception as error:
        raise UserError(f"Module {path!r} of net {name!r} cannot be imported: {_first_line(error)}") from error


def _arguments(factory: Callable[..., object], offered: dict[str, int]) -> dict[str, int]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    return {key: value for key, value in offered.items() if key in parameters}


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turns whatever a stranger's code raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"The {what} failed with {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else f"{type(error).__name__}."


class _WorkingFolder:
    """Finds top-level modules in the working folder, after all other places were asked."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [os.getcwd()]) if path is None else None


@contextmanager
def _working_folder() -> Iterator[None]:
    finder = _WorkingFolder()
    importlib.invalidate_caches()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _hint(name: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
