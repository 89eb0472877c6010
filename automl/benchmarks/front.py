"""`secateur bench front`: one search over a range of targets against as many episodes split over single targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents import registry
from automl.benchmarks.quality.identity import differences
from automl.benchmarks.quality.plan import CELL_FILE, Job, Request, plan
from automl.files import storage_errors, write_atomic
from compressors.errors import UserError
from envs.target import Target, parse_targets

FRONT_FILE = "front.json"
VERSION = 1


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes:
        range: Of the one search, as typed.
        targets: Of the split searches, as typed.
        episodes: Of the one search, and of the split ones together.
    """

    range: str
    targets: tuple[str, ...]
    episodes: int

    @property
    def shares(self) -> tuple[int, ...]:
        """Episodes of each split search; the first ones take what is left over."""
        share, rest = divmod(self.episodes, len(self.targets))
        return tuple(share + (index < rest) for index in range(len(self.targets)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"version": VERSION, "range": self.range, "targets": list(self.targets), "episodes": self.episodes}


def question(span: str, targets: Sequence[str], episodes: int) -> Question:
    """A question, checked.

    Args:
        span: A range, e.g. `macs=0.3..0.7`.
        targets: At least two single targets inside it.
        episodes: In all.

    Raises:
        UserError: It is none, or the targets do not lie in it.
    """
    whole = _one(span, "--range")
    if whole.low == whole.high:
        raise UserError(f"--range must be a range such as macs=0.3..0.7, but got {span!r}.")
    found = [_one(target, "--targets") for target in targets]
    for one in found:
        if one.kind != whole.kind or one.low != one.high or not whole.low <= one.low <= whole.high:
            raise UserError(f"Each of --targets must be a single {whole.kind} within {whole}, but got {one}.")
    names = tuple(dict.fromkeys(map(str, sorted(found, key=lambda one: one.low))))
    if len(names) < 2:
        raise UserError(f"--targets must hold at least two different targets, but got {', '.join(names) or 'none'}.")
    return Question(str(whole), names, episodes)


def _one(text: str, option: str) -> Target:
    found = parse_targets([text])
    if len(found) != 1:
        raise UserError(f"{option} takes one target at a time, but got {text!r}.")
    return found[0]


def notes_on(asked: Question) -> list[str]:
    """What a person should know before the searches run."""
    whole, least = parse_targets([asked.range])[0], parse_targets([asked.targets[0]])[0]
    if least.low > whole.low:
        return []
    return [
        f"Warning: {asked.targets[0]} is the lower end of {asked.range}, where the one search has hardly an episode; "
        "begin the range somewhat lower."
    ]


def plan_front(request: Request, asked: Question) -> list[Job]:
    """All searches of the comparison, seed by seed.

    Args:
        request: What is searched; its targets and episodes do not matter.
        asked: What is compared.

    Raises:
        UserError: Bad input, see `quality.plan.plan`; or a split search would be too short for an agent.
    """
    jobs = plan(replace(request, targets=(asked.range,), episodes=asked.episodes))
    for job in jobs:
        least = registry.least_episodes(job.config.agent)
        if min(asked.shares) < least:
            raise UserError(
                f"Agent {job.agent!r} needs at least {least} episodes in each of {len(asked.targets)} searches, but "
                f"--episodes {asked.episodes} gives them {min(asked.shares)}: give --episodes "
                f"{least * len(asked.targets)} or more, fewer --targets, or leave the agent out."
            )
    for target, share in zip(asked.targets, asked.shares, strict=True):
        jobs += plan(replace(request, targets=(target,), episodes=share))
    return sorted(jobs, key=lambda job: job.seed)


def claim(out: Path, asked: Question) -> None:
    """Writes down what a folder compares, or checks that it is the same.

    Raises:
        UserError: The folder holds another comparison, or cannot be written to.
    """
    file = out / FRONT_FILE
    if file.exists() and any(out.glob(f"*/*/{CELL_FILE}")):
        found = differences(read_question(out).as_dict(), asked.as_dict())
        if found:
            raise UserError(f"{out} holds another comparison ({'; '.join(found)}). Choose another --out.")
        return
    with storage_errors(f"make {out}"):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(asked.as_dict(), indent=1) + "\n").encode())


def read_question(out: Path) -> Question:
    """What a folder compares.

    Raises:
        UserError: It says nothing, or the file is damaged.
    """
    file = out / FRONT_FILE
    if not file.exists():
        raise UserError(f"{out} holds no comparison of fronts: it has no {FRONT_FILE}.")
    with storage_errors(f"read {file}"):
        text = file.read_text()
    try:
        found: Mapping[str, Any] = json.loads(text)
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']}, this Secateur reads {VERSION}")
        return question(str(found["range"]), [str(target) for target in found["targets"]], int(found["episodes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}). Restore it from a copy.") from None
