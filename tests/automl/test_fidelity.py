import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journeys import refused, secateur
from scipy.stats import spearmanr

from automl.benchmarks.fidelity import FidelityConfig
from automl.benchmarks.fidelity_log import FidelityLog, Measurement
from automl.benchmarks.fidelity_table import (
    FINETUNED,
    Row,
    as_csv,
    as_markdown,
    correlations,
    interval,
    spearman,
)
from automl.config import parse
from compressors.errors import UserError
from compressors.repair import REPAIRS

TINY = (
    "--data", "digits", "--policies", "10", "--finetune-steps", "2", "--threads", "1", "--calibration-images", "100",
    "--search-images", "300", "--train-images", "100", "--images", "100", "--short-steps", "1", "--short-steps", "2",
)  # fmt: skip


def test_rank_correlation_by_hand():
    one = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(one, one**3) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)
    assert spearman(one, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert math.isnan(spearman(one, np.ones(4)))


@given(st.lists(st.integers(0, 5), min_size=5, max_size=30), st.integers(0, 3))
def test_rank_correlation_with_ties_is_scipys(values, seed):
    one = np.array(values, dtype=float)
    other = np.random.default_rng(seed).integers(0, 4, len(one)).astype(float)
    if one.std() and other.std():
        assert spearman(one, other) == pytest.approx(spearmanr(one, other)[0])


def test_the_interval_holds_the_correlation_and_narrows():
    rng = np.random.default_rng(0)

    def pair(count):
        truth = rng.normal(size=count)
        return truth + rng.normal(size=count), truth

    few, many = pair(15), pair(300)
    for scores in (few, many):
        low, high = interval(*scores)
        assert low < spearman(*scores) < high
    widths = [high - low for low, high in (interval(*few), interval(*many))]
    assert widths[1] < widths[0] / 2
    assert interval(*few) == interval(*few)
    assert all(math.isnan(end) for end in interval(np.ones(10), np.arange(10.0)))


def fill(log, criterion, scores, seconds=1.0):
    for policy, score in enumerate(scores):
        log.add(Measurement(policy=policy, criterion=criterion, score=score, seconds=seconds))


def test_the_table_holds_complete_criteria_in_their_order(tmp_path):
    log = FidelityLog(tmp_path, {})
    truth = [0.1 * policy for policy in range(10)]
    fill(log, FINETUNED, truth, 60)
    fill(log, "good", [score**2 for score in truth], 0.5)
    fill(log, "half done", truth[:5])
    fill(log, "bad", [-score for score in truth], 2)
    rows = correlations(FidelityLog(tmp_path, {}), 10)
    assert [(row.criterion, row.policies, row.seconds) for row in rows] == [("good", 10, 0.5), ("bad", 10, 2)]
    assert [row.spearman for row in rows] == pytest.approx([1, -1])
    assert [row.per_second for row in rows] == pytest.approx([2, -0.5])


def test_tables_as_text():
    nan = math.nan
    rows = [Row("a", 10, 0.5, 0.25, 0.75, 0.125, 4.0), Row("b", 10, nan, nan, nan, 2.0, nan)]
    assert as_csv(rows).splitlines() == [
        "criterion,policies,spearman,low,high,seconds,per_second",
        "a,10,0.5,0.25,0.75,0.125,4.0",
        "b,10,,,,2.0,",
    ]
    assert as_markdown(rows).splitlines()[2:] == ["| a | 0.500 | 0.250 .. 0.750 | 0.125 | 4 |", "| b | - | - | 2 | - |"]


def test_a_log_that_was_torn_goes_on_and_one_of_other_settings_is_refused(tmp_path):
    fill(FidelityLog(tmp_path, {"seed": 0}), "one", [0.1, 0.2])
    path = tmp_path / "measurements.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"policy": 2, "cri')
    log = FidelityLog(tmp_path, {"seed": 0})
    assert path.read_bytes() == whole
    assert log.find(1, "one").score == 0.2 and log.find(2, "one") is None
    with pytest.raises(UserError, match=r"cannot be compared.*differ in seed.*--out"):
        FidelityLog(tmp_path, {"seed": 1})
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(UserError, match=r"line 1 is not a measurement"):
        FidelityLog(tmp_path, {"seed": 0})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        FidelityLog(tmp_path, {"seed": 0})


def test_settings():
    assert (
        FidelityConfig().finetune.weight_decay == parse(FidelityConfig, {"finetune": {"lr": 0.1}}).finetune.weight_decay
    )
    with pytest.raises(UserError, match=r"at least 10 policies, but got 9"):
        parse(FidelityConfig, {"policies": 9})


def test_a_benchmark_that_was_killed_goes_on_and_measures_nothing_twice(tmp_path):
    out = tmp_path / "out"
    done = secateur("bench", "fidelity", *TINY, "--out", out)
    assert done.code == 0, done.err
    assert "10 policies" in done.out and "least_squares/auto" in done.out
    path = out / "measurements.jsonl"
    lines = path.read_text().splitlines()
    names = {json.loads(line)["criterion"] for line in lines}
    assert {FINETUNED, "profile error", "none/keep", "none/reestimate"} <= names
    assert {name.endswith("+ 2 steps, distilled") for name in names} == {True, False}
    assert {name.rpartition(" on ")[2] for name in names if " on " in name} == {"250 images", "300 images"}
    assert any(name.startswith("sequential") for name in names) == ("sequential" in REPAIRS)
    assert len(lines) == 10 * len(names)
    table = (out / "fidelity.csv").read_text()
    assert len(table.splitlines()) == len(names)  # a title, and all but what they are held against

    def scores(text):
        return {(found["policy"], found["criterion"]): found["score"] for found in map(json.loads, text)}

    # As if killed: the last policies are missing, the last line is torn.
    path.write_text("\n".join(lines[:60]) + "\n" + lines[60][:20])
    again = secateur("bench", "fidelity", *TINY, "--out", out, "--markdown")
    assert again.code == 0, again.err
    assert again.out == (out / "fidelity.md").read_text()
    assert path.read_text().splitlines()[:60] == lines[:60]
    assert scores(path.read_text().splitlines()) == scores(lines)
    refused(secateur("bench", "fidelity", *TINY, "--out", out, "--seed", "1"), "measures", "--out")


def test_few_policies_are_refused_before_anything_is_loaded(tmp_path):
    line = refused(secateur("bench", "fidelity", "--data", "digits", "--policies", "4", "--out", tmp_path / "out"))
    assert "at least 10" in line and "got 4" in line
    assert not (tmp_path / "out").exists()
