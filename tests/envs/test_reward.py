from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.errors import UserError
from envs.reward import REWARDS, Finish, check_front, hypervolume


def test_accuracy_is_the_accuracy() -> None:
    assert REWARDS["accuracy"](Finish(0.7, 100, (0.5, 0.7))) == 0.7


def test_accuracy_flops_is_minus_error_times_log_flops() -> None:
    assert REWARDS["accuracy_flops"](Finish(0.75, 1000, (0.5, 0.75))) == pytest.approx(-0.25 * math.log(1000))
    assert REWARDS["accuracy_flops"](Finish(1.0, 1000, (0.5, 1.0))) == 0


def test_hypervolume_by_hand() -> None:
    assert hypervolume([]) == 0
    assert hypervolume([(0.5, 0.8)]) == pytest.approx(0.5 * 0.8)
    assert hypervolume([(0.5, 0.8), (0.25, 0.4)]) == pytest.approx(0.5 * 0.8 + 0.25 * 0.4)
    assert hypervolume([(0.0, 1.0)]) == pytest.approx(1.0)
    assert hypervolume([(1.0, 0.9), (0.3, 0.0)]) == 0


def test_front_rewards_only_what_is_added() -> None:
    front = ((0.5, 0.8),)
    assert REWARDS["front"](Finish(0.7, 1, (0.6, 0.7), front)) == 0
    assert REWARDS["front"](Finish(0.4, 1, (0.25, 0.4), front)) == pytest.approx(0.25 * 0.4)
    assert REWARDS["front"](Finish(0.8, 1, (0.5, 0.8), ())) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_front_reward_stays_within_its_extremes(front: list[tuple[float, float]], cost: float, good: float) -> None:
    reward = REWARDS["front"](Finish(good, 1, (cost, good), tuple(front)))
    assert 0 <= reward <= (1 - cost) * good + 1e-9


def test_fronts_are_checked() -> None:
    assert check_front([]) == ()
    assert check_front([(0.5, 0.8)]) == ((0.5, 0.8),)
    for bad in ([(0.5,)], [(0.5, float("nan"))], "front", [1, 2], [(1, 2), (3,)]):
        with pytest.raises(UserError, match="list of finite pairs"):
            check_front(bad)


def test_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        REWARDS["acuracy"]
    assert np.all([REWARDS.entry(name).summary for name in REWARDS])
