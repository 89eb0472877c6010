"""The front of a finished search: finetuned, tested once, and written to `front.json` and `nets/`."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from automl.archive import Archive
from automl.candidate import for_inference
from automl.files import storage_errors, write_atomic
from automl.ledger import TrialRecord
from automl.runs import Run
from automl.task import Task
from compressors.compressor import Compressor
from compressors.cost import Allocation
from compressors.errors import UserError, one_of
from compressors.policy import CompressionPolicy
from compressors.storage import load_packed, save_packed
from compressors.training import DistillConfig, TrainConfig, train

_TRAINING: dict[str, Any] = {"epochs": 5, "lr": 0.05, "weight_decay": 1e-4}


class FinetuneConfig(BaseModel):
    """How the front's members are trained after the search.

    Attributes:
        members: At most so many members of the front are trained and tested, spread evenly over its costs.
        training: Settings of the training; `epochs=0` trains nothing.
        distill: Learn from the original net as well; None: from labels alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    members: int = Field(default=5, ge=1)
    training: TrainConfig = TrainConfig(**_TRAINING)
    distill: DistillConfig | None = None

    @field_validator("training", mode="before")
    @classmethod
    def _over_defaults(cls, value: Any) -> Any:
        # A trained net needs other defaults than TrainConfig's, also where some settings are given.
        return {**_TRAINING, **value} if isinstance(value, Mapping) else value


class FrontMember(BaseModel):
    """One member of the front.

    Attributes:
        trial_id: Its trial.
        accuracy_search: On the search split, as the search saw it.
        accuracy_finetuned: On the search split, after the long finetune.
        accuracy_test: On the test split, after the long finetune; None where there is no test.
        accuracy_test_before: On the test split, before it.
        macs: Multiply-accumulates of one input.
        macs_ratio: The same, relative to the original net.
        params: Parameters.
        size_bytes: Bytes to store it.
        bops: Bit operations.
        seconds: Of its finetune.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: str
    accuracy_search: float
    accuracy_finetuned: float
    accuracy_test: float | None
    accuracy_test_before: float | None = None
    macs: int
    macs_ratio: float
    params: int
    size_bytes: int
    bops: int
    seconds: float = 0.0


class Front(BaseModel):
    """The content of `front.json`.

    Attributes:
        original: Accuracies and costs of the original net.
        front: Members in order of macs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    original: dict[str, int | float | None]
    front: tuple[FrontMember, ...]

    def member(self, trial_id: str) -> FrontMember:
        """The member with this id; raises a `UserError` that lists them where there is none."""
        for member in self.front:
            if member.trial_id == trial_id:
                return member
        raise one_of("front member", trial_id, [member.trial_id for member in self.front])

    def best(self, max_macs: float | None = None, min_accuracy: float | None = None) -> FrontMember:
        """The most accurate member within `max_macs`, or the cheapest of at least `min_accuracy`.

        Args:
            max_macs: Ratio to the original net where at most 1, else multiply-accumulates.
            min_accuracy: On the search split after finetuning, 0..1; the test split only reports.

        Raises:
            UserError: No member meets the conditions; the message says what the nearest has.
        """
        fitting = [member for member in self.front if max_macs is None or _within(member, max_macs)]
        if not fitting:
            least = min(self.front, key=lambda member: member.macs)
            raise UserError(
                f"No front member has at most max_macs={max_macs:g}; the smallest is {least.trial_id} with "
                f"{least.macs:,} macs ({least.macs_ratio:.3f} of the original)."
            )
        if min_accuracy is None:
            return max(fitting, key=_accuracy)
        good = [member for member in fitting if _accuracy(member) >= min_accuracy]
        if not good:
            best = max(fitting, key=_accuracy)
            raise UserError(
                f"No front member reaches min_accuracy={min_accuracy:g}; the best is {best.trial_id} with "
                f"{_accuracy(best):.4f}. Finetune longer, or search with a larger target."
            )
        return min(good, key=lambda member: member.macs)


def _within(member: FrontMember, max_macs: float) -> bool:
    return (member.macs_ratio if max_macs <= 1 else member.macs) <= max_macs


def _accuracy(member: FrontMember) -> float:
    # The search split chooses; the test split only reports what was chosen.
    return member.accuracy_finetuned


def read_front(run: Run) -> Front:
    """Reads `front.json`.

    Raises:
        UserError: It is not there yet, or is damaged.
    """
    if not run.front.exists():
        raise UserError(f"The run {run.folder} has no front yet. Finish it with: secateur resume {run.folder}")
    with storage_errors(f"read {run.front}"):
        data = run.front.read_bytes()
    try:
        return Front.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(
            f"{run.front} is damaged ({problem['msg']}). Delete it and run: secateur resume {run.folder}"
        ) from None


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
    describe: Callable[[CompressionPolicy, nn.Module], CompressionPolicy],
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
        describe: Adds to a policy how its net can be made again, given the net before finetuning.
        progress: Called with what is trained, steps done and steps in all.
    """
    if run.front.exists():
        return read_front(run)  # the test split is used once
    chosen = select_members(archive, config.members)
    done: dict[str, FrontMember] = {}
    for record in chosen:
        member = _finished(run, record.trial_id)
        if member is None:
            member = _finetune(run, net, task, compressor, record, config, describe, progress)
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
    compressor: Compressor,
    record: TrialRecord,
    config: FinetuneConfig,
    describe: Callable[[CompressionPolicy, nn.Module], CompressionPolicy],
    progress: Callable[[str, int, int | None], None] | None,
) -> FrontMember:
    allocation = allocation_in(record)
    policy = compressor.policy(allocation)
    candidate = compressor.apply(net, policy)
    policy = describe(policy, candidate)
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
                f"secateur resume {run.folder} --finetune-lr {training.lr / 10:g}"
            ) from error
    seconds = time.perf_counter() - started
    save_packed(candidate, run.nets / f"{record.trial_id}.safetensors")
    ready = for_inference(copy.deepcopy(candidate), compressor)
    finetuned = float(task.measure_search(ready))
    tested = None if task.measure_test is None else float(task.measure_test(ready))
    accuracies: dict[str, Any] = {
        "accuracy_search": record.accuracy_search,
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


def load_member(run: Run, trial_id: str, net: nn.Module, compressor: Compressor) -> tuple[CompressionPolicy, nn.Module]:
    """A front member's policy and finetuned net.

    Args:
        run: The run folder.
        trial_id: The member.
        net: The original net.
        compressor: Knows the net's layer table.

    Raises:
        UserError: The member's files are missing or damaged.
    """
    path = run.policies / f"{trial_id}.json"
    policy = CompressionPolicy.load(path)
    return policy, load_packed(net, compressor.table, policy, run.nets / f"{trial_id}.safetensors")
