"""What becomes of the front: its members are finetuned, tested once, and written to `front.json` and `nets/`."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from automl.archive import Archive
from automl.candidate import for_inference
from automl.files import write_atomic
from automl.front import Front, FrontMember, read_front
from automl.ledger import TrialRecord
from automl.runs import Run
from automl.task import Task
from compressors.compressor import Compressor
from compressors.cost import Allocation
from compressors.errors import UserError
from compressors.policy import CompressionPolicy
from compressors.storage import save_packed
from compressors.training import DistillConfig, TrainConfig, train

Describe = Callable[[CompressionPolicy, nn.Module, Compressor], CompressionPolicy]

_TRAINING: dict[str, Any] = {"epochs": 5, "lr": 0.05, "weight_decay": 1e-4}


class FinetuneConfig(BaseModel):
    """How the front's members are trained after the search.

    Attributes:
        members: At most so many members of the front are trained and tested, spread evenly over its costs.
        repairs: Repairs that each member is also made with; whichever is best on the search split is trained. The
            sequential one is too slow for every candidate of a search, and starts a deep cut many points higher.
        training: Settings of the training; `epochs=0` trains nothing.
        distill: Learn from the original net as well; None: from labels alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    members: int = Field(default=5, ge=1)
    repairs: tuple[str, ...] = ("sequential",)
    training: TrainConfig = TrainConfig(**_TRAINING)
    distill: DistillConfig | None = None

    @field_validator("training", mode="before")
    @classmethod
    def _over_defaults(cls, value: Any) -> Any:
        # A trained net needs other defaults than TrainConfig's, also where some settings are given.
        return {**_TRAINING, **value} if isinstance(value, Mapping) else value


def select_members(archive: Archive, limit: int) -> list[TrialRecord]:
    """The front's members to finetune: all, or `limit` spread evenly over its costs, the most accurate among them.

    Raises:
        UserError: The front is empty, since all trials failed.
    """
    members = sorted(archive.front, key=archive.cost_ratio)
    if not members:
        raise UserError("The search has no front: all of its trials failed. trials.jsonl says why, trial by trial.")
    if len(members) <= limit:
        return members
    # From the most accurate down: it is the one that people came for.
    step = (len(members) - 1) / max(1, limit - 1)
    return [members[index] for index in sorted({len(members) - 1 - round(k * step) for k in range(limit)})]


def allocation_in(record: TrialRecord) -> Allocation:
    """The allocation that a trial decided."""
    policy = record.policy
    return Allocation(np.array(policy.kept), np.array(policy.weight_bits), np.array(policy.activation_bits))


def finetune_front(
    run: Run,
    net: nn.Module,
    task: Task,
    compressor: Compressor,
    archive: Archive,
    config: FinetuneConfig,
    describe: Describe,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Front:
    """Trains and tests the front's members; what an interrupted call finished is kept.

    Args:
        run: The run folder.
        net: The original net, the teacher in distillation; untouched.
        task: Data and metric.
        compressor: Prepared for the net.
        archive: The trials.
        config: Settings.
        describe: Adds to a policy how its net can be made again, given the net before finetuning and what made it.
        progress: Called with what is trained, steps done and steps in all.
    """
    if run.front.exists():
        return read_front(run)  # the test split is used once
    chosen = select_members(archive, config.members)
    makers = [compressor]
    makers += [compressor.with_repair(name) for name in config.repairs if name != compressor.config.repair]
    done: dict[str, FrontMember] = {}
    for record in chosen:
        member = _finished(run, record.trial_id)
        if member is None:
            member = _finetune(run, net, task, makers, record, config, describe, progress)
            write_atomic(_member_file(run, record.trial_id), member.model_dump_json().encode())
        done[record.trial_id] = member
    facts = {("accuracy_search" if name == "accuracy" else name): value for name, value in run.info().original.items()}
    tested = None
    if task.measure_test is not None:
        tested = float(task.measure_test(for_inference(copy.deepcopy(net), compressor)))
    front = Front(
        original={**facts, "accuracy_test": tested},
        front=tuple(sorted(done.values(), key=lambda member: member.macs)),
    )
    write_atomic(run.front, (json.dumps(front.model_dump(mode="json"), indent=1) + "\n").encode())
    return front


def _best_start(
    net: nn.Module, task: Task, makers: Sequence[Compressor], policy: CompressionPolicy
) -> tuple[Compressor, nn.Module, float]:
    """What makes a policy's net best, by the search split; the net, and its accuracy there."""
    if policy.costs["params"] == policy.original["params"]:
        makers = makers[:1]  # nothing was cut, so there is nothing to repair
    found = []
    for maker in makers:
        try:
            candidate = maker.apply(net, policy)
            accuracy = float(task.measure_search(for_inference(copy.deepcopy(candidate), maker)))
        except UserError:
            raise
        except Exception:
            # The search's own repair must work; another one is only tried.
            if maker is makers[0]:
                raise
            continue
        found.append((maker, candidate, accuracy if math.isfinite(accuracy) else -math.inf))
    return max(found, key=lambda start: start[2])


def _member_file(run: Run, trial_id: str) -> Path:
    return run.nets / f"{trial_id}.json"


def _finished(run: Run, trial_id: str) -> FrontMember | None:
    """What an earlier process made of a member, if it came to its end."""
    path = _member_file(run, trial_id)
    if not path.exists():
        return None
    try:
        return FrontMember.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def _finetune(
    run: Run,
    net: nn.Module,
    task: Task,
    makers: Sequence[Compressor],
    record: TrialRecord,
    config: FinetuneConfig,
    describe: Describe,
    progress: Callable[[str, int, int | None], None] | None,
) -> FrontMember:
    policy = makers[0].policy(allocation_in(record))
    compressor, candidate, start = _best_start(net, task, makers, policy)
    policy = describe(policy, candidate, compressor)
    before = None
    if task.measure_test is not None:
        before = float(task.measure_test(for_inference(copy.deepcopy(candidate), compressor)))
    started = time.perf_counter()
    training = task.suit(config.training)
    if training.epochs or training.steps:
        stage = f"Finetuning {record.trial_id}"
        try:
            train(
                candidate, task.train, training,
                teacher=net if config.distill else None, distill=config.distill, loss=task.loss,
                progress=None if progress is None else lambda done, total, _: progress(stage, done, total),
            )  # fmt: skip
        except UserError as error:
            raise UserError(
                f"{stage} failed: {error} All trials are kept; go on, with other settings if need be: "
                f"secateur resume {run.address} --finetune-lr {training.lr / 10:g}"
            ) from error
    seconds = time.perf_counter() - started
    save_packed(candidate, run.nets / f"{record.trial_id}.safetensors")
    ready = for_inference(copy.deepcopy(candidate), compressor)
    finetuned = float(task.measure_search(ready))
    tested = None if task.measure_test is None else float(task.measure_test(ready))
    accuracies: dict[str, Any] = {
        "accuracy_search": record.accuracy_search,
        "accuracy_start": start if math.isfinite(start) else None,
        "accuracy_finetuned": finetuned,
        "accuracy_test": tested,
    }
    policy.with_details(trial_id=record.trial_id, accuracies=accuracies).save(run.policies / f"{record.trial_id}.json")
    costs = policy.costs
    return FrontMember(
        trial_id=record.trial_id,
        **accuracies,
        accuracy_test_before=before,
        macs=costs["macs"],
        macs_ratio=costs["macs"] / policy.original["macs"],
        params=costs["params"],
        size_bytes=costs["size_bytes"],
        bops=costs["bops"],
        seconds=seconds,
    )
