"""How well cheap measures of a policy foretell its accuracy after finetuning, and what they cost.

Random feasible policies are finetuned each. For every cheap measure (a criterion) the rank correlation of its scores
with the finetuned accuracies is reported, with the seconds that it takes for one policy. What is measured is written
down at once, so that an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator
from torch import nn

from agents.plans import Plan, Problem, random_plan
from automl.benchmarks.fidelity_log import FidelityLog, Measurement
from automl.benchmarks.fidelity_table import FINETUNED, Row, correlations
from automl.candidate import for_inference
from automl.config import SearchConfig
from automl.loading import load_named
from automl.preflight import check_targets
from automl.profile_cache import prepare
from automl.task import Accuracy, Task, task_of
from compressors.compressor import Compressor
from compressors.cost import Allocation
from compressors.errors import UserError
from compressors.grouping import layer_table
from compressors.layers import LayerTable
from compressors.repair import REPAIRS
from compressors.training import DistillConfig, TrainConfig, train
from envs.compression import CompressionEnv
from envs.evaluation import Evaluation
from envs.target import parse_targets, sample_targets

FEWEST_POLICIES = 10
PROFILE = "profile error"
_FINETUNE: dict[str, Any] = {"steps": 600, "weight_decay": 1e-4}
IMAGE_COUNTS = (250, 500, 1000, 2000, 5000)
_BATCHNORMS = {
    "none": ("keep", "reestimate"),
    "least_squares": ("keep", "reestimate", "auto"),
    "sequential": ("keep", "reestimate", "auto"),
}
"""What is compared without any training: repairs (those that exist), each with what becomes of BatchNorm."""

Progress = Callable[[int, int, float | None], None]
"""Called with measurements done, measurements in all, and the seconds that the rest will take (None: unknown)."""


class FidelityConfig(BaseModel):
    """What the benchmark measures.

    Attributes:
        policies: Random feasible policies.
        seed: Of the policies and of training.
        finetune: Training of each policy's net, with `steps` given.
        distill: Learn from the original net as well in that training; None: from labels alone.
        images: Leading search images that criteria are measured on, unless the criterion says otherwise.
        short_steps: Lengths of the short finetunes among the criteria.
        short_lr: Their highest learning rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policies: int = 40
    seed: int = Field(default=0, ge=0)
    finetune: TrainConfig = TrainConfig(**_FINETUNE)
    distill: DistillConfig | None = DistillConfig()
    images: int = Field(default=1000, ge=1)
    short_steps: tuple[PositiveInt, ...] = (10, 30, 100)
    short_lr: float = Field(default=0.01, gt=0)

    @field_validator("finetune", mode="before")
    @classmethod
    def _over_defaults(cls, value: Any) -> Any:
        # A trained net needs other defaults than TrainConfig's, also where some settings are given.
        return {**_FINETUNE, **value} if isinstance(value, Mapping) else value

    @field_validator("policies")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value < FEWEST_POLICIES:
            raise ValueError(f"a rank correlation needs at least {FEWEST_POLICIES} policies")
        return value


def measure(
    config: SearchConfig, fidelity: FidelityConfig, out: Path, progress: Progress | None = None, device: str = "cpu"
) -> list[Row]:
    """Measures whatever `out` does not hold yet.

    Args:
        config: Net, data, compressor and environment.
        fidelity: Settings.
        out: Folder of the measurements; made where missing.
        progress: Called after each criterion of each policy.
        device: Where the net is.

    Returns:
        The table, `finetuned` left out.

    Raises:
        UserError: Bad input, a target out of reach, or a folder with measurements of something else.
    """
    loaded, splits = load_named(config.net, config.data)
    task = task_of(splits, batch_size=config.data.batch_size)
    table = layer_table(loaded.net, task.example, loaded.name)
    check_targets(config, table)
    log = FidelityLog(out, _settings(config, fidelity, task, table))
    _Bench(loaded.net.to(device).eval(), task, table, config, fidelity, log, progress).run()
    return correlations(log, fidelity.policies)


