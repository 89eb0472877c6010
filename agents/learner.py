"""What learns: Stable-Baselines3's DDPG, TD3 or SAC without an env of its own, and its state as plain arrays.

Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016 (DDPG); Fujimoto et al., Addressing
function approximation error in actor-critic methods, ICML 2018 (TD3); Haarnoja et al., Soft actor-critic algorithms and
applications, 2018 (SAC with a learned entropy coefficient).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy

from agents.actor import Weights, actor_weights
from agents.config import DDPGConfig, OffPolicyConfig, SACConfig, TD3Config
from agents.replay import Replay
from compressors.errors import UserError
from compressors.threads import single_threaded
from envs.compression import CompressionEnv

_WEIGHT_STREAM = 2
_LEARN_STREAM = 3
_FIGURES = ("actor_loss", "critic_loss", "ent_coef")


class _OwnRates:
    """A learning rate for each optimizer, where the library has one for all."""

    rates: tuple[float, ...]

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        # SAC without a learned entropy coefficient has one optimizer less.
        for optimizer, rate in zip(optimizers, self.rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate


class _DDPG(_OwnRates, DDPG):
    pass


class _TD3(_OwnRates, TD3):
    pass


class _SAC(_OwnRates, SAC):
    pass


class Learner:
    """Makes gradient steps from a replay; all of it can be saved and goes on bit for bit.

    Attributes:
        actor: The library's actor.
        replay: Where transitions come from.
    """

    def __init__(self, algorithm: _DDPG | _TD3 | _SAC, env: CompressionEnv, replay: Replay, seed: int) -> None:
        """Sets up an algorithm that was made by `_common`, with weights that depend on the seed alone.

        Args:
            algorithm: Without an env, not yet set up.
            env: Only its spaces are read.
            replay: Where transitions come from.
            seed: Seed of the search.
        """
        self.replay = replay
        self._algorithm = algorithm
        self._seed = seed
        algorithm.observation_space, algorithm.action_space = env.observation_space, env.action_space
        algorithm.n_envs = 1
        algorithm.replay_buffer = replay
        with _torch_randomness([seed, _WEIGHT_STREAM]):
            algorithm._setup_model()
        algorithm.set_logger(Logger(None, []))
        self.actor: BasePolicy = algorithm.actor

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return int(self._algorithm._n_updates)

    @property
    def ready(self) -> bool:
        """Whether the replay holds a batch, or all that it ever will."""
        return self.replay.size() >= min(self._algorithm.batch_size, self.replay.buffer_size)

    def fit(self, steps: int) -> dict[str, float]:
        """Makes gradient steps.

        What is drawn in them (TD3's noise on the target, SAC's actions) depends on the seed and on how many steps were
        made before, so there is no random state to keep.

        Returns:
            `actor_loss` (TD3: where the actor was updated), `critic_loss`, and SAC's `ent_coef`.
        """
        values: dict[str, Any] = self._algorithm.logger.name_to_value
        values.clear()
        # The stream comes last: numpy takes a 0 there for nothing, and updates begin at 0.
        with single_threaded(), _torch_randomness([self._seed, self.updates, _LEARN_STREAM]):
            self._algorithm.train(gradient_steps=steps, batch_size=self._algorithm.batch_size)
        return {name: float(values[f"train/{name}"]) for name in _FIGURES if f"train/{name}" in values}

    def weights(self) -> Weights:
        """A copy of the actor, to be played by numpy."""
        return actor_weights(self.actor.state_dict())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all weights and optimizer states."""
        found = {f"policy/{name}": _copy(value) for name, value in self._algorithm.policy.state_dict().items()}
        if self._log_ent_coef is not None:
            found["log_ent_coef"] = _copy(self._log_ent_coef)
        for who, optimizer in self._optimizers().items():
            for index, state in optimizer.state_dict()["state"].items():
                found |= {f"{who}_optimizer/{index}/{name}": _copy(value) for name, value in state.items()}
        return found

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]], updates: int) -> None:
        """Takes over weights and optimizer states.

        Raises:
            UserError: They are of another architecture or of other settings.
        """
        weights = {name: _tensor(value) for name, value in under(arrays, "policy/").items()}
        learned = self._log_ent_coef
        if (learned is not None) != ("log_ent_coef" in arrays):
            raise UserError(
                "The checkpoint and this search differ in whether ent_coef is 'auto' or a number; resume with the "
                "settings of the search that wrote it."
            )
        try:
            self._algorithm.policy.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                "The checkpoint's actor and critic do not fit; resume with the net_arch, mode and version of the "
                f"search that wrote it ({' '.join(str(error).split())[:160]})."
            ) from None
        if learned is not None:
            learned.data.copy_(_tensor(arrays["log_ent_coef"]))
        for who, optimizer in self._optimizers().items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for path, value in under(arrays, f"{who}_optimizer/").items():
                index, name = path.split("/")
                state.setdefault(int(index), {})[name] = _tensor(value)
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._algorithm._n_updates = updates

    @property
    def _log_ent_coef(self) -> torch.Tensor | None:
        return self._algorithm.log_ent_coef if isinstance(self._algorithm, _SAC) else None

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        algorithm = self._algorithm
        found = {"actor": algorithm.actor.optimizer, "critic": algorithm.critic.optimizer}
        if isinstance(algorithm, _SAC) and algorithm.ent_coef_optimizer is not None:
            found["ent_coef"] = algorithm.ent_coef_optimizer
        return found


