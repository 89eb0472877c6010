"""Settings of the agents; importing them loads no learning library."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class OffPolicyConfig(BaseModel):
    """What DDPG, TD3 and SAC have in common. Names that Stable-Baselines3 has keep its meaning.

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
        max_gradient_steps: Most gradient steps per episode (about 3 ms each on one core, 6 ms for SAC); learning
            must stay cheap beside the evaluation.
        warmup_episodes: Episodes played by plans before the actor takes over, but no more than a quarter of the search.
        warm_start: Whether these plans come from the profile and not from chance alone.
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
    warm_start: bool = True
    credit: Literal["terminal", "spread", "return"] = "spread"
    baseline_decay: float = Field(default=0.95, ge=0, lt=1)
    scale_reward: bool = True


class NoisyConfig(OffPolicyConfig):
    """What DDPG and TD3 have in common: noise that explores.

    Attributes:
        noise_start: Standard deviation of the exploration noise in the first episode after the warm-up.
        noise_end: Standard deviation in the last episode; between them it decays geometrically.
    """

    noise_start: float = Field(default=0.5, ge=0)
    noise_end: float = Field(default=0.05, gt=0)


class DDPGConfig(NoisyConfig):
    """Settings of the DDPG agent.

    Attributes:
        surrogate: Whether a surrogate of the accuracy weighs plans before one is evaluated.
        proposals: Plans of the actor's that are weighed for each episode.
        strangers: Random plans that are weighed, so that a good region far from all known plans can be found.
        mutants: Mutants of known plans that are weighed, in each round.
        rounds: Rounds of mutation.
        optimism: Standard deviations that are added to the surrogate's guess, so that what is unknown is tried.
        pretrain_episodes: Episodes imagined from the profile alone, learned from before the first evaluation.
        imagined_episodes: Episodes imagined after each evaluated one, with the accuracy that the surrogate gives them.
        relabel: Whether an episode is also remembered under another target of the search's range that it meets.
    """

    surrogate: bool = True
    proposals: int = Field(default=2, ge=0)
    strangers: int = Field(default=300, ge=0)
    mutants: int = Field(default=200, ge=1)
    rounds: int = Field(default=3, ge=1)
    optimism: float = Field(default=1.0, ge=0)
    pretrain_episodes: int = Field(default=0, ge=0)
    imagined_episodes: int = Field(default=1, ge=0)
    relabel: bool = True


class TD3Config(NoisyConfig):
    """Settings of the TD3 agent.

    Attributes:
        policy_delay: Gradient steps of the critics per update of the actor and of the target networks.
        target_policy_noise: Standard deviation of the noise on the target actor's action.
        target_noise_clip: Largest absolute value of that noise.
    """

    # The actor is updated half as often as DDPG's; with the same rate it falls behind.
    actor_learning_rate: float = Field(default=3e-4, gt=0)
    policy_delay: int = Field(default=2, ge=1)
    target_policy_noise: float = Field(default=0.2, ge=0)
    target_noise_clip: float = Field(default=0.5, ge=0)


class SACConfig(OffPolicyConfig):
    """Settings of the SAC agent.

    Attributes:
        ent_coef: Worth of the actor's entropy against the (scaled) reward: a number, or `auto` to learn it such that
            the entropy approaches minus the number of the action's axes.
        ent_coef_start: Where `auto` begins.
        ent_coef_learning_rate: Of `auto`.
    """

    actor_learning_rate: float = Field(default=3e-4, gt=0)
    ent_coef: Literal["auto"] | float = "auto"
    # The library's 1 would drown the reward: rewards are scaled and spread, and a search has few gradient steps.
    ent_coef_start: float = Field(default=0.02, gt=0)
    ent_coef_learning_rate: float = Field(default=1e-3, gt=0)

    @field_validator("ent_coef", mode="before")
    @classmethod
    def _auto_or_number(cls, value: Any) -> Any:
        if value == "auto" or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
            return value
        raise ValueError("must be 'auto' or a number of at least 0")


class TPEConfig(BaseModel):
    """Settings of the agent `tpe`. Names that Optuna has keep its meaning.

    Attributes:
        n_startup_trials: Episodes before the estimators are used; the first plays the profile's plan, the others
            random points.
        n_ei_candidates: Points drawn for each episode, of which the most promising is played.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_startup_trials: int = Field(default=10, ge=1)
    n_ei_candidates: int = Field(default=24, ge=1)


class GPConfig(BaseModel):
    """Settings of the agent `gp`. Names that Optuna has keep its meaning.

    Attributes:
        n_startup_trials: Episodes before the Gaussian process is used; the first plays the profile's plan, the others
            random points.
        n_preliminary_samples: Points among which the search for the most promising one begins (Optuna has 2048).
        n_local_search: Points from which it climbs (Optuna has 10); both set what an episode costs beside the
            evaluation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_startup_trials: int = Field(default=10, ge=1)
    n_preliminary_samples: int = Field(default=512, ge=16)
    n_local_search: int = Field(default=4, ge=2)


class NSGA2Config(BaseModel):
    """Settings of the agent `nsga2`. Names that Optuna has keep its meaning.

    Attributes:
        population_size: Episodes of a generation; the first is the profile's plan and random points.
        crossover_prob: Probability that a child has two parents and not one.
        swapping_prob: Probability that such a child takes a number from its second parent.
        mutation_prob: Probability that a number is drawn anew; None is one number of each child on average.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    population_size: int = Field(default=20, ge=2)
    crossover_prob: float = Field(default=0.9, ge=0, le=1)
    swapping_prob: float = Field(default=0.5, ge=0, le=1)
    mutation_prob: float | None = Field(default=None, ge=0, le=1)


class CEMConfig(BaseModel):
    """Settings of the agent `cem`.

    Attributes:
        population_size: Episodes of a generation.
        elites: How many of the best, of this and earlier generations, the distribution moves to.
        smoothing: How far it moves, 1 is the whole way.
        spread_start: Standard deviation around the profile's plan in the first generation; the box has width 1.
        spread_end: Least standard deviation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    population_size: int = Field(default=15, ge=2)
    elites: int = Field(default=4, ge=1)
    smoothing: float = Field(default=0.9, gt=0, le=1)
    spread_start: float = Field(default=0.3, gt=0)
    spread_end: float = Field(default=0.05, gt=0)

    @model_validator(mode="after")
    def _some_are_left_out(self) -> CEMConfig:
        if self.elites >= self.population_size:
            raise ValueError(f"elites must be fewer than population_size={self.population_size}, but is {self.elites}")
        return self


class AgentConfig(BaseModel):
    """Which agent searches, and its settings.

    Attributes:
        name: One of `agents.registry.AGENTS`.
        ddpg: Settings of the agent `ddpg`.
        td3: Settings of the agent `td3`.
        sac: Settings of the agent `sac`.
        tpe: Settings of the agent `tpe`.
        gp: Settings of the agent `gp`.
        nsga2: Settings of the agent `nsga2`.
        cem: Settings of the agent `cem`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "ddpg"
    ddpg: DDPGConfig = DDPGConfig()
    td3: TD3Config = TD3Config()
    sac: SACConfig = SACConfig()
    tpe: TPEConfig = TPEConfig()
    gp: GPConfig = GPConfig()
    nsga2: NSGA2Config = NSGA2Config()
    cem: CEMConfig = CEMConfig()
