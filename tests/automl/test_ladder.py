import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from journeys import SMALL, ledger, refused, secateur

from automl.candidate import EvaluationConfig, Evaluator, SearchImages
from automl.config import parse
from automl.ladder import Estimate, below, cannot_matter, estimate, rungs, signed_margins, stratified_order
from automl.ledger import TrialRecord, read_ledger
from automl.runs import Run
from automl.task import Accuracy, Loaders, task_of
from compressors.compressor import Compressor
from compressors.cost import Allocation
from compressors.errors import UserError
from compressors.grouping import layer_table


def test_rungs_double_up_to_all():
    assert rungs(150, 1000) == (150, 300, 600, 1000)
    assert rungs(125, 1000) == (125, 250, 500, 1000)
    assert rungs(0, 7) == (7,)
    assert rungs(9, 7) == (7,)


def test_margins_are_signed_by_right_and_wrong():
    scores = np.log(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]))
    np.testing.assert_allclose(signed_margins(scores, np.array([0, 1, 2])), [0.5, -0.5, 0.1])
    assert np.isfinite(signed_margins(1e4 * scores, np.array([0, 1, 2]))).all()


@given(st.integers(10, 400), st.integers(3, 100), st.integers(0, 5))
def test_every_rung_mirrors_the_whole(total, first, seed):
    difficulty = np.random.default_rng(seed).normal(size=total)
    counts = rungs(first, total)
    order = stratified_order(difficulty, counts)
    np.testing.assert_array_equal(np.sort(order), np.arange(total))
    ranks = np.argsort(np.argsort(difficulty))
    for count in counts:
        places = np.sort(ranks[order[:count]]) / total
        # Up to any difficulty, a rung holds its share of the images: each part of it within one image of that.
        parts = sum(1 for other in counts if other <= count)
        assert np.abs(places - np.arange(count) / count).max() <= (2 * parts) / count + 1 / total


def test_the_first_rung_is_a_systematic_sample():
    order = stratified_order(np.arange(12.0)[::-1], (3, 6, 12))
    assert order[:3].tolist() == [9, 5, 1]  # of 12 sorted places 2, 6 and 10
    assert sorted(order[:6].tolist()) == sorted([9, 5, 1, *order[3:6].tolist()])


def test_estimate_by_hand():
    # 4 of 8 images; the original has 3 of these and 4 of all 8 right, so the rung is too easy by 1/4.
    reference = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    right = np.array([1, 1, 0, 0], dtype=bool)
    slope = (0.5 * 0.25 * 2 + -0.5 * 0.25 + -0.5 * -0.75) / (3 * 0.25**2 + 0.75**2)
    found = estimate(right, reference)
    assert found.accuracy == pytest.approx(0.5 - slope * 0.25)
    residuals = right - 0.5 - slope * (reference[:4] - 0.75)
    variance = ((residuals**2).sum() + 1) / 2
    assert found.error == pytest.approx(np.sqrt(variance / 4 * (1 - 4 / 8)))


def test_estimate_of_all_images_is_exact():
    right = np.array([True, False, True])
    assert estimate(right, np.array([True, True, True])) == Estimate(2 / 3, 0.0)


def test_few_equal_answers_are_not_certain():
    found = estimate(np.zeros(10, dtype=bool), np.ones(100, dtype=bool))
    assert found.accuracy == 0 and found.error > 0.1


def test_the_standard_error_is_honest():
    """Over many draws the estimate errs about as much as it says, and less than the plain fraction does."""
    rng = np.random.default_rng(0)
    reference = rng.random(1000) < 0.8
    right = np.where(reference, rng.random(1000) < 0.85, rng.random(1000) < 0.05)
    errors, said, plain = [], [], []
    for _ in range(400):
        order = rng.permutation(1000)
        found = estimate(right[order[:100]], reference[order])
        errors.append(found.accuracy - right.mean())
        plain.append(right[order[:100]].mean() - right.mean())
        said.append(found.error)
    assert abs(np.mean(errors)) < 0.005
    assert np.std(errors) == pytest.approx(np.mean(said), rel=0.15)
    assert np.std(errors) < 0.8 * np.std(plain)


