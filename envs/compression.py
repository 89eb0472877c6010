"""The environment in which an agent decides, layer by layer, how much to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from compressors.cost import CostModel
from compressors.errors import UserError
from compressors.layers import LayerTable
from compressors.profile import Profile
from envs.budget import Budget, limits_of
from envs.config import EnvConfig
from envs.decisions import Action, Choice, DecisionSpace
from envs.evaluation import Evaluate, Outcome, bar_of
from envs.observation import HIGH, LOW, Observation, Observer
from envs.reward import REWARDS, Finish, Point, check_front
from envs.sensitivity import check_profile, step_errors
from envs.target import check_values, front_cost, parse_targets, sample_targets

_NEAR_TARGET = 0.97
"""A candidate of at least this part of the target's cost was made for the target."""


class CompressionEnv(gym.Env[Observation, Action]):
    """Decides how much of each layer to keep and how many bits to hold it in, under hard targets on the cost.

    ## Steps

    One step for each layer that has something to decide, in the order of execution. In mode `sparsity` these are the
    layers that head a group of channels which may be cut (`residual=False` leaves alone the groups tied by sums of
    branches); one preserve ratio serves every group that the layer heads. In modes `bits` and `both` every
    layer is a step, but for a first and last layer whose bits are fixed and that have nothing to cut.

    ## Action

    `Box(-1, 1, (n,), float32)`, the numbers in this order as far as the mode has them:

    | number | -1 | +1 | modes |
    |---|---|---|---|
    | `preserve_ratio` | `min_preserve_ratio` | everything kept | `sparsity`, `both` |
    | `weight_bits` | `min_bits` | `max_bits` | `bits`, `both` |
    | `activation_bits` | `min_bits` | `max_bits` | `bits`, `both` with `activation_bits=True` |

    Between the ends the scale is linear, rounded to what exists (whole multiples of `channel_multiple`, whole bits).
    The action is then projected: the nearest choice from which every target can still be met, with all later decisions
    at their minimum, is executed. `info["executed_action"]` is that choice as an action, and executing it again gives
    the same choice. A number with nothing to decide at a step is ignored and reported as 1.

    ## Observation

    `Box` of `len(COLUMNS)` float32; `envs.observation.COLUMNS` is the table (name, meaning, unit, range): facts of
    the layer, profile errors of cutting it, costs spent and left, targets, slack, last executed action, largest
    feasible choice, error so far. It describes the step at hand. After the last step the layer's
    facts are 0 and its position is 1.

    ## Reward

    Each step: minus `l2_weight` x the relative squared L2 error of the executed choice (sum over the groups headed,
    plus bits; each term in 0..1), so between -`l2_weight` x (groups + 2) and 0. The last step adds the form `reward`:

    | form | value | extremes |
    |---|---|---|
    | `accuracy` | accuracy | 0..1 |
    | `accuracy_flops` | -(1 - accuracy) x ln(flops) | -ln(flops of the net)..0 |
    | `front` | hypervolume that (cost ratio, accuracy) adds to the given front | 0..1 |

    ## Start and end

    `reset(seed=..., options={"targets": {"macs": 0.5}, "front": [(cost_ratio, accuracy), ...]})`; both options may be
    left out. Without targets they are drawn from the settings' ranges by the env's own random stream. An episode is
    `terminated` by its last layer and never truncated. The last `info` holds `outcome`, an `envs.evaluation.Outcome`,
    every cost of which is within its limit. Every `info` of a step holds `l2`, the step's error.

    The env is deterministic: `evaluate` gets a seed drawn at the reset, and as its bar the best accuracy that the given
    front has at the candidate's cost; with the reward `accuracy`, and for a candidate of nearly the target's cost, the
    best within the target. See `envs.evaluation.Evaluate`.

    ## Versions

    * v0: first version. A change of the observation's columns or of an action's meaning makes a new one.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # an instance variable in the base class's eyes

    def __init__(
        self,
        table: LayerTable,
        profile: Profile,
        evaluate: Evaluate,
        config: EnvConfig | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Makes the environment.

        Args:
            table: Layers and groups of the net.
            profile: What each choice costs in error, from the calibration split.
            evaluate: Measures a finished allocation on the search split.
            config: Settings.
            render_mode: None; there is nothing to draw.

        Raises:
            UserError: Nothing to decide, a profile of another net, an unknown reward, or a target out of reach.
        """
        self.config = config or EnvConfig()
        self.render_mode = render_mode
        self.table = table
        self.profile = profile
        self.space = DecisionSpace(table, self.config)
        check_profile(profile, table)
        self.errors = step_errors(profile, self.space)
        self.costs = CostModel(table)
        self.targets = parse_targets(self.config.targets)
        self.limits = limits_of({target.kind: target.low for target in self.targets}, self.costs.original)
        self.budget = Budget(self.space, self.costs, self.limits)
        self.choices: list[Choice] = []
        self._evaluate = evaluate
        self._reward = REWARDS[self.config.reward]
        self.observer = Observer(self.space, self.costs, profile)
        self._values = {target.kind: target.low for target in self.targets}
        self.front: tuple[Point, ...] = ()
        self._l2 = 0.0
        self._seed = 0
        self._running = False
        self.action_space = Box(-1.0, 1.0, (len(self.space.axes),), np.float32)
        self.observation_space = Box(LOW.astype(np.float32), HIGH.astype(np.float32), dtype=np.float32)

    @property
    def position(self) -> int:
        """Number of the step at hand, from 0."""
        return len(self.choices)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode; see the class for the options.

        Raises:
            UserError: An unknown option, a malformed target or front, or a target out of reach.
        """
        super().reset(seed=seed)
        given = dict(options or {})
        targets, front = given.pop("targets", None), given.pop("front", None)
        if given:
            raise UserError(f"reset takes the options targets and front, but got {', '.join(map(repr, given))}.")
        self._seed = int(self.np_random.integers(2**31))
        self._values = self._targets(targets)
        self.front = () if front is None else check_front(front)
        self.limits = limits_of(self._values, self.costs.original)
        self.budget = Budget(self.space, self.costs, self.limits)
        self.choices = []
        self._l2 = 0.0
        self._running = True
        return self._observe(), {"targets": dict(self._values)}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Executes the feasible choice nearest to the action.

        Raises:
            UserError: The action has the wrong shape, NaN, or a number outside -1..1; no episode is running; or the
                evaluation's accuracy is not a number.
        """
        if not self._running:
            raise UserError("No episode is running: call reset() before step().")
        choice = self.budget.project(self.space.point(self._checked(action)))
        executed = self.space.action(self.position, choice)
        l2 = self.errors[self.position].of(choice)
        self.budget.commit(choice)
        self.choices.append(choice)
        self._l2 += l2
        reward = -self.config.l2_weight * l2
        info: dict[str, Any] = {"executed_action": executed, "l2": l2}
        terminated = self.position == len(self.space)
        if terminated:
            self._running = False
            outcome = self._finish()
            info["outcome"] = outcome
            reward += outcome.rewards["terminal"]
        return self._observe(), float(reward), terminated, False, info

    def _finish(self) -> Outcome:
        allocation = self.budget.allocation
        costs = self.costs.of(allocation)
        kind = front_cost(self.limits)
        ratio = costs.of(kind) / self.costs.original.of(kind)
        evaluation = self._evaluate(allocation, self._seed, bar_of(self.front, self._reach(ratio, kind)))
        if not np.isfinite(evaluation.accuracy):
            raise UserError(
                f"The evaluation must give a finite accuracy, but gave {evaluation.accuracy} for a net of "
                f"{costs.macs:,} macs; check the weights and outputs for NaN."
            )
        point = (ratio, evaluation.accuracy)
        terminal = self._reward(Finish(evaluation.accuracy, costs.flops, point, self.front))
        penalty = -self.config.l2_weight * self._l2
        return Outcome(
            allocation=allocation,
            costs=costs,
            targets=dict(self._values),
            limits=dict(self.limits),
            accuracy=evaluation.accuracy,
            l2=self._l2,
            front_point=point,
            rewards={"terminal": terminal, "l2": penalty, "total": terminal + penalty},
            seconds=dict(evaluation.seconds),
            images=evaluation.images,
            complete=evaluation.complete,
        )

    def _reach(self, ratio: float, kind: str) -> float:
        """The largest cost ratio that a front member may have to be a rival of this candidate."""
        if self.config.reward != "accuracy" or kind not in self.limits:
            return ratio
        # Candidates just below the target were made for it, and compete with everything that meets it.
        target = self.limits[kind] / self.costs.original.of(kind)
        return target if ratio >= _NEAR_TARGET * target else ratio

    def _observe(self) -> Observation:
        last = self.choices[-1] if self.choices else None
        return self.observer.observe(self.budget, self.limits, last, self._l2)

    def _targets(self, given: Mapping[str, float] | None) -> dict[str, float]:
        if given is None:
            return sample_targets(self.targets, 0, int(self.np_random.integers(2**31)))
        if not isinstance(given, Mapping):
            raise UserError(f'The option targets must be a mapping such as {{"macs": 0.5}}, but got {given!r}.')
        return check_values(given)

    def _checked(self, action: Action) -> Action:
        array = np.asarray(action)
        where = f"at step {self.position} of {len(self.space)}"
        if array.shape != self.action_space.shape or array.dtype.kind not in "fiu":
            raise UserError(
                f"An action must be {len(self.space.axes)} number(s) ({', '.join(self.space.axes)}), "
                f"but got {action!r} {where}."
            )
        if not (np.abs(array) <= 1 + 1e-6).all():
            raise UserError(f"Every number of an action must be in -1..1, but got {array.tolist()} {where}.")
        return np.asarray(array.clip(-1, 1), dtype=np.float32)
