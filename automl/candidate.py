"""Judging one candidate: build it, finetune it shortly if asked, fold it, measure it."""

from __future__ import annotations

import copy
import time
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from automl.ladder import below, cannot_matter, estimate, rungs, signed_margins, stratified_order
from automl.task import Accuracy, Task
from compressors.compressor import Compressor
from compressors.cost import FULL_BITS, Allocation
from compressors.errors import UserError
from compressors.layers import Bools
from compressors.quantize.modules import QuantConv2d, QuantLinear
from compressors.training import TrainConfig, train
from envs.evaluation import Evaluation

FEWEST_IMAGES = 10
"""Of fewer images the first rung would say nothing."""


class EvaluationConfig(BaseModel):
    """How a candidate is judged inside a search.

    Attributes:
        finetune_steps: Updates of the weights before it is measured; 0: none.
        finetune_lr: Their highest learning rate.
        finetune_batch_size: Images of each.
        precision: What the candidate computes in while its accuracy is measured; `bfloat16` is two to three times as
            fast on processors that have it, and ranks candidates alike.
        first_images: Search images that each candidate is judged on at first. Where that does not yet show that it
            cannot beat what the search has found at its cost, twice as many, and so on up to all. 0: always all.
        margin: How many standard errors an estimate must lie below that to end the judging.

    A metric of one's own (`evaluate`) gets the whole net in float32 once: precision and first_images are for accuracy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    finetune_steps: int = Field(default=0, ge=0)
    finetune_lr: float = Field(default=0.01, gt=0)
    finetune_batch_size: int = Field(default=128, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    first_images: int = Field(default=350, ge=0)
    margin: float = Field(default=2.5, ge=0, allow_inf_nan=False)

    @field_validator("first_images")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < FEWEST_IMAGES:
            raise ValueError(f"the first images must be 0 (always all) or at least {FEWEST_IMAGES}")
        return value


class Evaluator:
    """Judges allocations of one net; holds no state from one to the next but caches.

    Args:
        net: The original net, in evaluation mode; untouched.
        compressor: Prepared for it.
        task: What candidates are judged on.
        config: Settings.
    """

    def __init__(self, net: nn.Module, compressor: Compressor, task: Task, config: EvaluationConfig) -> None:
        self.net, self.compressor, self.config = net, compressor, config
        measure = task.measure_search
        plain = config.precision == "float32" and not config.first_images
        self.images = None if plain or not isinstance(measure, Accuracy) else SearchImages(net, measure, config)
        # Nothing that no candidate needs, least of all the test split: an evaluator travels to every node.
        self.measure = measure if self.images is None else None
        self.training = (task.train, task.suit, task.loss) if config.finetune_steps else None

    def use_device(self, device: str) -> None:
        """Makes candidates on another device."""
        self.net = self.net.to(device)

    @property
    def stops(self) -> bool:
        """Whether measuring may end early, below the bar."""
        return self.images is not None and len(self.images.counts) > 1

    def __call__(self, allocation: Allocation, seed: int, bar: float) -> Evaluation:
        """Builds and measures the candidate; `seed` orders the images of its finetuning, `bar` may end the measuring.

        The accuracy of a candidate that is not measured to the end is an estimate, always below the bar.
        """
        seconds = {}
        started = time.perf_counter()
        candidate = self.compressor.apply(self.net, self.compressor.policy(allocation))
        if self.training is not None:
            source, suit, loss = self.training
            seconds["build"] = time.perf_counter() - started
            started = time.perf_counter()
            train(candidate, source, suit(self._training(seed)), loss=loss)
            seconds["finetune"] = time.perf_counter() - started
            started = time.perf_counter()
        ready = for_inference(candidate, self.compressor)
        seconds["build"] = seconds.get("build", 0.0) + time.perf_counter() - started
        started = time.perf_counter()
        with torch.no_grad():
            accuracy, images = self._measure(ready, bar)
        seconds["evaluate"] = time.perf_counter() - started
        complete = self.images is None or images >= self.images.counts[-1]
        return Evaluation(float(accuracy), seconds, images, complete)

    def _measure(self, ready: nn.Module, bar: float) -> tuple[float, int]:
        if self.images is not None:
            return self.images.measure(ready, bar)
        assert self.measure is not None
        return self.measure(ready), self.measure.images if isinstance(self.measure, Accuracy) else 0

    def _training(self, seed: int) -> TrainConfig:
        config = self.config
        return TrainConfig(
            steps=config.finetune_steps, lr=config.finetune_lr, batch_size=config.finetune_batch_size, seed=seed
        )


class SearchImages:
    """The search images as a candidate climbs through them, rung by rung, in the precision that it is measured in.

    Args:
        net: The original net, whose answers tell how hard each image is; untouched.
        accuracy: The images, and the accuracy on all of them; puts them into the order of the rungs. Images of several
            shapes have no rungs.
        config: Settings.

    Raises:
        UserError: The original net does not give one tensor of finite scores.
    """

    def __init__(self, net: nn.Module, accuracy: Accuracy, config: EvaluationConfig) -> None:
        self.margin = config.margin
        self.dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        self.right = np.zeros(accuracy.images, dtype=bool)
        batches = accuracy.batches
        self.counts: tuple[int, ...] = (accuracy.images,)
        alike = len({batch.shape[1:] for batch, _ in batches}) == 1
        if alike and 0 < config.first_images < accuracy.images:
            self.counts = rungs(config.first_images, accuracy.images)
            if accuracy.arranged is None or accuracy.arranged[:2] != (net, self.counts):
                self._arrange(net, accuracy)
            assert accuracy.arranged is not None
            self.right, batches = accuracy.arranged[2], accuracy.batches
        self.batches = [(self._held(inputs), labels) for inputs, labels in batches]

    def _arrange(self, net: nn.Module, accuracy: Accuracy) -> None:
        """Puts the images into the order of the rungs: to an accuracy it is nothing, and two copies may be too many."""
        batches = accuracy.batches
        inputs, labels = (torch.cat([batch[part] for batch in batches]) for part in (0, 1))
        order, right = self._ordered(net, accuracy, labels)
        largest = max(len(batch) for batch, _ in batches)
        starts = [
            start
            for low, high in zip((0, *self.counts), self.counts, strict=False)
            for start in range(low, high, largest)
        ]
        parts = order.tensor_split(starts[1:])
        accuracy.batches = [(_channels_last(inputs[part]), labels[part]) for part in parts]
        accuracy.arranged = (net, self.counts, right)

    def _ordered(self, net: nn.Module, accuracy: Accuracy, labels: Tensor) -> tuple[Tensor, Bools]:
        """The order of the images, and which of them, in this order, the original net has right."""
        original = copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
        with torch.inference_mode():
            scores = [accuracy.scores(original, inputs) for inputs, _ in accuracy.batches]
        if any(found is None for found in scores):
            raise UserError("Outputs of the original net on the search split must be finite, but hold NaN or infinity.")
        known = torch.cat([found for found in scores if found is not None]).float().cpu().numpy()
        truth = labels.cpu().numpy()
        order = stratified_order(signed_margins(known, truth), self.counts)
        return torch.from_numpy(order), (known.argmax(axis=1) == truth)[order]

    def _held(self, inputs: Tensor) -> Tensor:
        return _channels_last(inputs.to(self.dtype) if inputs.is_floating_point() else inputs)

    def measure(self, net: nn.Module, bar: float) -> tuple[float, int]:
        """The accuracy of a net that is ready for inference, or an estimate below the bar, and how many images it took.

        NaN where an output is not finite. The net may be changed to the precision that is measured in.
        """
        net = net.to(self.dtype).eval()
        answers: list[Bools] = []
        done = 0
        for inputs, labels in self.batches:
            scores = Accuracy.scores(net, inputs)
            if scores is None:
                return float("nan"), done + len(labels)
            answers.append((scores.argmax(1) == labels.to(scores.device)).cpu().numpy())
            done += len(labels)
            if done in self.counts[:-1]:
                found = estimate(np.concatenate(answers), self.right)
                if cannot_matter(found, bar, self.margin):
                    return below(found.accuracy, bar), done
        return float(np.concatenate(answers).mean()), done


def _channels_last(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


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