def test_a_stopped_estimate_is_below_the_bar():
    assert cannot_matter(Estimate(0.5, 0.04), bar=0.61, margin=2.5)
    assert not cannot_matter(Estimate(0.5, 0.04), bar=0.59, margin=2.5)
    assert not cannot_matter(Estimate(0.5, 0.04), bar=-np.inf, margin=2.5)
    assert below(0.7, 0.6) < 0.6
    assert below(0.5, 0.6) == 0.5


class Answers(torch.nn.Module):
    """A net that says what its inputs say: scores (N, classes)."""

    def __init__(self, noise=0.0, seed=0):
        super().__init__()
        self.noise = torch.nn.Parameter(torch.tensor(noise))
        self.generator = seed

    def forward(self, x):
        torch.manual_seed(self.generator)
        return x + self.noise * torch.randn(x.shape).to(x)


def images(count=400, classes=5, batch=64):
    torch.manual_seed(1)
    labels = torch.randint(classes, (count,))
    scores = torch.nn.functional.one_hot(labels, classes).float() * 2 + torch.randn(count, classes)
    return Accuracy([(scores[i : i + batch], labels[i : i + batch]) for i in range(0, count, batch)])


def test_climbing_all_rungs_is_the_accuracy_and_a_low_candidate_stops():
    accuracy, net = images(), Answers()
    ladder = SearchImages(net, accuracy, EvaluationConfig(first_images=50))
    assert [len(labels) for _, labels in ladder.batches] == [50, 50, 64, 36, 64, 64, 64, 8]
    assert ladder.right.mean() == accuracy(net)
    assert ladder.measure(net, -np.inf) == (accuracy(net), 400)
    noisy = Answers(20.0)
    found, looked = ladder.measure(noisy, accuracy(net))
    assert looked == 50 and found < 0.5
    assert ladder.measure(noisy, accuracy(net)) == (found, looked)
    # Where the bar is near, it takes more images; below the bar it must stay.
    near, looked = ladder.measure(net, accuracy(net) + 0.03)
    assert looked > 50 and near < accuracy(net) + 0.03


def test_an_output_that_is_not_finite_is_nan():
    accuracy = images()
    ladder = SearchImages(Answers(), accuracy, EvaluationConfig(first_images=50))
    found, looked = ladder.measure(Answers(float("nan")), 0.5)
    assert np.isnan(found) and looked <= 64


def test_bfloat16_measures_in_bfloat16():
    accuracy = images()
    ladder = SearchImages(Answers(), accuracy, EvaluationConfig(precision="bfloat16", first_images=0))
    assert ladder.counts == (400,)
    assert all(inputs.dtype == torch.bfloat16 for inputs, _ in ladder.batches)
    found, looked = ladder.measure(Answers(), 2.0)
    assert looked == 400 and found == pytest.approx(accuracy(Answers()), abs=0.02)


def test_images_of_several_shapes_have_no_ladder():
    batches = [(torch.zeros(10, 5), torch.zeros(10, dtype=torch.long)), (torch.zeros(10, 6), torch.zeros(10).long())]
    ladder = SearchImages(Answers(), Accuracy(batches), EvaluationConfig(first_images=10))
    assert ladder.counts == (20,)
    assert [len(inputs) for inputs, _ in ladder.batches] == [10, 10]


def small_task(evaluate=None):
    torch.manual_seed(0)
    data = [(torch.randn(40, 3, 8, 8), torch.randint(4, (40,))) for _ in range(3)]
    return task_of(Loaders(data, [inputs for inputs, _ in data], data), evaluate=evaluate)


def small_net():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d
    return torch.nn.Sequential(
        conv(3, 8, 3, padding=1), torch.nn.ReLU(), conv(8, 8, 3, padding=1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4),
    ).eval()  # fmt: skip


