"""Elimination against answers by brute force, and repairs against the normal equations."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.repair import REPAIRS
from compressors.select import SELECTORS, Problem
from compressors.select.surgeon import eliminate
from compressors.statistics import LayerStatistics


def problem(units, owned, out, blocks=1, extra=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = units * owned + extra
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    rows = torch.randn(blocks, 400, columns, generator=generator, dtype=torch.float64) @ mix
    second = rows.transpose(1, 2) @ rows / 400
    weight = torch.randn(blocks, out, columns, generator=generator, dtype=torch.float64)
    where = torch.randperm(columns, generator=generator)[: units * owned].reshape(units, owned)
    return Problem(second, weight, where), rows


def fitted_error(found, rows, kept_units):
    """Relative squared error of the best fit of the outputs from the columns of the kept units, by least squares."""
    owned = found.columns[list(kept_units)].reshape(-1).tolist()
    others = sorted(set(range(rows.shape[2])) - set(found.columns.reshape(-1).tolist()))
    lost = whole = 0.0
    for block in range(len(rows)):
        target = rows[block] @ found.weight[block].T
        used = rows[block][:, owned + others]
        solution = torch.linalg.lstsq(used, target).solution
        lost += float((used @ solution - target).square().sum())
        whole += float(target.square().sum())
    return lost / whole


@pytest.mark.parametrize(("owned", "out", "blocks", "extra"), [(1, 3, 1, 0), (3, 4, 1, 0), (2, 5, 1, 3), (2, 3, 2, 0)])
def test_errors_equal_a_least_squares_fit_at_every_count(owned, out, blocks, extra):
    found, rows = problem(6, owned, out, blocks, extra)
    order, errors = eliminate([found], 6)
    assert sorted(order.tolist()) == list(range(6))
    for kept in range(1, 7):
        expected = fitted_error(found, rows, order[6 - kept :])
        assert errors[kept] == pytest.approx(expected, rel=0.02, abs=2e-3)
    assert errors[0] == 1
    assert errors[6] == 0


def test_the_first_choice_is_the_cheapest_of_all():
    found, rows = problem(7, 2, 4, seed=3)
    order, _ = eliminate([found], 7)
    errors = [fitted_error(found, rows, [u for u in range(7) if u != gone]) for gone in range(7)]
    assert int(np.argmin(errors)) == order[0]


def test_a_redundant_unit_costs_nothing_and_goes_first():
    found, _ = problem(5, 1, 3)
    copy = torch.zeros(5, 5, dtype=torch.float64)
    copy[range(5), range(5)] = 1
    copy[found.columns[2, 0], :] = copy[found.columns[4, 0], :]  # unit 2 repeats unit 4
    second = copy @ found.second @ copy.T
    order, errors = eliminate([Problem(second, found.weight, found.columns)], 5)
    assert order[0] in (2, 4)
    assert errors[4] < 1e-3


def test_surgeon_beats_any_fixed_order_by_l1_on_correlated_inputs():
    better = 0
    for seed in range(8):
        found, _ = problem(10, 2, 6, seed=seed)
        _, own = eliminate([found], 10)
        order = found.weight[0][:, found.columns].abs().sum((0, 2)).argsort().numpy()
        _, fixed = eliminate([found], 10, order)
        better += own[5] <= fixed[5] + 1e-9
    assert better >= 7


def test_greedy_is_close_to_the_best_subset():
    found, rows = problem(7, 1, 4, seed=5)
    _, errors = eliminate([found], 7)
    best = min(fitted_error(found, rows, subset) for subset in itertools.combinations(range(7), 4))
    assert errors[4] <= 2 * best + 0.02


@settings(max_examples=20, deadline=None)
@given(units=st.integers(2, 40), owned=st.integers(1, 3), seed=st.integers(0, 99))
def test_curves_never_fall_as_more_goes(units, owned, seed):
    found, _ = problem(units, owned, 2, seed=seed)
    _, errors = eliminate([found], units, np.random.default_rng(seed).permutation(units))
    assert (np.diff(errors) <= 1e-12).all()
    assert ((errors >= 0) & (errors <= 1)).all()


def test_large_groups_lose_several_units_at_once_and_stay_complete():
    found, _ = problem(300, 1, 3)
    order, errors = eliminate([found], 300)
    assert sorted(order.tolist()) == list(range(300))
    assert (np.diff(errors) <= 1e-12).all()


def test_selectors_rank_filters():
    filters = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.1, 0.1], [-2.0, 2.0]])
    rng = np.random.default_rng(0)
    assert SELECTORS["l1"](filters, [], rng).tolist() == [2, 1, 0, 3]
    assert SELECTORS["l2"](filters, [], rng).tolist() == [2, 1, 3, 0]
    assert sorted(SELECTORS["random"](filters, [], rng).tolist()) == [0, 1, 2, 3]
    assert SELECTORS["surgeon"](filters, [], rng) is None


def statistics(rows, centred=True):
    mean = rows.mean(1) if centred else torch.zeros_like(rows[:, 0])
    moved = rows - mean[:, None]
    second = moved.transpose(1, 2) @ moved / rows.shape[1]
    diagonal = second.diagonal(dim1=1, dim2=2).clone()
    return LayerStatistics(second, diagonal, mean, torch.ones(4), torch.zeros(0))


def test_least_squares_repair_solves_the_regression_with_an_intercept():
    found, rows = problem(6, 1, 4, seed=2)
    rows = rows + 3.0
    kept = torch.tensor([0, 2, 3, 5])
    weight, shift = REPAIRS["least_squares"](found.weight, statistics(rows), kept)
    design = torch.cat([rows[0][:, kept], torch.ones(rows.shape[1], 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(design, rows[0] @ found.weight[0].T).solution
    ours = rows[0][:, kept] @ weight[0].T + shift[0]
    torch.testing.assert_close(ours, design @ solution, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", list(REPAIRS))
def test_repairs_leave_a_whole_layer_as_it_was(name):
    found, rows = problem(5, 1, 4)
    weight, shift = REPAIRS[name](found.weight, statistics(rows + 1.0), torch.arange(5))
    torch.testing.assert_close(weight, found.weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shift, torch.zeros_like(shift), rtol=0, atol=1e-9)


def test_mean_repair_keeps_the_mean_output():
    found, rows = problem(5, 1, 4)
    rows = rows + 2.0
    kept = torch.tensor([1, 3])
    weight, shift = REPAIRS["mean"](found.weight, statistics(rows), kept)
    outputs = rows[0][:, kept] @ weight[0].T + shift[0]
    torch.testing.assert_close(outputs.mean(0), (rows[0] @ found.weight[0].T).mean(0))


def test_without_second_moments_least_squares_falls_back_to_the_mean():
    found, rows = problem(5, 1, 4)
    full = statistics(rows + 1.0)
    poor = LayerStatistics(None, full.diagonal, full.mean, full.scale, full.samples)
    kept = torch.tensor([0, 4])
    ours, means = REPAIRS["least_squares"](found.weight, poor, kept), REPAIRS["mean"](found.weight, full, kept)
    for our, mean in zip(ours, means, strict=True):
        torch.testing.assert_close(our, mean)
