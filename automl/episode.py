"""One episode, played anywhere: an evaluation that cannot stop a search, and the record of what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from agents.protocol import Behaviour, Rollout
from agents.rollout import run_episode
from automl.executor import WorkLost
from automl.ledger import TrialPolicy, TrialRecord, trial_id
from compressors.cost import Allocation
from compressors.errors import UserError
from envs.compression import CompressionEnv
from envs.evaluation import Evaluate, Evaluation


class Guarded:
    """An evaluation that never stops a search: what fails counts as the floor and is remembered.

    Bad input (`UserError`) is passed on, since no candidate would fare better.

    Args:
        evaluate: The evaluation; may raise or give numbers that are not finite.
        original: What the original net gets, which places the floor: 0, or ten times a negative metric.

    Attributes:
        failure: Why the last evaluation failed, else empty.
    """

    def __init__(self, evaluate: Evaluate, original: float = 1.0) -> None:
        self.evaluate = evaluate
        # No candidate that works is to be worse than one that fails, also where the metric is negative.
        self.floor = 0.0 if original >= 0 else 10 * original
        self.failure = ""

    def __call__(self, allocation: Allocation, seed: int, bar: float) -> Evaluation:
        """Evaluates, at the floor where that fails."""
        self.failure = ""
        begun = time.perf_counter()
        try:
            found = self.evaluate(allocation, seed, bar)
        except UserError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            self.failure = f"{type(error).__name__}: {text[:200]}"
        else:
            if math.isfinite(found.accuracy):
                return found
            self.failure = f"the evaluation gave {found.accuracy}"
        return Evaluation(accuracy=self.floor, seconds={"evaluate": time.perf_counter() - begun})


@dataclass(frozen=True)
class Played:
    """What comes back from an episode.

    Attributes:
        rollout: The transitions and the outcome.
        failure: Why its evaluation failed, else empty.
        seconds: Of the whole episode.
    """

    rollout: Rollout
    failure: str
    seconds: float


@dataclass(frozen=True)
class Player:
    """What plays episodes: given to the executor once.

    Attributes:
        env: The environment, made with `guard` as its evaluation.
        guard: The guarded evaluation.
    """

    env: CompressionEnv
    guard: Guarded

    def use_device(self, device: str) -> None:
        """Makes candidates compute on a device, where the evaluation can; a worker's need not be the driver's."""
        use = getattr(self.guard.evaluate, "use_device", None)
        if use is not None:
            use(device)


@dataclass(frozen=True)
class Episode:
    """What an episode is played with; its result depends on nothing else.

    Attributes:
        behaviour: What chooses the actions.
        seed: Of the search.
        number: Of the episode.
        targets: Values by kind.
        front: Points found so far.
    """

    behaviour: Behaviour
    seed: int
    number: int
    targets: dict[str, float]
    front: tuple[tuple[float, float], ...]


def play(player: Player, asked: Episode) -> Played:
    """Plays one episode, in whatever process."""
    begun = time.perf_counter()
    player.guard.failure = ""
    rollout = run_episode(
        player.env, asked.behaviour, seed=asked.seed, episode=asked.number, targets=asked.targets, front=asked.front
    )
    return Played(rollout, player.guard.failure, time.perf_counter() - begun)


def play_lost(player: Player, asked: Episode, lost: WorkLost) -> Played:
    """Plays an episode whose evaluation nobody survived: it fails, at the floor."""

    def fail(allocation: Allocation, seed: int, bar: float) -> Evaluation:
        raise lost

    return play_with(player, asked, fail)


def play_with(player: Player, asked: Episode, evaluate: Evaluate) -> Played:
    """Plays one episode with another evaluation than the player's."""
    own, player.guard.evaluate = player.guard.evaluate, evaluate
    try:
        return play(player, asked)
    finally:
        player.guard.evaluate = own


def make_record(played: Played, target: Mapping[str, float], seconds: Mapping[str, float]) -> TrialRecord:
    """The ledger's record of an episode.

    Args:
        played: The episode.
        target: Its targets by kind.
        seconds: Of the driver's phases.
    """
    rollout, outcome = played.rollout, played.rollout.outcome
    allocation = outcome.allocation
    phases = {name: float(value) for name, value in outcome.seconds.items()}
    return TrialRecord(
        trial_id=trial_id(rollout.episode),
        episode=rollout.episode,
        target={name: float(value) for name, value in target.items()},
        actions=tuple(tuple(float(value) for value in action) for action in rollout.actions),
        policy=TrialPolicy(
            kept=tuple(allocation.kept.tolist()),
            weight_bits=tuple(allocation.weight_bits.tolist()),
            activation_bits=tuple(allocation.activation_bits.tolist()),
        ),
        costs=outcome.costs.as_dict(),
        accuracy_search=float(outcome.accuracy),
        l2=float(outcome.l2),
        reward=float(rollout.rewards.sum(dtype="float64")),
        behaviour=rollout.behaviour,
        status="failed" if played.failure else "done" if outcome.complete else "stopped",
        error=played.failure,
        images=outcome.images,
        seconds={"rollout": max(0.0, played.seconds - sum(phases.values())), **phases, **seconds},
    )
