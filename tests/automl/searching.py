"""A search small enough for tests: an environment, an agent and a run folder, all of a few lines.

Run as a script it is the process that the tests kill: `python searching.py KIND RUN EPISODES STALENESS KILL_AT WHERE`.
KIND is `tiny`, or `ddpg` for the real agent and environment on a toy net.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.protocol import AgentState, Rollout
from automl import search_loop
from automl.archive import Archive
from automl.episode import Guarded, Player
from automl.executor import InlineExecutor
from automl.ledger import Ledger, TrialPolicy, TrialRecord, trial_id
from automl.run_info import RunInfo
from automl.runs import Run, new_run
from automl.search_loop import LoopConfig, search
from compressors.cost import Allocation, Costs
from envs.evaluation import Evaluation, Outcome

ORIGINAL = {"accuracy": 0.9, "macs": 1000, "flops": 2000, "params": 100, "size_bytes": 400, "bops": 1_024_000}
STEPS = 3


class TinyEnv(gym.Env):
    """Three steps; the mean action is the cost, the reward is the accuracy plus what the front makes of it."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, evaluate):
        self._evaluate = evaluate

    def _observe(self):
        return np.array([len(self.actions) / STEPS, self.target, *self.actions[-1:], 0, 0], np.float32)[:4]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions, self.target = [], options["targets"]["macs"]
        self.front = list(options.get("front") or ())
        self.evaluation_seed = int(self.np_random.integers(2**31))
        return self._observe(), {}

    def step(self, action):
        self.actions.append(float(np.clip(action[0], -1, 2 * self.target - 1)))
        info: dict[str, Any] = {"executed_action": np.array(self.actions[-1:], np.float32), "l2": 0.0}
        done = len(self.actions) == STEPS
        reward = 0.0
        if done:
            kept = np.array([round(500 * (action + 1)) for action in self.actions], dtype=np.int64)
            bits = np.full(STEPS, 32)
            allocation = Allocation(kept, bits, bits)
            found = self._evaluate(allocation, self.evaluation_seed, -np.inf)
            macs = int(kept.sum()) // STEPS + 1
            # The front given to the episode shows in its reward, hence in the ledger.
            reward = found.accuracy + sum(ratio * accuracy for ratio, accuracy in self.front)
            info["outcome"] = Outcome(
                allocation=allocation,
                costs=Costs(macs, 50, 200, macs * 1024),
                targets={"macs": self.target},
                limits={"macs": 1000},
                accuracy=found.accuracy,
                l2=0.25,
                front_point=(macs / 1000, found.accuracy),
                rewards={"terminal": reward},
                seconds=dict(found.seconds),
            )
        return self._observe(), reward, done, False, info


def evaluate(allocation: Allocation, seed: int, bar: float) -> Evaluation:
    noise = np.random.default_rng(seed).normal() / 100
    return Evaluation(float(1 - np.exp(-allocation.kept.mean() / 300) + noise) * 0.9, {"evaluate": 0.001})


@dataclass(frozen=True)
class TinyBehaviour:
    center: float
    name: str = "tiny"

    def act(self, observation, env, rng):
        return np.clip(rng.normal(self.center, 0.3, 1), -1, 1).astype(np.float32)


class TinyAgent:
    """Hill climbing with random state of its own, so that a wrong resume shows."""

    name = "tiny"

    def __init__(self, seed: int = 0, size: int = 8) -> None:
        self.rng = np.random.default_rng(seed)
        self.center, self.best = 0.0, -np.inf
        self.memory = np.zeros(size, np.float32)
        self.issued: dict[int, float] = {}
        self.learned: list[int] = []

    def behaviour(self, episode: int) -> TinyBehaviour:
        if episode not in self.issued:
            self.issued[episode] = float(self.center + self.rng.normal() / 5)
        return TinyBehaviour(self.issued[episode])

    def learn(self, rollout: Rollout) -> dict[str, float]:
        reward = float(rollout.rewards.sum())
        center = self.issued.pop(rollout.episode)
        if reward > self.best:
            self.best, self.center = reward, center
        self.memory = np.roll(self.memory, 1) + np.float32(reward)
        self.learned.append(rollout.episode)
        return {}

    def state(self) -> AgentState:
        meta = {
            "rng": self.rng.bit_generator.state,
            "center": self.center,
            "best": self.best if np.isfinite(self.best) else None,
            "issued": {str(episode): value for episode, value in self.issued.items()},
        }
        return AgentState(arrays={"memory": self.memory.copy()}, meta=meta)

    def load_state(self, state: AgentState) -> None:
        self.rng.bit_generator.state = state.meta["rng"]
        self.center = state.meta["center"]
        self.best = -np.inf if state.meta["best"] is None else state.meta["best"]
        self.issued = {int(episode): value for episode, value in state.meta["issued"].items()}
        self.memory = state.arrays["memory"].copy()


