"""How long a search takes beyond the forward passes that it cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from agents.registry import make_agent
from automl.candidate import Evaluator, for_inference
from automl.config import SearchConfig
from automl.episode import Episode, Guarded, Player, play
from automl.loading import load_named
from automl.task import Accuracy, Task, task_of
from compressors.compressor import Compressor
from compressors.grouping import layer_table
from envs.compression import CompressionEnv
from envs.target import parse_targets, sample_targets


@dataclass(frozen=True)
class Speed:
    """Medians over the episodes of one search without finetuning, in seconds unless the name says otherwise.

    Attributes:
        net: The net.
        images: Search images that each candidate is judged on.
        threads: Threads of torch.
        table_s: Layer table.
        profile_s: Statistics and profile, not from the cache.
        forward_s: Plain forward passes of the same candidates over the same images.
        episode_s: A whole episode: decisions, assembling, judging, learning.
        episode_ratio: Episode over forward, pair by pair.
        assemble_ms: Building a candidate.
        assemble_share: The same as a share of the episode.
        learn_share: Learning as a share of the episode.
    """

    net: str
    images: int
    threads: int
    table_s: float
    profile_s: float
    forward_s: float
    episode_s: float
    episode_ratio: float
    assemble_ms: float
    assemble_share: float
    learn_share: float

    def as_dict(self) -> dict[str, object]:
        """Figures by name."""
        return asdict(self)


def measure(config: SearchConfig, progress: Callable[[str, int, int], None] | None = None) -> Speed:
    """Runs the episodes of a search and takes each candidate's plain forward time in between.

    Args:
        config: The search.
        progress: Called with the net, episodes done and in all.
    """
    loaded, splits = load_named(config.net, config.data)
    task = task_of(splits, batch_size=config.data.batch_size)
    begun = time.perf_counter()
    table = layer_table(loaded.net, task.example, loaded.name)
    table_s = time.perf_counter() - begun
    compressor = Compressor(config.compressor)
    begun = time.perf_counter()
    profile = compressor.prepare(loaded.net, table, task.calibration)
    profile_s = time.perf_counter() - begun
    guard = Guarded(Evaluator(loaded.net, compressor, task, config.evaluation))
    player = Player(CompressionEnv(table, profile, guard, config.env), guard)
    agent = make_agent(config.agent, player.env, config.loop.episodes, config.loop.seed)
    targets = parse_targets(config.env.targets)
    rows = []
    for episode in range(config.loop.episodes):
        begun = time.perf_counter()
        values = sample_targets(targets, episode, config.loop.seed)
        played = play(player, Episode(agent.behaviour(episode), config.loop.seed, episode, values, ()))
        learning = time.perf_counter()
        agent.learn(played.rollout)
        ended = time.perf_counter()
        policy = compressor.policy(played.rollout.outcome.allocation)
        forward = forward_time(for_inference(compressor.apply(loaded.net, policy), compressor), task)
        build = played.rollout.outcome.seconds["build"]
        rows.append((forward, ended - begun, build, ended - learning))
        if progress is not None:
            progress(f"Episodes of {loaded.name}", episode + 1, config.loop.episodes)
    # The agent learns only after its warm-up, and the first candidates fill caches.
    rows = rows[len(rows) // 3 :]
    return Speed(
        net=loaded.name,
        images=len(splits.search),
        threads=torch.get_num_threads(),
        table_s=table_s,
        profile_s=profile_s,
        forward_s=statistics.median(row[0] for row in rows),
        episode_s=statistics.median(row[1] for row in rows),
        episode_ratio=statistics.median(row[1] / row[0] for row in rows),
        assemble_ms=1000 * statistics.median(row[2] for row in rows),
        assemble_share=statistics.median(row[2] / row[1] for row in rows),
        learn_share=statistics.median(row[3] / row[1] for row in rows),
    )


def forward_time(net: nn.Module, task: Task) -> float:
    """Seconds that a net takes for the search images, with nothing done to its outputs."""
    assert isinstance(task.measure_search, Accuracy)
    with torch.inference_mode():
        begun = time.perf_counter()
        for inputs, _ in task.measure_search.batches:
            net(inputs)
        return time.perf_counter() - begun


def help_time(runs: int = 5) -> float:
    """Median seconds of `secateur --help` as a process of its own."""
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from automl.cli import main; main(['--help'])"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found.append(time.perf_counter() - begun)
    return statistics.median(found)