def evaluator(evaluate=None, **settings):
    task, net = small_task(evaluate), small_net()
    table = layer_table(net, task.example, "small")
    compressor = Compressor()
    compressor.prepare(net, table, task.calibration)
    return Evaluator(net, compressor, task, EvaluationConfig(**settings)), Allocation.full(table)


def test_an_evaluation_says_how_many_images_it_took():
    plain, allocation = evaluator()
    found = plain(allocation, 0, 2.0)
    assert found.images == 120
    climbing, _ = evaluator(first_images=20)
    stopped = climbing(allocation, 0, 2.0)
    assert stopped.images == 20 and stopped.accuracy < 2.0
    whole = climbing(allocation, 0, -np.inf)
    assert (whole.accuracy, whole.images) == (found.accuracy, 120)


@pytest.mark.parametrize("bits", [4, 32])
def test_quantised_candidates_are_measured_in_bfloat16(bits):
    measured, allocation = evaluator(precision="bfloat16")
    widths = np.full_like(allocation.weight_bits, bits)
    found = measured(Allocation(allocation.kept, widths, widths), 0, -np.inf)
    reference, _ = evaluator()
    assert found.accuracy == pytest.approx(
        reference(Allocation(allocation.kept, widths, widths), 0, -np.inf).accuracy, abs=0.05
    )


def test_a_metric_of_ones_own_ignores_the_ladder():
    seen = []

    def evaluate(net):
        seen.append(next(net.parameters()).dtype)
        return 7.0

    climbing, allocation = evaluator(evaluate, first_images=20, precision="bfloat16")
    found = climbing(allocation, 0, 100.0)
    assert (found.accuracy, found.images, seen) == (7.0, 0, [torch.float32])


def test_settings_are_checked():
    with pytest.raises(UserError, match=r"first images must be 0 \(always all\) or at least 10, but got 3"):
        parse(EvaluationConfig, {"first_images": 3})
    with pytest.raises(UserError, match="precision"):
        parse(EvaluationConfig, {"precision": "float8"})


def test_old_ledgers_without_images_load():
    fields = '{"trial_id":"t00000","episode":0,"target":{"macs":0.5},"actions":[[0.0]],"policy":{"kept":[1],'
    fields += '"weight_bits":[32],"activation_bits":[32]},"costs":{"macs":1},"accuracy_search":0.5,"l2":0.1,'
    fields += '"reward":0.4,"behaviour":"ddpg"}'
    assert TrialRecord.model_validate_json(fields).images == 0


def test_a_search_with_a_ladder_gives_the_same_trials_again_and_a_front_measured_on_all_images(tmp_path):
    options = ("--first-images", "20", "--episodes", "8", "--agent", "random", "--stop-margin", "1")
    for name in ("one", "two"):
        done = secateur("search", *SMALL, *options, "--runs", tmp_path, "--name", name, "--target", "macs=0.5")
        assert done.code == 0, done.err
    assert ledger(Run(tmp_path / "one")) == ledger(Run(tmp_path / "two"))
    records = read_ledger(Run(tmp_path / "one").ledger)
    assert records[0].images == 150  # nothing to be below of yet
    assert any(record.images < 150 for record in records)
    # Each one that stopped stays below an earlier one within its target, and out of the front.
    for number, record in enumerate(records):
        assert record.status == ("done" if record.images == 150 else "stopped")
        if record.images < 150:
            assert record.accuracy_search < max(other.accuracy_search for other in records[:number])
    assert max(records, key=lambda record: record.accuracy_search).images == 150
    members = json.loads((tmp_path / "one" / "front.json").read_text())["front"]
    assert all(next(r for r in records if r.trial_id == member["trial_id"]).images == 150 for member in members)


def test_a_bad_precision_is_refused_in_one_line(tmp_path):
    refused(secateur("search", *SMALL, "--search-precision", "half", "--runs", tmp_path), "precision", "half")
