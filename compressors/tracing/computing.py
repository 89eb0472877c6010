"""Rules for operators that compute with channels: layers, normalisation, pooling, reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressors.tracing.ids import varies
from compressors.tracing.rules import rule

if TYPE_CHECKING:
    from compressors.tracing.tracer import Tracer


@rule("convolution", "conv2d", "conv1d", "_convolution")
def _convolution(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    x, weight, bias, stride, _padding, _dilation, transposed, _output_padding, groups = args[:9]
    name = tracer.names.get(id(weight))
    if name is None or transposed:
        why = "a transposed convolution" if transposed else "a convolution with a computed weight"
        tracer.pin([x, weight], why)
        return tracer.set(out, None)
    return tracer.weighted(x, name, bias, weight.shape, groups, stride, out, 1)


@rule("addmm", "mm", "linear")
def _linear(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    operator = func.overloadpacket.__name__
    if operator == "linear":
        x, weight, bias = args[0], args[1], (args[2] if len(args) > 2 else kwargs.get("bias"))
        view = (tracer.names[id(weight)], weight) if id(weight) in tracer.names else None
    else:
        bias, x, right = args if operator == "addmm" else (None, *args)
        view = tracer.views.get(id(right))
    if view is None or (bias is not None and id(bias) not in tracer.names):
        tracer.pin([leaf for leaf in args if isinstance(leaf, Tensor)], f"{operator} with a computed weight")
        return tracer.set(out, None)
    name, weight = view
    tracer.weighted(x, name, bias, weight.shape, 1, (), out, x.dim() - 1)
    # Rows of a matrix are positions of one input: the batch of a trace is one.
    tracer.trace.calls[-1].positions = x.numel() // x.shape[-1]
    return None


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "_batch_norm_no_update",
       "batch_norm", "cudnn_batch_norm")  # fmt: skip
def _batch_norm(tracer: Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    x = args[0]
    out = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    ids = tracer.held.get(id(x))
    if ids is None:
        return tracer.set(out, None)
    channels = ids.movedim(1, 0).reshape(x.shape[1], -1)
    if varies(channels, 1):
        return tracer.unknown(func.overloadpacket, [x], out)
    channels = channels[:, 0]
    for tensor in args[1:5]:
        if not isinstance(tensor, Tensor):
            continue
        if id(tensor) not in tracer.names:
            tracer.pin([x], "a BatchNorm with computed parameters")
            continue
        tracer.tie(channels, torch.from_numpy(tracer.nodes(tracer.names[id(tensor)], 0, tensor.shape[0])))
    if (channels < 0).any():
        tracer.pin_ids(channels, "a BatchNorm over constants")
    maker = tracer.made_by.get(id(x))
    statistics = args[3]
    if maker is not None and isinstance(statistics, Tensor) and id(statistics) in tracer.names:
        tracer.trace.batchnorms[maker] = tracer.names[id(statistics)]
    return tracer.set(out, ids)


@rule(
    *"_adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d max_pool2d".split(),
    *"max_pool2d_with_indices max_pool3d_with_indices upsample_nearest2d upsample_bilinear2d".split(),
    *"upsample_bicubic2d _upsample_bilinear2d_aa reflection_pad2d replication_pad2d".split(),
)
def _spatial(tracer: Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    x = args[0]
    out = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    ids = tracer.held.get(id(x))
    if ids is None:
        return tracer.set(out, None)
    axes = range(2, x.dim())
    if any(varies(ids, axis) for axis in axes):
        return tracer.unknown(func.overloadpacket, [x], outputs)
    for axis in axes:
        ids = ids.narrow(axis, 0, 1)
    return tracer.set(out, ids.expand(out.shape))


@rule("mean", "sum", "amax", "amin", "std", "var", "linalg_vector_norm")
def _reduction(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    x = args[0]
    ids = tracer.held.get(id(x)) if isinstance(x, Tensor) else None
    if ids is None or not isinstance(out, Tensor):
        return tracer.unknown(func.overloadpacket, [x], out)
    schema = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(schema, args, strict=False)), **kwargs}
    dims = given.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(x.dim()))
    dims = [dim % x.dim() for dim in dims]
    if any(varies(ids, dim) for dim in dims):
        tracer.pin_ids(ids, f"{func.overloadpacket.__name__} over channels")
        return tracer.set(out, None)
    for dim in dims:
        ids = ids.narrow(dim, 0, 1)
    return tracer.set(out, ids.expand([1 if i in dims else n for i, n in enumerate(x.shape)]).reshape(out.shape))


@rule("_softmax", "_log_softmax", "native_layer_norm", "native_group_norm", "cumsum", "_fused_rms_norm", "rms_norm")
def _normalisation(tracer: Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    operator = func.overloadpacket.__name__
    x = args[0]
    out = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    ids = tracer.held.get(id(x))
    if ids is None:
        return tracer.set(out, None)
    if operator == "native_group_norm":
        axes = list(range(1, x.dim()))
    elif operator in ("native_layer_norm", "_fused_rms_norm", "rms_norm"):
        axes = list(range(x.dim() - len(args[1]), x.dim()))
    else:
        axes = [args[1] % x.dim()]
    # The statistics run over all channels: a net without some of them computes something else.
    if any(varies(ids, axis) for axis in axes):
        tracer.pin_ids(ids, operator)
    return tracer.set(out, ids)


@rule("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like")
def _like(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    tracer.set(out, tracer.held.get(id(args[0])))
