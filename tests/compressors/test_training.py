import math

import numpy as np
import pytest
import torch
from torch import nn

from compressors.errors import UserError
from compressors.training import REGIMES, DistillConfig, TrainConfig, train
from compressors.training.augment import shift_and_flip
from compressors.training.regimes import Distill, Plain, divergence
from compressors.training.schedule import learning_rate
from compressors.training.sources import TakesRows


class Blobs:
    """Two classes of points that a line separates."""

    def __init__(self, count: int = 200) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(count) % 2
        self.points = torch.randn(count, 2, generator=generator) + 4.0 * self.labels[:, None] - 2.0
        self.taken: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows, *, device="cpu"):
        self.taken.append(np.asarray(rows))
        return self.points[rows].to(device), self.labels[rows].to(device)


def make_net(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))


def right(net: nn.Module, data: Blobs) -> float:
    with torch.no_grad():
        return float((net.eval()(data.points).argmax(1) == data.labels).float().mean())


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


CONFIG = TrainConfig(epochs=5, batch_size=20, lr=0.1)


def test_training_learns_what_can_be_learned():
    net, data = make_net(), Blobs()
    result = train(net, data, CONFIG)
    assert right(net, data) > 0.97
    assert result.steps == len(result.losses) == 50 and result.epochs == 5 and result.accuracy > 0.9
    assert np.mean(result.losses[-10:]) < np.mean(result.losses[:10]) / 2


def test_equal_seeds_give_equal_weights_and_nothing_leaks():
    nets = [make_net(dropout=0.5) for _ in range(3)]
    states = []
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        torch.manual_seed(seed + 40)  # the global state must not matter
        before = torch.random.get_rng_state()
        train(net, Blobs(), CONFIG.model_copy(update={"seed": seed}))
        states.append(torch.equal(before, torch.random.get_rng_state()))
    assert all(states) and same(nets[0], nets[1]) and not same(nets[0], nets[2])


def test_every_row_is_seen_once_a_pass_in_another_order():
    data = Blobs(100)
    train(make_net(), data, TrainConfig(epochs=2, batch_size=25))
    first, second = np.concatenate(data.taken[:4]), np.concatenate(data.taken[4:])
    assert sorted(first) == sorted(second) == list(range(100)) and (first != second).any()


def test_a_lone_last_image_is_left_out_but_a_lone_batch_is_not():
    data = Blobs(41)
    assert train(make_net(), data, TrainConfig(epochs=1, batch_size=20)).steps == 2
    assert train(make_net(), data, TrainConfig(epochs=1, batch_size=21)).steps == 2
    assert train(make_net(), data, TrainConfig(epochs=1, batch_size=500)).steps == 1


@pytest.mark.parametrize("steps", [0, 1, 13])
def test_steps_win_over_epochs(steps):
    net = make_net()
    before = make_net()
    result = train(net, Blobs(100), TrainConfig(epochs=1, steps=steps, batch_size=25))
    assert result.steps == steps and result.epochs == math.ceil(steps / 4)
    assert same(net, before) == (steps == 0)


def test_ready_made_batches_and_any_loss_serve():
    data = Blobs()
    batches = [(data.points[i : i + 50], data.labels[i : i + 50].float()) for i in range(0, 200, 50)]
    net = make_net()

    def loss(outputs, labels):
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 1] - outputs[:, 0], labels)

    result = train(net, batches, TrainConfig(epochs=20, lr=0.1), loss=loss)
    assert result.steps == 80 and result.accuracy is None and np.mean(result.losses[-4:]) < 0.15
    assert isinstance(data, TakesRows) and not isinstance(batches, TakesRows)


def test_modes_of_modules_come_back_as_they_were():
    net = make_net()
    net.eval()
    net[1].train()
    train(net, Blobs(), CONFIG)
    assert [module.training for module in net.modules()] == [False, False, True, False, False, False]


def test_frozen_parameters_stay():
    net = make_net()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    train(net, Blobs(), CONFIG)
    assert torch.equal(net[0].weight, before)


def test_progress_hears_of_every_step():
    heard = []
    result = train(make_net(), Blobs(100), TrainConfig(epochs=1, batch_size=25), progress=lambda *x: heard.append(x))
    assert heard == [(i + 1, 4, loss) for i, loss in enumerate(result.losses)]


def test_a_loss_that_is_not_finite_names_the_step_and_a_smaller_rate():
    data = Blobs(100)
    with pytest.raises(UserError, match=r"at step [1-9]\d* \(learning rate .*smaller learning rate"):
        train(nn.Linear(2, 2), data, TrainConfig(lr=1e30, batch_size=25, warmup=0, epochs=40))
    data.points[7] = math.nan
    with pytest.raises(UserError, match="it became nan"):
        train(make_net(), data, TrainConfig(epochs=1, batch_size=25))


