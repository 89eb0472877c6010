"""One search of a comparison: the project's own loop in a run folder of its own, judged by shared evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from agents.registry import make_agent
from automl.archive import Archive
from automl.benchmarks.quality.identity import Facts, claim_cell, digest, facts_here
from automl.benchmarks.quality.plan import Cell, Job
from automl.benchmarks.quality.store import SharedEvaluator, SharingExecutor, Store
from automl.candidate import Evaluator
from automl.config import SearchConfig
from automl.episode import Guarded, Player
from automl.ledger import TrialRecord
from automl.loading import load_named
from automl.open_run import open_run
from automl.pipeline import accuracy_of
from automl.place import NullWatch, Place, Watch
from automl.preflight import check_targets
from automl.profile_cache import prepare
from automl.progress import NullProgress
from automl.runs import Run
from automl.search_loop import search
from automl.task import Task, task_of
from compressors.compressor import Compressor
from compressors.grouping import layer_table
from compressors.layers import LayerTable
from compressors.profile import Profile
from envs.compression import CompressionEnv
from envs.target import front_cost, parse_targets, sample_targets

STORE_FILE = "evaluations.sqlite"


@dataclass(frozen=True, eq=False)
class Bench:
    """A net that is measured and ready to be searched, for all cells that differ in their target alone.

    Attributes:
        net: The original net.
        task: What it is judged on.
        table: Its layers.
        compressor: Prepared for it.
        profile: Its profile.
        accuracy: Of the original net on the search split.
    """

    net: nn.Module
    task: Task
    table: LayerTable
    compressor: Compressor
    profile: Profile
    accuracy: float

    def facts(self, config: SearchConfig, cell: Cell) -> Facts:
        """What a search in the cell with this configuration is made with."""
        return facts_here(config, cell, self.table.fingerprint, self.task.fingerprint, self.task.record)


class Benches:
    """Loads and measures each net once in a process."""

    def __init__(self, watch: Watch | None = None) -> None:
        self._watch = watch or NullWatch()
        self._held: dict[str, Bench] = {}

    def of(self, cell: Cell) -> Bench:
        """The cell's net.

        Raises:
            UserError: It or its data cannot be loaded.
        """
        config = cell.config
        parts = [getattr(config, name).model_dump_json() for name in ("net", "data", "compressor")]
        key = "\n".join([*parts, cell.device])
        if key not in self._held:
            self._held[key] = self._measure(cell)
        return self._held[key]

    def _measure(self, cell: Cell) -> Bench:
        config = cell.config
        loaded, splits = load_named(config.net, config.data)
        if not loaded.trained:
            self._watch.note(f"Warning: net {loaded.name} is untrained; name its weights with --nets NAME=WEIGHTS.")
        task = task_of(splits, batch_size=config.data.batch_size)
        net = loaded.net.to(cell.device).eval()
        accuracy = accuracy_of(net, task)
        table = layer_table(net, task.example.to(cell.device), loaded.name)
        check_targets(config, table)
        compressor = Compressor(config.compressor)
        profile = prepare(compressor, net, table, task, self._watch.stage)
        images = task.record["splits"]["search"]["count"]
        self._watch.note(f"{cell.net} on {cell.data}: {accuracy:.4f} on {images:,} search images.")
        return Bench(net, task, table, compressor, profile, accuracy)


def begin(cell: Cell, bench: Bench) -> None:
    """Checks a cell's target, and writes down or checks what its results are made with.

    Raises:
        UserError: The target is out of reach, or the folder's results were made differently.
    """
    check_targets(cell.config, bench.table)
    original = {"accuracy": bench.accuracy, **bench.compressor.cost.original.as_dict()}
    kinds = [target.kind for target in parse_targets(cell.config.env.targets)]
    claim_cell(cell, bench.facts(cell.config, cell), original, front_cost(kinds))


@dataclass(frozen=True)
class Done:
    """What a finished search answers.

    Attributes:
        evaluated: Evaluations that were made.
        shared: Evaluations that were looked up.
    """

    evaluated: int
    shared: int


def run_job(job: Job, bench: Bench, store: Store, told: Callable[[], None] | None = None) -> Done:
    """Runs one search to its end, or goes on with it.

    Args:
        job: The search.
        bench: Its net.
        store: Shared evaluations.
        told: Called after each recorded trial; a KeyboardInterrupt from it stops the search.

    Raises:
        SearchInterrupted: The search was stopped; it can go on.
        UserError: Bad input.
    """
    config, cell = job.config, job.cell
    evaluator = Evaluator(bench.net, bench.compressor, bench.task, config.evaluation)
    shared = SharedEvaluator(
        evaluator,
        store,
        digest(bench.facts(config, cell)["evaluator"]),
        seeded=config.evaluation.finetune_steps > 0,
        stops=evaluator.stops,
    )
    guard = Guarded(shared, bench.accuracy)
    env = CompressionEnv(bench.table, bench.profile, guard, config.env)
    agent = make_agent(config.agent, env, config.loop.episodes, config.loop.seed)
    run = _run_of(job, bench)
    targets = parse_targets(config.env.targets)
    with run.lock():
        search(
            Player(env, guard), agent, SharingExecutor(shared), run, config.loop,
            lambda episode: sample_targets(targets, episode, config.loop.seed), progress=_Telling(told),
        )  # fmt: skip
    return Done(shared.evaluated, shared.shared)


def trials(folder: Path) -> int:
    """How many whole lines the ledger of a run folder holds."""
    ledger = Run(folder).ledger
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def _run_of(job: Job, bench: Bench) -> Run:
    run = Run(job.folder)
    if run.config.exists():
        return run
    place = Place(
        runs=job.folder.parent, name=job.folder.name, track=False, device=job.cell.device, command=job.cell.command
    )
    costs = bench.compressor.cost.original
    return open_run(None, place, job.config, bench.table, bench.task, bench.accuracy, costs, named=True)


class _Telling(NullProgress):
    def __init__(self, told: Callable[[], None] | None) -> None:
        self._told = told

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        if self._told is not None:
            self._told()
