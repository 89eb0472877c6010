from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from compressors.errors import UserError
from envs.config import EnvConfig
from envs.decisions import Choice, DecisionSpace
from tests.toys import chain, depthwise, residual, two_headed


def layers_of(space: DecisionSpace) -> list[str]:
    return [space.table.layers[step.layer].name for step in space.steps]


def test_sparsity_has_a_step_for_each_head_of_an_enabled_group() -> None:
    assert layers_of(DecisionSpace(residual(), EnvConfig())) == ["block1.conv1", "block2.conv1"]
    assert layers_of(DecisionSpace(residual(), EnvConfig(residual=True))) == ["stem", "block1.conv1", "block2.conv1"]
    assert layers_of(DecisionSpace(depthwise(), EnvConfig())) == ["stem", "expand", "project"]


def test_bits_have_a_step_for_every_layer_but_fixed_ones() -> None:
    space = DecisionSpace(chain(), EnvConfig(mode="bits"))
    assert layers_of(space) == ["conv1", "conv2", "conv3"]
    assert len(DecisionSpace(chain(), EnvConfig(mode="bits", first_last_bits=None))) == 5
    assert space.smallest().weight_bits.tolist() == [8, 2, 2, 2, 8]
    assert space.smallest().activation_bits.tolist() == [32] * 5


def test_levels_are_multiples_never_below_the_minimum_and_end_with_everything() -> None:
    (first, *_) = DecisionSpace(chain((10, 12)), EnvConfig(min_preserve_ratio=0.25, channel_multiple=4)).steps
    assert first.kept[:, 0].tolist() == [4, 8, 10]
    (only, *_) = DecisionSpace(chain((30, 12)), EnvConfig(min_preserve_ratio=0.1)).steps
    assert only.kept[0, 0] == 3


def test_one_ratio_serves_every_group_that_a_layer_heads() -> None:
    space = DecisionSpace(two_headed(), EnvConfig(min_preserve_ratio=0.2))
    split = space.steps[0]
    assert split.groups.tolist() == [0, 1]
    assert split.kept[-1].tolist() == [6, 9]
    np.testing.assert_allclose(split.kept[1:, 0] / 6, split.ratios[1:], atol=0.5 / 6 + 1e-9)
    assert (np.diff(split.kept, axis=0) >= 0).all()


def test_actions_mean_the_same_ratio_at_every_step() -> None:
    space = DecisionSpace(chain((10, 20)), EnvConfig(min_preserve_ratio=0.1))
    for index, step in enumerate(space.steps):
        half = int(np.argmin(np.abs(step.ratios - 0.5)))
        np.testing.assert_allclose(space.action(index, Choice(half, 0, 0)), [2 * 0.4 / 0.9 - 1], rtol=1e-6)
        assert space.action(index, step.full).tolist() == [1.0]


def test_allocations_follow_the_choices() -> None:
    space = DecisionSpace(residual(), EnvConfig(mode="both", first_last_bits=None))
    choices = [Choice(0, 3, 0)] * len(space)
    allocation = space.allocate(choices)
    assert allocation.kept.tolist() == [8, 1, 2]
    assert allocation.weight_bits.tolist() == [5] * 6
    assert space.actions(choices).shape == (6, 2)


def test_nothing_to_decide_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="min_preserve_ratio"):
        DecisionSpace(chain(), EnvConfig(min_preserve_ratio=1.0))
    with pytest.raises(UserError, match="first_last_bits"):
        DecisionSpace(chain(), EnvConfig(mode="bits", min_bits=8))


def test_contradictory_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_bits must be at most"):
        EnvConfig(min_bits=8, max_bits=4)
    with pytest.raises(ValidationError, match="activation_bits needs mode"):
        EnvConfig(activation_bits=True)
    with pytest.raises(ValidationError, match="extra"):
        EnvConfig.model_validate({"ratio": 0.5})