def _settings(config: SearchConfig, fidelity: FidelityConfig, task: Task, table: LayerTable) -> dict[str, object]:
    """What measurements must share to stand in one table; more policies of the same draw may be added."""
    return {
        "net": table.fingerprint,
        "data": task.record,
        "calibration": task.fingerprint,
        "compressor": config.compressor.model_dump(mode="json"),
        "targets": config.env.model_dump(mode="json"),
        "measures": fidelity.model_dump(mode="json", exclude={"policies"}),
        "batch_size": config.data.batch_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


class _Bench:
    def __init__(
        self, net: nn.Module, task: Task, table: LayerTable, config: SearchConfig, fidelity: FidelityConfig,
        log: FidelityLog, progress: Progress | None,
    ) -> None:  # fmt: skip
        self.net, self.task, self.table, self.fidelity, self.log = net, task, table, fidelity, log
        self.base = Compressor(config.compressor)
        profile = prepare(self.base, net, table, task)
        self.env = CompressionEnv(table, profile, _unused, config.env)
        assert isinstance(task.measure_search, Accuracy)
        self.images = task.measure_search
        self.some = Accuracy(_leading(self.images, 0, fidelity.images))
        counts = [count for count in IMAGE_COUNTS if count < self.images.images]
        self.counts = (*counts, self.images.images)
        self.plans = _plans(self.env, fidelity)
        self.progress = progress

    def run(self) -> None:
        """Finetunes and measures all policies, then whatever builds on the best repair."""
        known = [repair for repair in _BATCHNORMS if repair in REPAIRS]
        repairs = {f"{repair}/{how}": (repair, how) for repair in known for how in _BATCHNORMS[repair]}
        first = [FINETUNED, PROFILE, *repairs]
        later = 2 * len(self.fidelity.short_steps) + len(self.counts)
        self._show(first, later)
        for name in first:
            # One compressor for all policies, as in a search: what it works out once is paid for once.
            compressor = self.base.with_repair(*repairs[name]) if name in repairs else self.base
            for policy, (plan, allocation) in enumerate(self.plans):
                if self.log.find(policy, name) is None:
                    self._add(policy, name, *self._score(name, plan, allocation, compressor))
                    self._show(first, later)
        rows = {row.criterion: row for row in correlations(self.log, len(self.plans))}
        best = max(repairs, key=lambda name: _or_worst(rows[name].spearman))
        names = [*first, *self._later(best)]
        self._show(names, 0)
        for criterion in self._later(best):
            compressor = self.base.with_repair(*repairs[best])
            for policy, (_, allocation) in enumerate(self.plans):
                if self.log.find(policy, criterion) is None:
                    for name, score, seconds in self._built_on(best, compressor, criterion, allocation):
                        self._add(policy, name, score, seconds)
                    self._show(names, 0)

    def _later(self, best: str) -> list[str]:
        short = [_short(best, steps, distill) for steps in self.fidelity.short_steps for distill in (False, True)]
        return [*short, *(_on(best, count) for count in self.counts)]

    def _add(self, policy: int, name: str, score: float, seconds: float) -> None:
        # A net whose outputs are not finite is as good as one that is always wrong.
        held = score if math.isfinite(score) else 0.0
        self.log.add(Measurement(policy=policy, criterion=name, score=held, seconds=seconds))

    def _score(self, name: str, plan: Plan, allocation: Allocation, compressor: Compressor) -> tuple[float, float]:
        begun = time.perf_counter()
        if name == PROFILE:
            score = -sum(errors.of(choice) for errors, choice in zip(self.env.errors, plan, strict=True))
            return float(score), time.perf_counter() - begun
        candidate = compressor.apply(self.net, compressor.policy(allocation))
        if name != FINETUNED:
            return self._accuracy(compressor, candidate, self.some), time.perf_counter() - begun
        training = self.fidelity.finetune.model_copy(update={"seed": self.fidelity.seed})
        self._train(candidate, training, self.fidelity.distill)
        return self._accuracy(compressor, candidate, self.images), time.perf_counter() - begun

    def _built_on(
        self, best: str, compressor: Compressor, criterion: str, allocation: Allocation
    ) -> Iterator[tuple[str, float, float]]:
        """Scores and seconds of one later criterion; all counts of images come of one measurement."""
        begun = time.perf_counter()
        candidate = compressor.apply(self.net, compressor.policy(allocation))
        for steps in self.fidelity.short_steps:
            for distill in (False, True):
                if criterion == _short(best, steps, distill):
                    # Images in another order than the long finetune's, which a search would not know.
                    training = self.fidelity.finetune.model_copy(
                        update={"steps": steps, "lr": self.fidelity.short_lr, "seed": self.fidelity.seed + 1}
                    )
                    self._train(candidate, training, DistillConfig() if distill else None)
                    yield criterion, self._accuracy(compressor, candidate, self.some), time.perf_counter() - begun
                    return
        ready = for_inference(candidate, compressor)
        seconds, right = time.perf_counter() - begun, 0.0
        for low, high in zip((0, *self.counts), self.counts, strict=False):
            part = Accuracy(_leading(self.images, low, high))
            begun = time.perf_counter()
            right += part(ready) * (high - low)
            seconds += time.perf_counter() - begun
            yield _on(best, high), right / high, seconds

    def _train(self, candidate: nn.Module, training: TrainConfig, distill: DistillConfig | None) -> None:
        teacher = self.net if distill else None
        train(candidate, self.task.train, self.task.suit(training), teacher=teacher, distill=distill)

    def _accuracy(self, compressor: Compressor, candidate: nn.Module, images: Accuracy) -> float:
        return images(for_inference(candidate, compressor))

    def _show(self, names: Sequence[str], unknown: int) -> None:
        """Progress and the time left, judged by the medians so far."""
        if self.progress is None:
            return
        count = len(self.plans)
        left = {name: sum(self.log.find(policy, name) is None for policy in range(count)) for name in names}
        taken = {name: statistics.median(seconds) for name in names if (seconds := self.log.seconds(name))}
        eta = None
        if taken:
            usual = statistics.median(taken.values())
            eta = sum(number * taken.get(name, usual) for name, number in left.items()) + unknown * count * usual
        total = (len(names) + unknown) * count
        self.progress(len(names) * count - sum(left.values()), total, eta)


def _plans(env: CompressionEnv, fidelity: FidelityConfig) -> list[tuple[Plan, Allocation]]:
    """Different random feasible plans; the first ones are the same however many are asked for."""
    rng = np.random.default_rng([fidelity.seed, 4])
    targets = parse_targets(env.config.targets)
    found: dict[tuple[int, ...], tuple[Plan, Allocation]] = {}
    for draw in range(50 * fidelity.policies):
        env.reset(seed=0, options={"targets": sample_targets(targets, draw, fidelity.seed)})
        plan = random_plan(Problem.of(env), rng)
        allocation = env.space.allocate(plan)
        found.setdefault(allocation.key(), (plan, allocation))
        if len(found) == fidelity.policies:
            return list(found.values())
    raise UserError(
        f"{fidelity.policies} different policies are asked for, but {50 * fidelity.policies} draws gave only "
        f"{len(found)}: ask for fewer, or give the targets a range."
    )


def _leading(accuracy: Accuracy, low: int, high: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of the images from number `low` to before `high`."""
    start = 0
    for inputs, labels in accuracy.batches:
        first, last = max(low - start, 0), min(high - start, len(labels))
        if first < last:
            yield inputs[first:last], labels[first:last]
        start += len(labels)


def _short(best: str, steps: int, distill: bool) -> str:
    return f"{best} + {steps} steps{', distilled' if distill else ''}"


def _on(best: str, count: int) -> str:
    return f"{best} on {count} images"


def _or_worst(value: float) -> float:
    return -2.0 if math.isnan(value) else value


def _unused(allocation: Allocation, seed: int, bar: float) -> Evaluation:
    raise AssertionError("plans are made without an evaluation")
