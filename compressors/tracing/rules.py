"""The table of operators that need a rule of their own, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from compressors.tracing.tracer import Tracer

_aten = torch.ops.aten

Rule = Callable[["Tracer", Any, Any, Any, Any], None]
"""Takes the tracer, the operator, its arguments and its outputs, and gives the outputs ids."""

RULES: dict[Any, Rule] = {}
"""Rules by operator."""

SUMS = {"add", "add_", "sub", "sub_", "rsub", "maximum", "minimum"}
"""Element-wise operators that merge two branches."""

_POINTWISE = """
    hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ silu silu_ elu elu_ celu celu_ leaky_relu
    leaky_relu_ softplus gelu mish mish_ log_sigmoid_forward _prelu_kernel native_dropout clone _to_copy copy
    contiguous detach alias lift_fresh
"""
POINTWISE = {getattr(_aten, name) for name in _POINTWISE.split() if hasattr(_aten, name)}
"""Element-wise operators that torch does not tag as such in every release."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator that registers a rule for the operators of these names, as far as this torch has them."""

    def add(function: Rule) -> Rule:
        for name in names:
            if hasattr(_aten, name):
                RULES[getattr(_aten, name)] = function
        return function

    return add
