"""Judging one candidate: build it, finetune it shortly if asked, fold it, measure it."""

from __future__ import annotations

import time
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from automl.task import Task
from compressors.compressor import Compressor
from compressors.cost import FULL_BITS, Allocation
from compressors.quantize.modules import QuantConv2d, QuantLinear
from compressors.training import TrainConfig, train
from envs.evaluation import Evaluation


class EvaluationConfig(BaseModel):
    """How a candidate is judged inside a search.

    Attributes:
        finetune_steps: Updates of the weights before it is measured; 0: none.
        finetune_lr: Their highest learning rate.
        finetune_batch_size: Images of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    finetune_steps: int = Field(default=0, ge=0)
    finetune_lr: float = Field(default=0.01, gt=0)
    finetune_batch_size: int = Field(default=128, ge=1)


class Evaluator:
    """Judges allocations of one net; holds no state from one to the next but caches.

    Args:
        net: The original net, in evaluation mode; untouched.
        compressor: Prepared for it.
        task: What candidates are judged on.
        config: Settings.
    """

    def __init__(self, net: nn.Module, compressor: Compressor, task: Task, config: EvaluationConfig) -> None:
        self.net, self.compressor, self.task, self.config = net, compressor, task, config

    def __call__(self, allocation: Allocation, seed: int) -> Evaluation:
        """Builds and measures the candidate; `seed` orders the images of its finetuning."""
        seconds = {}
        started = time.perf_counter()
        candidate = self.compressor.apply(self.net, self.compressor.policy(allocation))
        if self.config.finetune_steps:
            seconds["build"] = time.perf_counter() - started
            started = time.perf_counter()
            train(candidate, self.task.train, self.task.suit(self._training(seed)), loss=self.task.loss)
            seconds["finetune"] = time.perf_counter() - started
            started = time.perf_counter()
        ready = for_inference(candidate, self.compressor)
        seconds["build"] = seconds.get("build", 0.0) + time.perf_counter() - started
        started = time.perf_counter()
        with torch.no_grad():
            accuracy = self.task.measure_search(ready)
        seconds["evaluate"] = time.perf_counter() - started
        return Evaluation(float(accuracy), seconds)

    def _training(self, seed: int) -> TrainConfig:
        config = self.config
        return TrainConfig(
            steps=config.finetune_steps, lr=config.finetune_lr, batch_size=config.finetune_batch_size, seed=seed
        )


def for_inference(net: nn.Module, compressor: Compressor) -> nn.Module:
    """The net, in place, as it is fastest: BatchNorm folded, weights on their grid, channels last."""
    folded = compressor.fold(net).eval()
    for module in folded.modules():
        if isinstance(module, QuantConv2d | QuantLinear) and module.activation_bits < FULL_BITS:
            _fix_range(module)
    return folded.to(memory_format=torch.channels_last)


def _fix_range(module: QuantConv2d | QuantLinear) -> None:
    """Makes the range of a layer's input plain numbers, with which the net can be exported as well."""
    scale, zero = float(module.activation_scale), int(module.activation_zero)
    held = partial(_held, scale=scale, zero=zero, top=2**module.activation_bits - 1)
    module.held_input = held  # type: ignore[method-assign]


def _held(x: Tensor, scale: float, zero: int, top: int) -> Tensor:
    if torch.compiler.is_compiling():  # torch.export cannot trace the faster operator
        return (((x * (1 / scale)).round() + zero).clamp(0, top) - zero) * scale
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, top)
