import pytest
import torch
from torch import nn

from automl.data import DataConfig, load_splits
from automl.task import Accuracy, Loaders, task_of
from compressors.errors import UserError
from compressors.training import TrainConfig


def pairs(count: int = 3, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(4, 1, 6, 6, generator=generator), torch.randint(3, (4,), generator=generator))
        for _ in range(count)
    ]


class Constant(nn.Module):
    def __init__(self, scores):
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, x):
        return self.scores.expand(len(x), -1)


def test_accuracy_counts_what_is_right():
    batches = [(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 2])), (torch.zeros(1, 1, 2, 2), torch.tensor([1]))]
    assert Accuracy(batches)(Constant([0.0, 1.0, 0.5])) == 3 / 5


def test_accuracy_of_a_net_that_breaks_is_nan_and_not_a_number_that_could_be_believed():
    value = Accuracy(pairs())(Constant([0.0, float("inf"), 0.5]))
    assert value != value


def test_accuracy_of_other_outputs_says_what_to_do():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    for net in (Pair(), nn.Identity()):
        with pytest.raises(UserError, match="pass your own `evaluate`"):
            Accuracy(pairs())(net)
    with pytest.raises(UserError, match="at least one batch"):
        Accuracy([])


def test_splits_become_a_task_whose_parts_are_those_splits():
    splits = load_splits(DataConfig(calibration_images=120, search_images=90))
    task = task_of(splits, batch_size=50)
    assert [len(batch) for batch in task.calibration] == [50, 50, 20] and task.example.shape == (1, 1, 8, 8)
    labels = splits.search.labels
    always = Constant([1.0] + [0.0] * 9)
    assert task.measure_search(always) == pytest.approx(float((labels == 0).mean()))
    assert task.measure_test(always) == pytest.approx(float((splits.test.labels == 0).mean()))
    assert task.record["splits"]["calibration"]["count"] == 120
    # Digits are small and have no mirror images.
    suited = task.suit(TrainConfig())
    assert suited.crop_padding == 1 and not suited.flip


def test_fingerprint_is_of_the_calibration_images():
    def of(**settings):
        return task_of(load_splits(DataConfig(calibration_images=100, **settings))).fingerprint

    assert of() == of(search_images=50)
    assert of() != of(seed=1)
    assert len(of()) == 64


def test_own_metric_replaces_both_measures_unless_a_test_is_given():
    loaders = Loaders(train=pairs(), calibration=pairs(), search=pairs(), test=pairs())
    task = task_of(loaders, evaluate=lambda net: 7.0)
    assert task.measure_search(nn.Identity()) == 7.0 and task.measure_test is None
    task = task_of(loaders, evaluate=lambda net: 7.0, evaluate_test=lambda net: 8.0)
    assert task.measure_test(nn.Identity()) == 8.0
    task = task_of(loaders)
    assert task.measure_search(Constant([1.0, 0.0, 0.0])) <= 1 and task.measure_test is not None
    assert task_of(Loaders(pairs(), pairs(), pairs())).measure_test is None


def test_loaders_give_inputs_with_or_without_labels():
    bare = [inputs for inputs, _ in pairs()]
    one = task_of(Loaders(pairs(), pairs(), pairs()))
    two = task_of(Loaders(pairs(), bare, pairs()))
    assert one.fingerprint == two.fingerprint and len(two.calibration) == 3


@pytest.mark.parametrize(("calibration", "words"), [([], "at least one batch"), ([{"x": 1}], "got dict")])
def test_calibration_that_is_none(calibration, words):
    with pytest.raises(UserError, match=words):
        task_of(Loaders(pairs(), calibration, pairs()))