def test_bad_input_is_one_line_each():
    frozen = make_net().requires_grad_(False)
    with pytest.raises(UserError, match="require gradients"):
        train(frozen, Blobs(), CONFIG)
    with pytest.raises(UserError, match="training data is empty"):
        train(make_net(), Blobs(0), CONFIG)
    with pytest.raises(UserError, match="pairs of tensors"):
        train(make_net(), [torch.zeros(3)], CONFIG)
    with pytest.raises(UserError, match="not a generator"):
        data = Blobs()
        train(make_net(), ((data.points, data.labels) for _ in range(2)), CONFIG)
    with pytest.raises(UserError, match="needs a teacher"):
        train(make_net(), Blobs(), CONFIG, distill=DistillConfig())
    with pytest.raises(UserError, match="pass a loss"):
        Plain()((1, 2), torch.zeros(2), torch.zeros(2))


def test_schedule_warms_up_and_falls_to_nearly_nothing():
    config = TrainConfig(lr=1.0, warmup=0.1)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10] == 1.0 and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001 and rates[55] == pytest.approx(0.5)
    constant = TrainConfig(lr=1.0, warmup=0, schedule="constant")
    assert {learning_rate(constant, step, 9) for step in range(9)} == {1.0}


def test_plain_loss_is_cross_entropy():
    scores, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])
    assert float(Plain()(scores, labels, scores)) == pytest.approx(math.log(4 / 3))


def test_divergence_is_zero_for_equal_answers_and_matches_the_formula():
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    assert float(divergence(a, a + 3, 2.0)) == pytest.approx(0, abs=1e-6)
    p, q = (b / 2).softmax(1), (a / 2).softmax(1)
    assert float(divergence(a, b, 2.0)) == pytest.approx(float((p * (p / q).log()).sum(1).mean() * 4), rel=1e-5)


def test_distillation_mixes_labels_and_teacher():
    teacher, x = make_net(1).train(), torch.randn(6, 2)
    outputs, labels = torch.randn(6, 2), torch.tensor([0, 1] * 3)
    losses = {
        w: float(Distill(teacher, DistillConfig(temperature=3, weight=w))(outputs, labels, x)) for w in (0, 0.25, 1)
    }
    assert losses[0] == pytest.approx(float(Plain()(outputs, labels, x)))
    assert losses[0.25] == pytest.approx(0.75 * losses[0] + 0.25 * losses[1], rel=1e-5)
    assert teacher.training
    with torch.no_grad():
        wanted = teacher.eval()(x)
    assert losses[1] == pytest.approx(float(divergence(outputs, wanted, 3.0)), rel=1e-5)


def test_student_learns_from_its_teacher_alone_and_the_teacher_stays():
    data = Blobs()
    teacher = make_net(1)
    train(teacher, data, CONFIG)
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    data.labels = 1 - data.labels  # the labels lie; only the teacher knows
    student = make_net(2)
    train(student, data, CONFIG, teacher=teacher, distill=DistillConfig(weight=1.0))
    assert right(student, data) < 0.05
    assert all(torch.equal(state[name], value) for name, value in teacher.state_dict().items())
    with pytest.raises(UserError, match=r"one shape, but got \(20, 2\) and \(20, 3\)"):
        train(make_net(), data, CONFIG, teacher=nn.Linear(2, 3))


def test_augmentation_moves_whole_images_by_known_steps():
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6) + 1
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    options = {}
    for n in range(2):
        for flip in (False, True):
            for top in range(5):
                for left in range(5):
                    crop = padded[n, :, top : top + 6, left : left + 6]
                    options[(n, top, left, flip)] = crop.flip(2) if flip else crop
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60):
        out = shift_and_flip(images, generator, padding=2)
        for n in range(2):
            matches = [key for key, crop in options.items() if key[0] == n and torch.equal(crop, out[n])]
            assert matches
            seen.update(matches)
    assert len(seen) > 50 and {key[3] for key in seen} == {False, True}


def test_augmentation_off_changes_nothing_and_keeps_the_memory_format():
    images = torch.rand(3, 2, 5, 5).contiguous(memory_format=torch.channels_last)
    out = shift_and_flip(images, torch.Generator(), padding=0, flip=False)
    assert torch.equal(out, images) and out.is_contiguous(memory_format=torch.channels_last)


def test_regimes_are_registered_with_a_description():
    assert set(REGIMES) == {"plain", "distill"}
    assert all(REGIMES.entry(name).summary for name in REGIMES)
    with pytest.raises(UserError, match="Did you mean 'distill'"):
        REGIMES["distil"]
