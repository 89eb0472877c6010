"""Plays one episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agents.protocol import Behaviour, Rollout
from envs.compression import CompressionEnv
from envs.evaluation import Outcome
from envs.reward import Point


def run_episode(
    env: CompressionEnv,
    behaviour: Behaviour,
    *,
    seed: int,
    episode: int,
    targets: Mapping[str, float] | None = None,
    front: Sequence[Point] = (),
) -> Rollout:
    """Plays one episode; the result depends on the arguments alone, not on what was played before.

    Args:
        env: The environment.
        behaviour: What chooses the actions.
        seed: Seed of the search; with `episode` it fixes every random number of the episode.
        episode: Number of the episode.
        targets: Values by kind; None draws them from the env's ranges.
        front: Points found so far, for the reward `front`.
    """
    rng = np.random.default_rng([seed, episode])
    options = {"front": list(front)} if targets is None else {"front": list(front), "targets": dict(targets)}
    observation, info = env.reset(seed=int(rng.integers(2**31)), options=options)
    observations, actions, rewards = [observation], [], []
    terminated = False
    while not terminated:
        observation, reward, terminated, _, info = env.step(behaviour.act(observation, env, rng))
        observations.append(observation)
        actions.append(info["executed_action"])
        rewards.append(reward)
    outcome: Outcome = info["outcome"]
    return Rollout(
        episode=episode,
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=np.array(rewards, dtype=np.float32),
        outcome=outcome,
        behaviour=behaviour.name,
    )
