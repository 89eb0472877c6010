"""Trials that the ledger has and the checkpoint lacks: an agent learns from them again, and nothing is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agents.protocol import Agent
from automl.archive import Archive
from automl.episode import Episode, Played, Player, make_record, play_with
from automl.ledger import DRIVER_PHASES, TrialRecord
from automl.run_info import RunInfo
from compressors.cost import Allocation
from envs.evaluation import Evaluation


class LoopFacts(Protocol):
    """What matters here of a search's settings."""

    @property
    def episodes(self) -> int:
        """How many trials."""

    @property
    def staleness(self) -> int:
        """How many episodes the agent lags behind."""


_NOT_EVALUATED = (*DRIVER_PHASES, "rollout")


def play_back(
    player: Player,
    agent: Agent,
    records: Sequence[TrialRecord],
    first: int,
    config: LoopFacts,
    asked_for: Callable[[int, Sequence[TrialRecord]], Episode],
) -> int:
    """Brings an agent from the state of a checkpoint to that after the last recorded trial.

    Args:
        player: The environment; its evaluation is not called.
        agent: As it was after `first` episodes.
        records: The ledger.
        first: The first episode that the agent has not learned from.
        config: Of the search.
        asked_for: What an episode is asked for with, given the trials recorded before it was asked for.

    Returns:
        How many trials are those of the ledger: all, unless the agent would choose differently here, as another machine
        type or version of torch may make it; it has learned from so many.
    """
    asked = {}

    def ask(episode: int, known: Sequence[TrialRecord]) -> None:
        if episode < len(records):
            asked[episode] = asked_for(episode, known)
        elif episode < config.episodes:
            agent.behaviour(episode)  # at this moment, as then: it depends on what has been learned so far

    for episode in range(first, first + config.staleness):
        ask(episode, records[: max(0, episode - config.staleness + 1)])
    for episode in range(first, len(records)):
        played = _as_recorded(player, asked.pop(episode), records[episode])
        if make_record(played, records[episode].target, {}).policy != records[episode].policy:
            return episode
        agent.learn(played.rollout)
        ask(episode + config.staleness, records[: episode + 1])
    return len(records)


def asked_by(
    agent: Agent, seed: int, schedule: Callable[[int], dict[str, float]], info: RunInfo
) -> Callable[[int, Sequence[TrialRecord]], Episode]:
    """What a search asks for an episode with, after the given trials, of which there are more each time."""
    archive = Archive(info.original, info.cost)

    def ask(episode: int, known: Sequence[TrialRecord]) -> Episode:
        for record in known[len(archive.records) :]:
            archive.add(record)
        return Episode(agent.behaviour(episode), seed, episode, schedule(episode), tuple(archive.snapshot()))

    return ask


def _as_recorded(player: Player, asked: Episode, record: TrialRecord) -> Played:
    """The episode with the evaluation that the ledger tells of."""

    def recall(allocation: Allocation, seed: int, bar: float) -> Evaluation:
        if record.status == "failed":
            raise _Recorded(record.error)
        phases = {name: value for name, value in record.seconds.items() if name not in _NOT_EVALUATED}
        return Evaluation(record.accuracy_search, phases, record.images, record.status != "stopped")

    return play_with(player, asked, recall)


class _Recorded(Exception):
    """A failure that the ledger has."""
