import dataclasses

import pytest
import torch
from journeys import ledger

from automl.config import SearchConfig, parse
from automl.pipeline import accuracy_of, run_search, search_net
from automl.place import NullWatch, Place, settle
from automl.runs import find_run
from automl.search_loop import SearchInterrupted
from automl.task import Loaders, task_of
from compressors.errors import UserError
from compressors.grouping import fingerprint

VALUES = {
    "data": {"calibration_images": 150, "search_images": 100, "train_images": 200},
    "loop": {"episodes": 4},
    "env": {"targets": ["macs=0.3..0.8"]},
    "finetune": {"members": 2, "training": {"epochs": 1}},
}


def config(**sections) -> SearchConfig:
    return parse(SearchConfig, {**VALUES, **sections})


def place(root, name=None, **more) -> Place:
    return Place(runs=root, name=name, track=False, threads=1, **more)


class Notes(NullWatch):
    def __init__(self):
        self.notes: list[str] = []
        self.stages: list[tuple[str, int, int | None]] = []

    def note(self, message):
        self.notes.append(message)

    def stage(self, name, done, total):
        self.stages.append((name, done, total))


def test_from_names_to_a_front_that_keeps_its_promises(runs):
    watch = Notes()
    result = run_search(config(), place(runs, "a", watch=watch))
    assert result.run.folder == runs / "a"
    assert 1 <= len(result.front) <= 2 and result.reports == [result.run.report]
    for member in result.front:
        assert member.macs_ratio <= 0.8
        net = result.net(member.trial_id)
        assert result.task.measure_search(net) == pytest.approx(member.accuracy_finetuned)
        assert sum(p.numel() for p in net.parameters()) == member.params
        assert result.policy(member.trial_id).details["accuracies"]["accuracy_test"] == member.accuracy_test
    assert {name for name, _, _ in watch.stages} >= {f"Finetuning {member.trial_id}" for member in result.front}
    text = repr(result)
    assert "SearchResult(" in text and "/a'" in text and f"{len(result.front)} member" in text and len(text) < 300


def test_equal_seeds_give_equal_ledgers_and_other_seeds_others(runs):
    one, two = (run_search(config(), place(runs)).run for _ in range(2))
    assert one.search_id == "resnet8_digits-digits-001" and two.search_id == "resnet8_digits-digits-002"
    assert ledger(one) == ledger(two)
    other = run_search(config(loop={"episodes": 4, "seed": 1}), place(runs)).run
    assert ledger(other) != ledger(one)


@pytest.mark.parametrize("agent", ["random", "uniform", "sensitivity"])
def test_every_agent_searches(runs, agent):
    result = run_search(config(agent={"name": agent}, finetune={"members": 1, "training": {"epochs": 0}}), place(runs))
    assert result.front[0].macs_ratio <= 0.8
    assert result.front[0].accuracy_finetuned == pytest.approx(result.front[0].accuracy_search)


def test_the_users_net_is_left_as_it_was(runs):
    net = tiny()
    before = fingerprint(net)
    search_net(net, task(), config(), place(runs), name="tiny")
    assert fingerprint(net) == before


def test_a_short_finetune_inside_the_search(runs):
    result = run_search(config(evaluation={"finetune_steps": 2}), place(runs))
    assert all(record.count('"finetune"') == 1 for record in result.run.ledger.read_text().splitlines())


def test_resume_uses_the_threads_of_the_run(runs, monkeypatch):
    seen = []
    run_search(config(), place(runs, "a"))
    monkeypatch.setattr(
        "automl.pipeline.settle", lambda threads, device: (seen.append(threads), settle(threads, device))[1]
    )
    (runs / "a/front.json").unlink()
    run_search(config(), Place(runs=runs, track=False), find_run(runs, "a"))
    assert seen == [1]


def test_untrained_nets_are_warned_of(runs):
    watch = Notes()
    run_search(config(net={"name": "resnet8_digits"}, data={**VALUES["data"], "channels": 3}), place(runs, watch=watch))
    assert [note for note in watch.notes if "untrained" in note and "secateur train" in note]


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def task(**more):
    torch.manual_seed(1)
    inputs = torch.randn(60, 1, 8, 8)
    pairs = [(inputs[i : i + 20], inputs[i : i + 20].mean((1, 2, 3)).gt(0).long()) for i in (0, 20, 40)]
    return task_of(Loaders(pairs, pairs, pairs, pairs), **more)


def test_nan_in_weights_or_outputs_is_refused_before_the_search(runs):
    broken = tiny()
    broken[0].weight.data[0] = float("nan")
    with pytest.raises(UserError, match="weights must be finite"):
        search_net(broken, task(), config(), place(runs), name="broken")
    with pytest.raises(UserError, match="Outputs of the original net"):
        accuracy_of(tiny(), task(evaluate=lambda net: float("nan")))
    assert not list(runs.glob("*"))


def test_a_target_out_of_reach_is_refused_before_layers_are_measured(runs, monkeypatch):
    monkeypatch.setattr("automl.pipeline.prepare", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match="smallest reachable is macs="):
        search_net(tiny(), task(), config(env={"targets": ["macs=0.0001"]}), place(runs), name="tiny")


def test_an_evaluation_that_always_fails_stops_the_search(runs):
    calls = []

    def evaluate(net):
        calls.append(net)
        if len(calls) > 1:
            raise RuntimeError("out of luck")
        return 0.5

    with pytest.raises(UserError, match=r"first 3 trials all failed.*out of luck"):
        search_net(tiny(), task(evaluate=evaluate), config(), place(runs), name="tiny")


def test_interrupted_in_its_finetune_goes_on(runs, monkeypatch):
    def interrupt(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("automl.finetuning.train", interrupt)
        with pytest.raises(SearchInterrupted, match="secateur resume"):
            search_net(tiny(), task(), config(), place(runs, "a"), name="tiny")
    run = find_run(runs, "a")
    done = search_net(tiny(), task(), config(), place(runs), name="tiny", run=run)
    again = search_net(tiny(), task(), config(), place(runs, "b"), name="tiny")
    assert ledger(run) == ledger(again.run)
    for one, two in zip(done.front, again.front, strict=True):
        assert one.model_copy(update={"seconds": 0}) == two.model_copy(update={"seconds": 0})


def test_a_run_in_use_is_refused(runs):
    made = run_search(config(), place(runs, "a")).run
    with made.lock(), pytest.raises(UserError, match="in use by process"):
        run_search(config(), place(runs), made)


def test_place_is_no_part_of_the_result(runs):
    assert {field.name for field in dataclasses.fields(Place)} == {
        "runs", "remote", "name", "tracking_uri", "track", "threads", "workers", "device", "command", "watch",
        "progress",
    }  # fmt: skip