def schedule(episode: int) -> dict[str, float]:
    return {"macs": 0.3 + 0.1 * (episode % 5)}


def make_run(root: Path, name: str = "tiny") -> Run:
    run = new_run(root, name)
    run.write_info(
        RunInfo(
            search_id=name,
            config={"episodes": 12},
            net="tiny",
            net_fingerprint="ab" * 32,
            fingerprint="cd" * 32,
            original=ORIGINAL,
        )
    )
    return run


def make_player(function=evaluate) -> Player:
    guard = Guarded(function)
    return Player(TinyEnv(guard), guard)


def go(run: Run, episodes: int = 12, staleness: int = 1, seed: int = 0, agent: Any = None, **more: Any) -> Archive:
    player = more.pop("player", None) or make_player()
    config = LoopConfig(episodes=episodes, seed=seed, staleness=staleness)
    settings = {"checkpoint_s": 0.0, **more}
    return search(player, agent or TinyAgent(seed), InlineExecutor(), run, config, schedule, **settings)


def make_record(episode: int = 0, **changes: Any) -> TrialRecord:
    macs = changes.pop("macs", 500)
    facts: dict[str, Any] = {
        "trial_id": trial_id(episode),
        "episode": episode,
        "target": {"macs": 0.5},
        "actions": ((0.1,), (-0.30000001192092896,)),
        "policy": TrialPolicy(kept=(3, 4), weight_bits=(32, 8), activation_bits=(32, 32)),
        "costs": {"macs": macs, "flops": 2 * macs, "params": 50, "size_bytes": 200, "bops": 1024 * macs},
        "accuracy_search": 0.8,
        "l2": 0.25,
        "reward": 0.7,
        "behaviour": "tiny",
        "seconds": {"rollout": 0.1, "evaluate": 0.5},
    }
    return TrialRecord(**{**facts, **changes})


def go_ddpg(run: Run, episodes: int = 24, staleness: int = 1, seed: int = 0, checkpoint_s: float = 0.0) -> Archive:
    """The real agent and environment on a toy net; its evaluation is a formula."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch
    from toys import by_profile, chain, make_profile

    from agents.config import AgentConfig, DDPGConfig
    from agents.registry import make_agent
    from envs.compression import CompressionEnv
    from envs.config import EnvConfig
    from envs.target import parse_targets, sample_targets

    torch.set_num_threads(1)
    table = chain()
    profile = make_profile(table)
    guard = Guarded(by_profile(table, profile))
    config = EnvConfig(mode="both", targets=("macs=0.3..0.8", "size=0.2"), reward="front")
    env = CompressionEnv(table, profile, guard, config)
    settings = AgentConfig(ddpg=DDPGConfig(net_arch=(32, 32), batch_size=16, warmup_episodes=4))
    agent = make_agent(settings, env, episodes, seed)
    targets = parse_targets(config.targets)
    loop = LoopConfig(episodes=episodes, seed=seed, staleness=staleness)
    return search(
        Player(env, guard), agent, InlineExecutor(), run, loop, lambda episode: sample_targets(targets, episode, seed),
        checkpoint_s=checkpoint_s,
    )  # fmt: skip


KINDS = {"tiny": go, "ddpg": go_ddpg}


def _die_at(episode: int, where: str) -> None:
    """Arranges a SIGKILL of this process around the recording of an episode."""
    save, append = search_loop.save_checkpoint, Ledger.append

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killing_save(path, snapshot):
        due = snapshot.next_episode == episode + 1
        if due and where == "between":
            die()
        save(path, snapshot)
        if due and where == "after":
            die()

    def killing_append(self, record):
        if record.episode == episode and where == "half-line":
            with self.path.open("a") as file:
                file.write(record.line()[:40])
                file.flush()
            die()
        append(self, record)
        if record.episode == episode and where == "line":
            die()

    search_loop.save_checkpoint = killing_save
    Ledger.append = killing_append  # type: ignore[method-assign]


if __name__ == "__main__":
    kind, folder, count, lag, kill_at, place = sys.argv[1:]
    if place != "never":
        _die_at(int(kill_at), place)
    rarely = {"checkpoint_s": float("inf")} if place == "line" else {}
    KINDS[kind](Run(Path(folder)), int(count), int(lag), **rarely)