def ddpg_learner(config: DDPGConfig, env: CompressionEnv, replay: Replay, seed: int) -> Learner:
    """One critic, and an actor that climbs it."""
    algorithm = _DDPG(**_common(config))
    algorithm.rates = (config.actor_learning_rate, config.critic_learning_rate)
    return Learner(algorithm, env, replay, seed)


def td3_learner(config: TD3Config, env: CompressionEnv, replay: Replay, seed: int) -> Learner:
    """The lesser of two critics, a noisy target, and an actor that is updated less often."""
    algorithm = _TD3(
        policy_delay=config.policy_delay,
        target_policy_noise=config.target_policy_noise,
        target_noise_clip=config.target_noise_clip,
        **_common(config),
    )
    algorithm.rates = (config.actor_learning_rate, config.critic_learning_rate)
    return Learner(algorithm, env, replay, seed)


def sac_learner(config: SACConfig, env: CompressionEnv, replay: Replay, seed: int) -> Learner:
    """The lesser of two critics, and a random actor that is paid for its entropy."""
    axes = env.action_space.shape
    if axes is None:
        raise UserError("SAC needs an action space with a shape.")
    algorithm = _SAC(
        ent_coef=f"auto_{config.ent_coef_start}" if config.ent_coef == "auto" else config.ent_coef,
        # What the library takes for `auto`; but it asks an env of its own for it.
        target_entropy=-float(np.prod(axes)),
        **_common(config),
    )
    algorithm.rates = (config.actor_learning_rate, config.critic_learning_rate, config.ent_coef_learning_rate)
    return Learner(algorithm, env, replay, seed)


def under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _common(config: OffPolicyConfig) -> dict[str, Any]:
    """Arguments of all algorithms; without an env, as the library's own `load` begins."""
    return {
        "policy": "MlpPolicy",
        "env": None,
        "batch_size": config.batch_size,
        "tau": config.tau,
        "gamma": config.gamma,
        # The fused optimizer takes a fifth off the time of a step.
        "policy_kwargs": {"net_arch": list(config.net_arch), "optimizer_kwargs": {"fused": True}},
        "device": "cpu",
        "_init_setup_model": False,
    }


def _copy(value: torch.Tensor) -> NDArray[Any]:
    return np.array(value.detach().numpy())


def _tensor(value: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(value))


@contextmanager
def _torch_randomness(stream: list[int]) -> Iterator[None]:
    """Inside, torch's global random stream starts from `stream`; afterwards it is as it was."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(np.random.default_rng(stream).integers(2**31)))
    try:
        yield
    finally:
        torch.set_rng_state(before)
