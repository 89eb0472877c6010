"""`secateur bench ablation` and `secateur bench front`: what is left out, what it costs, and what is compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from journeys import ledger, refused, secateur

from agents.config import AgentConfig, DDPGConfig
from agents.registry import make_agent
from agents.rollout import run_episode
from agents.warmup import warmup_behaviour
from automl.benchmarks.ablation import FULL, VARIANTS, expected, plan_ablation
from automl.benchmarks.ablation_table import legend, lines
from automl.benchmarks.front import Question, plan_front, question
from automl.benchmarks.front_results import HYPERVOLUME, ONE, SPLIT, FrontRow, collect, from_csv, to_csv
from automl.benchmarks.front_table import tables
from automl.benchmarks.quality.identity import facts_of
from automl.benchmarks.quality.plan import Request, overlaid
from automl.benchmarks.quality.results import Row, read_summary
from automl.benchmarks.quality.tables import cells_of
from automl.config import SearchConfig
from automl.ledger import TrialPolicy, TrialRecord
from automl.run_info import RunInfo
from automl.runs import Run
from compressors.errors import UserError
from dashboards.quality import write_quality_page
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.observation import COLUMNS
from tests.toys import by_profile, chain, make_profile

IMAGES = ("--data", "digits", "--calibration-images", "200", "--search-images", "100", "--processes", "1")
LADDER = {"evaluation": {"first_images": 20}, "agent": {"ddpg": {"pretrain_episodes": 2}}}


def request(**changes):
    return replace(Request(LADDER, (), {}, ("macs=0.5",), ("random",), 150, 1, None, Path("out")), **changes)


def env_with(**settings):
    table = chain()
    profile = make_profile(table)
    return CompressionEnv(table, profile, by_profile(table, profile), EnvConfig(mode="both", **settings))


# The switches


def test_without_the_profile_its_columns_are_zero_and_the_others_as_before():
    names = [column.name for column in COLUMNS]
    families = ("cut_error", "weight_error", "activation_error", "rest_error", "l2")
    hidden = [name.startswith(families) for name in names]
    assert sum(hidden) == 9
    rollouts = [
        run_episode(env_with(profile_in_observation=shown), warmup_behaviour(0), seed=0, episode=0)
        for shown in (True, False)
    ]
    with_it, without = (rollout.observations for rollout in rollouts)
    assert (with_it[:, hidden] > 0).any(axis=0).all()
    assert (without[:, hidden] == 0).all()
    assert np.array_equal(with_it[:, np.logical_not(hidden)], without[:, np.logical_not(hidden)])
    assert rollouts[0].outcome == replace(rollouts[1].outcome, allocation=rollouts[0].outcome.allocation)


def test_without_a_warm_start_the_warm_up_is_random():
    env = env_with()
    for warm_start, names in ((True, {"even", "spread", "random"}), (False, {"random"})):
        config = AgentConfig(ddpg=DDPGConfig(warm_start=warm_start, warmup_episodes=8))
        agent = make_agent(config, env, 40, 0)
        assert {agent.behaviour(episode).name for episode in range(8)} == names
    assert warmup_behaviour(0).name == "even"


# The plan


def test_every_variant_is_a_search_of_ddpg_that_differs_in_its_own_settings_alone():
    jobs, notes = plan_ablation(request(targets=("macs=0.3..0.7",), seeds=2), ["all"])
    assert not notes
    assert [job.variant for job in jobs] == [*VARIANTS, *VARIANTS]
    assert [job.seed for job in jobs] == [0] * len(VARIANTS) + [1] * len(VARIANTS)
    full = jobs[0].config
    assert full.agent.name == "ddpg" and str(jobs[0].folder) == "out/resnet8_digits-digits/macs=0.3..0.7/full/seed-0"
    plain = full.model_dump()
    for job in jobs[1 : len(VARIANTS)]:
        assert job.config.model_dump() == overlaid(plain, VARIANTS[job.variant].settings) != plain
        assert job.cell == jobs[0].cell and job.folder.parent.name == job.variant
    by_name = {job.variant: job.config for job in jobs}
    assert not by_name["no-surrogate"].agent.ddpg.surrogate
    assert by_name["no-actor"].agent.ddpg.proposals == 0 and by_name["no-actor"].agent.ddpg.max_gradient_steps == 1
    assert by_name["no-l2"].env.l2_weight == 0 and by_name["full-images"].evaluation.first_images == 0


def test_variants_that_would_be_the_full_agent_are_left_out():
    whole = {"evaluation": {"first_images": 0}}
    jobs, notes = plan_ablation(request(base=whole), ["no-relabel", "full-images", "no-l2", "full"])
    assert [job.variant for job in jobs] == ["full", "no-l2"]
    assert len(notes) == 2 and "no-relabel is left out for resnet8_digits, macs=0.5: it matters only" in notes[0]
    assert "full-images" in notes[1] and "nothing that it could leave out" in notes[1]
    with pytest.raises(UserError, match="nothing to compare: no-relabel is left out"):
        plan_ablation(request(), ["no-relabel"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["no-surogate"], "Unknown variant 'no-surogate'. Did you mean 'no-surrogate'"),
        ([], "--variants must name at least one"),
    ],
)
def test_bad_variants(names, message):
    with pytest.raises(UserError, match=message):
        plan_ablation(request(), names)


def test_facts_of_a_variant_are_those_of_full_with_its_settings():
    facts = {"evaluator": {"evaluation": {"first_images": 20}}, "env": {"l2_weight": 0.1}, "agent": {"ddpg": {}}}
    assert expected("full-images", facts)["evaluator"] == {"evaluation": {"first_images": 0}}
    assert expected("no-l2", facts)["env"] == {"l2_weight": 0}
    assert expected("no-relabel", facts)["agent"] == {"ddpg": {"relabel": False}}
    assert expected(FULL, facts) == facts and facts["env"] == {"l2_weight": 0.1}
    with pytest.raises(UserError, match="Unknown variant 'no-l3'"):
        expected("no-l3", facts)


# The table


def rows(ends, target="macs=0.5", evaluations=10):
    """Rows of searches by (best, hypervolume, seconds) at their end, for each variant and seed."""
    return [
        Row("net", "data", target, name, seed, evaluations, seconds, best, volume)
        for name, searches in ends.items()
        for seed, (best, volume, seconds) in enumerate(searches)
    ]


def table_of(*given, **more):
    (cell,) = cells_of(rows(*given, **more))
    return {line.name: line for line in lines(cell)}


def test_differences_are_paired_by_seed():
    # Seeds differ by far more than the variants do: only pairs can show it.
    found = table_of({
        "no-l2": [(0.49, 0.3, 10), (0.69, 0.3, 10), (0.88, 0.3, 10)],
        FULL: [(0.50, 0.3, 20), (0.70, 0.3, 20), (0.90, 0.3, 20)],
        "no-imagined": [(0.51, 0.3, 20), (0.71, 0.3, 20), (0.91, 0.3, 20), (0.1, 0.3, 20)],
        "no-pretrain": [(0.40, 0.3, 20), (0.80, 0.3, 20), (0.90, 0.3, 20)],
    })  # fmt: skip
    assert list(found) == [FULL, "no-imagined", "no-l2", "no-pretrain"]
    one = found["no-l2"].best_to_full
    assert (one.mean, one.low, one.high) == pytest.approx((-0.04 / 3, -0.02, -0.01))
    assert found["no-l2"].pays == "yes"
    assert found["no-imagined"].seeds == 4  # the fourth has nothing to be compared with
    assert found["no-imagined"].best_to_full.mean == pytest.approx(0.01) and found["no-imagined"].pays == "no"
    assert found["no-pretrain"].best_to_full.mean == pytest.approx(0, abs=1e-12)
    assert found["no-pretrain"].pays == "unclear"
    assert (found[FULL].best_to_full, found[FULL].pays) == (None, "")
    assert found["no-l2"].cells() == (
        "no-l2", "3", "68.67%", "49.00..88.00", "-1.33", "-2.00..-1.00", "0.3000", "+0.0000", "+0.0000..+0.0000", "1",
        "yes",
    )  # fmt: skip


def test_equal_results_and_single_seeds_are_unclear():
    assert table_of({FULL: [(0.5, 0.3, 1)], "no-l2": [(0.4, 0.3, 1)]})["no-l2"].pays == "unclear"
    same = [(0.5, 0.3, 1), (0.6, 0.3, 1)]
    assert table_of({FULL: same, "no-l2": same})["no-l2"].pays == "unclear"
    alone = table_of({"no-l2": same})["no-l2"]
    assert (alone.pays, alone.best_to_full, alone.cells()[4:6]) == ("", None, ("", ""))


def test_a_range_of_targets_is_judged_by_its_front():
    ends = {FULL: [(0.5, 0.30, 1), (0.6, 0.40, 1)], "no-relabel": [(0.6, 0.29, 1), (0.7, 0.38, 1)]}
    assert table_of(ends)["no-relabel"].pays == "no"
    found = table_of(ends, target="macs=0.3..0.7")["no-relabel"]
    assert found.pays == "yes" and found.hypervolume_to_full.mean == pytest.approx(-0.015)


@pytest.mark.parametrize(
    ("best", "seconds", "pays"),
    [(0.5, 30, "yes"), (0.5, 10, "no"), (0.5, 20, "unclear"), (0.6, 30, "no"), (0.4, 30, "yes"), (0.4, 20, "unclear")],
)
def test_early_stopping_is_judged_by_seconds_unless_it_costs_accuracy(best, seconds, pays):
    found = table_of({FULL: [(0.5, 0.3, 20)] * 3, "full-images": [(best, 0.3, seconds)] * 3})["full-images"]
    assert found.pays == pays and found.seconds == seconds / 10


def test_legend_says_what_is_missing():
    cells = cells_of(rows({FULL: [(0.5, 0.3, 1)], "no-l2": [(0.5, 0.3, 1)]}))
    assert [line.split(":")[0] for line in legend(cells)] == [FULL, "no-l2"]
    assert all(one.without for one in VARIANTS.values())


# A real ablation


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablated")
    (folder / "settings.yaml").write_text(json.dumps(LADDER))
    command = (
        "bench", "ablation", *IMAGES, "--config", folder / "settings.yaml", "--episodes", "6", "--seeds", "2",
        "--variants", "no-l2,no-warm-start,full-images", "--out", folder / "out",
    )  # fmt: skip
    done = secateur(*command)
    assert done.code == 0, done.err
    return folder / "out", command, done


@pytest.fixture
def copied(ablated, tmp_path):
    out, command, done = ablated
    shutil.copytree(out, tmp_path / "out")
    return tmp_path / "out", (*command[:-1], tmp_path / "out"), done


def test_ablation_runs_what_it_says(ablated):
    out, _, done = ablated
    cell = out / "resnet8_digits-digits" / "macs=0.5"
    assert {path.name for path in cell.iterdir() if path.is_dir()} == {FULL, "no-l2", "no-warm-start", "full-images"}
    settings = {name: Run(cell / name / "seed-1").info().config for name in (FULL, "no-l2", "full-images")}
    assert [found["env"]["l2_weight"] for found in settings.values()] == [0.1, 0, 0.1]
    assert [found["evaluation"]["first_images"] for found in settings.values()] == [20, 20, 0]
    assert '"behaviour":"even"' in ledger(Run(cell / FULL / "seed-0"))[0]
    assert '"behaviour":"random"' in ledger(Run(cell / "no-warm-start" / "seed-0"))[0]
    assert {json.loads(line)["images"] for line in ledger(Run(cell / "full-images" / "seed-0"))} == {100}
    shown = [line.split()[0] for line in done.out.splitlines() if line.strip()]
    assert {FULL, "no-l2", "no-warm-start", "full-images", "no-l2:"} <= set(shown)
    page = (out / "quality.html").read_text()
    assert "<h1>Ablation</h1>" in page and "th>pays" in page


def test_a_finished_ablation_costs_nothing_and_can_be_redrawn(copied, tmp_path):
    out, command, done = copied
    again = secateur(*command)
    assert again.code == 0 and "of them shared" not in again.err and again.out == done.out
    assert secateur("bench", "ablation", "--out", out, "--summarise").out == done.out
    csv = shutil.copy(out / "summary.csv", tmp_path / "alone.csv")
    assert secateur("bench", "ablation", "--from-csv", csv).out == done.out
    markdown = secateur("bench", "ablation", "--from-csv", csv, "--markdown").out
    assert "| variant | seeds |" in markdown and "- no-l2: " in markdown
    assert {line.name for line in lines(cells_of(read_summary(csv).rows)[0])} >= {FULL, "no-l2"}
    assert "<h1>Ablation</h1>" in write_quality_page(Path(csv), tmp_path).read_text()


def test_searches_older_than_a_switch_are_gone_on_with(copied):
    out, command, done = copied
    for file in out.glob("*/*/*/*/config.json"):
        info = json.loads(file.read_text())
        if file.parts[-3] != "no-warm-start":
            for agent in ("ddpg", "td3", "sac"):
                del info["config"]["agent"][agent]["warm_start"]
        del info["config"]["env"]["profile_in_observation"]
        file.write_text(json.dumps(info))
    again = secateur(*command)
    assert again.code == 0 and again.out == done.out


def test_searches_with_other_settings_are_not_mixed(copied, tmp_path):
    out, command, _ = copied
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(LADDER | {"agent": {"ddpg": {"noise_start": 0.25}}}))
    refused(secateur(*command, "--config", other), "agent.ddpg.noise_start: 0.5 there, 0.25 here")
    cell = out / "resnet8_digits-digits" / "macs=0.5"
    (cell / "no-l2" / "seed-1").rename(cell / FULL / "seed-9")
    line = refused(secateur("bench", "ablation", "--out", out, "--summarise"), "seed-9")
    assert "env.l2_weight: 0.0 there, 0.1 here" in line


def test_agents_and_variants_are_not_mixed(copied, tmp_path):
    out, command, _ = copied
    refused(secateur("bench", "quality", "--out", out, "--summarise"), "show it with secateur bench ablation")
    quality = ("bench", "quality", *IMAGES, "--agents", "random", "--episodes", "6", "--seeds", "1", "--out")
    refused(secateur(*quality, out, "--config", command[command.index("--config") + 1]), "made differently (agent: ")
    assert secateur(*quality, tmp_path / "quality").code == 0
    refused(secateur("bench", "ablation", "--out", tmp_path / "quality", "--summarise"), "bench quality")
    csv = tmp_path / "quality" / "summary.csv"
    refused(secateur("bench", "ablation", "--from-csv", csv), "compares agents")


# One search over a range, or several


def test_episodes_are_split_evenly():
    asked = question("macs=30%..0.7", ["macs=0.5", "macs=0.3", "macs=0.7", "macs=50%"], 50)
    assert asked == Question("macs=0.3..0.7", ("macs=0.3", "macs=0.5", "macs=0.7"), 50)
    assert asked.shares == (17, 17, 16) and sum(asked.shares) == 50
    jobs = plan_front(request(agents=("random", "cem"), seeds=2), asked)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    for agent in ("random", "cem"):
        for seed in range(2):
            own = {job.cell.target: job for job in jobs if (job.agent, job.seed) == (agent, seed)}
            assert {target: job.config.loop.episodes for target, job in own.items()} == {
                "macs=0.3..0.7": 50, "macs=0.3": 17, "macs=0.5": 17, "macs=0.7": 16,
            }  # fmt: skip
            assert len({job.config.loop.seed for job in own.values()}) == 1


@pytest.mark.parametrize(
    ("span", "targets", "message"),
    [
        ("macs=0.5", ("macs=0.3", "macs=0.5"), "--range must be a range"),
        ("macs=0.3..0.7", ("macs=0.2", "macs=0.5"), "must be a single macs within macs=0.3..0.7, but got macs=0.2"),
        ("macs=0.3..0.7", ("size=0.3", "macs=0.5"), "must be a single macs within"),
        ("macs=0.3..0.7", ("macs=0.3..0.5", "macs=0.5"), "must be a single macs within"),
        ("macs=0.3..0.7", ("macs=0.5", "macs=50%"), "at least two different targets, but got macs=0.5"),
        ("mcas=0.3..0.7", ("macs=0.5",), "Did you mean 'macs'"),
    ],
)
def test_bad_questions(span, targets, message):
    with pytest.raises(UserError, match=message):
        question(span, targets, 50)


def test_searches_too_short_for_an_agent_are_refused():
    asked = question("macs=0.3..0.7", ["macs=0.3", "macs=0.7"], 29)
    with pytest.raises(UserError, match=r"'cem' needs at least 15 episodes in each of 2 searches.* 30 or more"):
        plan_front(request(agents=("cem",)), asked)


def made_up(out, target, seed, trials, agent="random", episodes=None):
    """A search of made-up trials, each (macs, accuracy): its run folder, and its cell."""
    env = {"targets": [target]}
    config = SearchConfig.model_validate({"env": env, "loop": {"episodes": episodes or len(trials), "seed": seed}})
    costs = {"macs": 1000, "flops": 2000, "params": 10, "size_bytes": 40, "bops": 10**6}
    original = {"accuracy": 0.9, **costs}
    run = Run(out / "net-digits" / target / agent / f"seed-{seed}")
    run.folder.mkdir(parents=True)
    plain = config.model_dump(mode="json") | {"calibration": "x", "splits": {"data": "digits"}}
    plain["agent"]["name"] = agent
    info = RunInfo(search_id="s", config=plain, net="net", net_fingerprint="n", fingerprint="f", original=original)
    run.write_info(info)
    policy = TrialPolicy(kept=(1,), weight_bits=(32,), activation_bits=(32,))
    with run.ledger.open("w") as file:
        for episode, (macs, accuracy) in enumerate(trials):
            status = "failed" if accuracy == 0 else "done"
            record = TrialRecord(
                trial_id=f"t{episode}", episode=episode, target={"macs": 0.5}, actions=((1.0,),), policy=policy,
                costs={**costs, "macs": macs}, accuracy_search=accuracy, l2=0.0, reward=0.0, behaviour="x",
                status=status, seconds={"evaluate": 2.0},
            )  # fmt: skip
            file.write(record.line() + "\n")
    facts = facts_of(info)
    facts["evaluator"]["device"] = "cpu"
    cell = {"net": "net", "data": "digits", "target": target, "fingerprint": "f", "cost": "macs"}
    document = {"version": 1, **cell, "original": original, "facts": facts}
    (run.folder.parents[1] / "cell.json").write_text(json.dumps(document))


@pytest.fixture
def fronts(tmp_path):
    out = tmp_path / "out"
    for seed in (0, 1):
        made_up(out, "macs=0.3..0.7", seed, [(700, 0.8), (500, 0.6 + 0.1 * seed), (499, 0), (310, 0.5)])
        made_up(out, "macs=0.4", seed, [(400, 0.6), (390, 0.4)])
        made_up(out, "macs=0.7", seed, [(700, 0.7), (690, 0.5)])
    (out / "front.json").write_text(json.dumps(Question("macs=0.3..0.7", ("macs=0.4", "macs=0.7"), 4).as_dict()))
    return out


def test_best_within_each_target_and_hypervolume_of_all_trials(fronts):
    found, notes = collect(fronts)
    assert not notes
    values = {(row.way, row.seed, row.measure): row.value for row in found}
    for seed in (0, 1):
        middle = 0.6 + 0.1 * seed
        assert values[ONE, seed, "macs=0.4"] == 0.5
        assert values[ONE, seed, "macs=0.7"] == 0.8
        assert values[SPLIT, seed, "macs=0.4"] == 0.6
        assert values[SPLIT, seed, "macs=0.7"] == 0.7
        assert values[ONE, seed, HYPERVOLUME] == pytest.approx(0.3 * 0.8 + 0.2 * middle + 0.19 * 0.5)
        assert values[SPLIT, seed, HYPERVOLUME] == pytest.approx(0.3 * 0.7 + 0.3 * 0.6 + 0.01 * 0.4)
    assert {(row.way, row.evaluations, row.seconds) for row in found} == {(ONE, 4, 8.0), (SPLIT, 4, 8.0)}
    assert from_csv(shutil.copy(_written(fronts, found), fronts / "again.csv")) == found
    (table,) = tables(found)
    assert table.head == (
        "agent", "way", "seeds", "macs=0.4", "95% interval", "macs=0.7", "95% interval", "hypervolume", "95% interval",
        "seconds",
    )  # fmt: skip
    assert table.lines[2].cells() == (
        "random", "difference", "2", "-10.00", "-10.00..-10.00", "+10.00", "+10.00..+10.00", "+0.0710",
        "+0.0610..+0.0810", "+0",
    )  # fmt: skip
    assert table.lines[0].cells()[3:5] == ("50.00%", "50.00..50.00")


def _written(out, found):
    path = out / "front.csv"
    path.write_text(to_csv(found))
    return path


def test_a_target_that_nothing_meets_counts_no_seed(tmp_path):
    def row(way, seed, value):
        return FrontRow("net", "data", "macs=0.3..0.7", "ddpg", way, seed, 4, 8.0, "macs=0.3", value)

    found = [row(ONE, 0, None), row(ONE, 1, 0.5), row(SPLIT, 0, 0.6), row(SPLIT, 1, 0.4)]
    assert from_csv(_written(tmp_path, found)) == found
    one, split, difference = tables(found)[0].lines
    assert one.cells()[3] == "50.00% (1/2)" and split.cells()[3] == "50.00%"
    assert difference.cells()[3:5] == ("+10.00 (1/2)", "+10.00..+10.00")
    nothing = tables([row(ONE, 0, None), row(SPLIT, 0, 0.6)])[0].lines
    assert nothing[0].cells()[3:5] == ("-", "") and nothing[2].cells()[3] == "-"


def test_unfinished_and_missing_searches_are_left_out(fronts):
    run = Run(fronts / "net-digits" / "macs=0.7" / "random" / "seed-1")
    run.ledger.write_text(run.ledger.read_text().splitlines(keepends=True)[0])
    made_up(fronts, "macs=0.4", 7, [(400, 0.6), (390, 0.4)])
    found, notes = collect(fronts)
    assert {row.seed for row in found} == {0}
    assert notes == ["net-digits: 2 unfinished seed(s) are left out."]
    shutil.rmtree(fronts / "net-digits" / "macs=0.4")
    assert collect(fronts) == ([], ["net-digits: left out, since not all of its searches are there."])


def test_searches_of_other_lengths_are_not_compared(fronts):
    shutil.rmtree(fronts / "net-digits" / "macs=0.4")
    made_up(fronts, "macs=0.4", 0, [(400, 0.6)])
    with pytest.raises(UserError, match="episodes: 1 there, 2 here"):
        collect(fronts)


@pytest.mark.parametrize("text", ["{", "{}", '{"version": 2}', '{"version": 1, "range": 3}'])
def test_a_damaged_question_is_one_line(fronts, text):
    (fronts / "front.json").write_text(text)
    with pytest.raises(UserError, match=r"front\.json is damaged"):
        collect(fronts)


def test_front_command_runs_resumes_and_shows(tmp_path):
    out = tmp_path / "out"
    command = (
        "bench", "front", *IMAGES, "--agents", "random", "--episodes", "7", "--seeds", "2", "--targets",
        "macs=0.4,macs=0.7", "--out", out,
    )  # fmt: skip
    done = secateur(*command)
    assert done.code == 0, done.err
    assert "28 evaluations" in done.err
    counts = {path.parts[-4]: path.read_text().count("\n") for path in out.glob("*/*/*/*/trials.jsonl")}
    assert counts == {"macs=0.3..0.7": 7, "macs=0.4": 4, "macs=0.7": 3}
    run = Run(out / "resnet8_digits-digits" / "macs=0.7" / "random" / "seed-1")
    before = ledger(run)
    shutil.rmtree(run.folder)
    again = secateur(*command)
    assert again.code == 0 and "3 evaluations, 3 of them shared" in again.err
    assert ledger(run) == before
    assert secateur("bench", "front", "--out", out, "--summarise").out == again.out
    assert secateur("bench", "front", "--from-csv", out / "front.csv").out == again.out
    markdown = secateur("bench", "front", "--from-csv", out / "front.csv", "--markdown").out
    assert "| agent | way | seeds | macs=0.4 |" in markdown and "| random | one search | 2 |" in markdown
    refused(secateur(*command, "--episodes", "9"), "another comparison (episodes: 7 there, 9 here)")


def test_bad_front_command_lines(tmp_path):
    front = ("bench", "front")
    refused(secateur(*front), "--out must name the folder")
    refused(secateur(*front, "--out", tmp_path, "--range", "macs=0.5"), "--range must be a range")
    refused(secateur(*front, "--out", tmp_path, "--agents", "rnadom"), "Did you mean 'random'")
    refused(secateur(*front, "--out", tmp_path, "--summarise"), "holds no comparison of fronts")
    assert not list(tmp_path.iterdir())
    (tmp_path / "wrong.csv").write_text("a,b\n")
    refused(secateur(*front, "--from-csv", tmp_path / "wrong.csv"), "is not a comparison of fronts")
    (tmp_path / "wrong.csv").write_text(to_csv([]) + "net,data\n")
    refused(secateur(*front, "--from-csv", tmp_path / "wrong.csv"), "line 2 is no row")


def test_a_range_that_begins_at_the_lowest_target_is_warned_of(tmp_path):
    command = ("bench", "front", "--agents", "random", "--episodes", "6", "--nets", "resnet8_digits=none.pt", *IMAGES)
    done = secateur(*command, "--out", tmp_path)
    refused(done, "none.pt")
    assert "Warning: macs=0.3 is the lower end of macs=0.3..0.7" in done.err
    assert "Warning" not in secateur(*command, "--out", tmp_path, "--range", "macs=0.25..0.7").err
