from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.cost import Costs
from compressors.errors import UserError
from envs.target import Target, check_values, limit, parse_targets, sample_targets

ORIGINAL = Costs(macs=1000, params=100, size_bytes=400, bops=1_024_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs=0.5", Target("macs", 0.5, 0.5)),
        ("macs=0.3..0.8", Target("macs", 0.3, 0.8)),
        ("macs=1", Target("macs", 1.0, 1.0)),
        ("MACS = 50%", Target("macs", 0.5, 0.5)),
        ("macs=20e6", Target("macs", 20e6, 20e6)),
        ("macs=20M", Target("macs", 20e6, 20e6)),
        ("size=100kB", Target("size", 100e3, 100e3)),
        ("size=1KiB..2KiB", Target("size", 1024.0, 2048.0)),
        ("params=200k", Target("params", 200e3, 200e3)),
        ("bops=.05", Target("bops", 0.05, 0.05)),
    ],
)
def test_parses_what_a_user_types(text: str, expected: Target) -> None:
    assert parse_targets([text]) == (expected,)
    assert parse_targets([str(expected)]) == (expected,)


def test_several_targets_in_one_or_many_texts() -> None:
    assert parse_targets(["macs=0.5,size=0.1"]) == parse_targets(["macs=0.5", "size=0.1"])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["mac=0.5"], "Did you mean 'macs'"),
        (["macs"], "KIND=VALUE"),
        (["macs=half"], "'half' in target 'macs=half' is not a number"),
        (["macs=-1"], "is not a number"),
        (["macs=0"], "positive"),
        (["macs=nan"], "is not a number"),
        (["macs=1e999"], "positive"),
        (["macs=0.8..0.3"], "from low to high"),
        (["macs=0.5..2e6"], "both absolute"),
        (["macs=0.1..0.2..0.3"], "two ends"),
        (["macs=3MB"], "Unknown unit 'MB'"),
        (["macs=150%"], "at most 100%"),
        (["macs=0.0005k"], "above 1"),
        (["macs=0.5", "macs=0.4"], "2 times"),
        ([], "at least one target"),
        (["macs="], "is not a number"),
    ],
)
def test_malformed_targets_get_one_clear_line(texts: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_targets(texts)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ratio_and_absolute_mean_the_same_limit() -> None:
    assert Target("macs", 0.5, 0.5).absolute(ORIGINAL) == 500
    assert Target("macs", 500, 500).absolute(ORIGINAL) == 500
    assert Target("size", 0.1, 0.1).absolute(ORIGINAL) == 40
    assert Target("macs", 0.3333, 0.3333).absolute(ORIGINAL) == 333


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_the_ratio_of_a_whole_cost_gives_that_cost_back(part: int, whole: int) -> None:
    part = min(part, whole)
    assert limit("macs", part / whole, Costs(whole, 1, 1, 1)) in (part, part + (part > 10**11))


def test_samples_fill_the_range_evenly_and_depend_on_the_seed() -> None:
    target = Target("macs", 0.3, 0.8)
    values = np.array([target.sample(episode, seed=1).high for episode in range(64)])
    assert values.min() >= 0.3 and values.max() <= 0.8
    # A van der Corput sequence puts exactly one of 2^k samples in each of 2^k cells (of the shifted circle).
    gaps = np.diff(np.sort(values))
    assert gaps.max() <= 0.5 / 64 + 1e-9
    assert target.sample(3, seed=1) == target.sample(3, seed=1)
    assert target.sample(3, seed=1) != target.sample(3, seed=2)
    assert target.sample(0, 1).low == target.sample(0, 1).high


def test_two_ranges_are_sampled_independently() -> None:
    targets = parse_targets(["macs=0.2..0.8", "size=0.2..0.8"])
    pairs = np.array([list(sample_targets(targets, episode, 0).values()) for episode in range(128)])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.15


def test_values_are_checked() -> None:
    assert check_values({"macs": 0.5}) == {"macs": 0.5}
    with pytest.raises(UserError, match="Unknown target 'flop'"):
        check_values({"flop": 0.5})
    for bad in (float("nan"), 0, -1, "0.5"):
        with pytest.raises(UserError, match="positive number"):
            check_values({"macs": bad})  # type: ignore[dict-item]
