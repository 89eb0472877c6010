import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import ORIGINAL, make_record

from automl.archive import Archive, front, front_after, hypervolume

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=30)


def test_front_by_hand():
    assert front([3, 1, 2, 2], [0.9, 0.5, 0.5, 0.7]).tolist() == [1, 3, 0]
    assert front([1, 1], [0.5, 0.5]).tolist() == [0]
    assert front([], []).tolist() == []


@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    data = np.array(points, dtype=float)
    chosen = front(data[:, 0], data[:, 1])
    expected = moocore.is_nondominated(data, maximise=[False, True])
    assert {tuple(row) for row in data[chosen]} == {tuple(row) for row in data[expected]}
    assert np.all(np.diff(data[chosen, 0]) > 0)
    assert np.all(np.diff(data[chosen, 1]) > 0)


def test_hypervolume_by_hand():
    assert hypervolume([]) == 0.0
    assert hypervolume([(0.5, 0.8)]) == pytest.approx(0.4)
    assert hypervolume([(0.5, 0.8), (0.25, 0.4)]) == pytest.approx(0.4 + 0.25 * 0.4)
    assert hypervolume([(1.5, 0.8), (0.5, -1.0)]) == 0.0


@given(POINTS)
def test_archive_agrees_with_front_of_all(points):
    archive = Archive(ORIGINAL)
    for episode, (cost, accuracy) in enumerate(points):
        before = archive.front
        changed = archive.add(make_record(episode, macs=100 * cost, accuracy_search=accuracy / 10))
        assert changed == (archive.front != before)
    chosen = front([cost for cost, _ in points], [accuracy for _, accuracy in points])
    assert [member.episode for member in archive.front] == chosen.tolist()
    assert archive.snapshot() == [(points[index][0] / 10, points[index][1] / 10) for index in chosen]
    assert front_after(archive.records, ORIGINAL, "macs") == archive.snapshot()


def test_failed_trials_are_kept_but_never_on_the_front():
    archive = Archive(ORIGINAL)
    assert not archive.add(make_record(0, accuracy_search=0.99, status="failed", error="boom"))
    assert archive.front == () and len(archive.records) == 1 and archive.best() is None


def test_best_by_cost_and_by_accuracy():
    archive = Archive(ORIGINAL)
    for episode, (macs, accuracy) in enumerate([(300, 0.5), (500, 0.7), (800, 0.85)]):
        archive.add(make_record(episode, macs=macs, accuracy_search=accuracy))
    assert archive.best().episode == 2
    assert archive.best(max_ratio=0.5).episode == 1
    assert archive.best(max_ratio=0.2) is None
    assert archive.best(min_accuracy=0.6).episode == 1
    assert archive.best(max_ratio=0.6, min_accuracy=0.8) is None
