"""Settings of the agents; importing them loads no learning library."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DDPGConfig(BaseModel):
    """Settings of the DDPG agent. Names that Stable-Baselines3 has keep its meaning.

    Attributes:
        net_arch: Widths of the hidden layers of actor and critic.
        actor_learning_rate: Of the actor.
        critic_learning_rate: Of the critic.
        gamma: Discount; 1 since an episode is short and its end is what counts.
        tau: Share of the new weights in the target networks, per gradient step.
        batch_size: Transitions per gradient step.
        buffer_size: Transitions that are remembered.
        gradient_steps: Gradient steps per transition of an episode.
        min_gradient_steps: Fewest gradient steps per episode, for nets of few layers.
        max_gradient_steps: Most gradient steps per episode (about 3 ms each on one core); learning must stay cheap
            beside the evaluation.
        warmup_episodes: Episodes played by plans before the actor takes over, but no more than a quarter of the search.
        noise_start: Standard deviation of the exploration noise in the first episode after the warm-up.
        noise_end: Standard deviation in the last episode; between them it decays geometrically.
        credit: Who gets the reward at the end: the last transition (`terminal`), every transition an equal part
            (`spread`), or every transition the whole episode's return, without bootstrapping (`return`).
        baseline_decay: Memory of the moving average of the returns that is subtracted from them; 0 is the last one.
        scale_reward: Whether returns are divided by their moving standard deviation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    net_arch: tuple[int, ...] = (300, 300)
    actor_learning_rate: float = Field(default=1e-4, gt=0)
    critic_learning_rate: float = Field(default=1e-3, gt=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    tau: float = Field(default=0.01, gt=0, le=1)
    batch_size: int = Field(default=64, ge=1)
    buffer_size: int = Field(default=20_000, ge=1)
    gradient_steps: float = Field(default=1.25, gt=0)
    min_gradient_steps: int = Field(default=12, ge=1)
    max_gradient_steps: int = Field(default=24, ge=1)
    warmup_episodes: int = Field(default=20, ge=0)
    noise_start: float = Field(default=0.5, ge=0)
    noise_end: float = Field(default=0.05, gt=0)
    credit: Literal["terminal", "spread", "return"] = "spread"
    baseline_decay: float = Field(default=0.95, ge=0, lt=1)
    scale_reward: bool = True


class AgentConfig(BaseModel):
    """Which agent searches, and its settings.

    Attributes:
        name: One of `agents.registry.AGENTS`.
        ddpg: Settings of the agent `ddpg`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "ddpg"
    ddpg: DDPGConfig = DDPGConfig()
