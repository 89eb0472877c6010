"""The main job, top to bottom: from a net and data to a front of smaller nets."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from agents.registry import make_agent
from automl.candidate import Evaluator
from automl.cluster.metrics import metered
from automl.config import SearchConfig
from automl.episode import Guarded, Player
from automl.executor import Executor
from automl.finetuning import finetune_front
from automl.loading import load_named
from automl.open_run import Remake, describe, open_run
from automl.place import Place, settle, write_reports
from automl.preflight import check_config, check_place, check_targets
from automl.profile_cache import prepare
from automl.result import SearchResult
from automl.runs import Run
from automl.search_loop import SearchInterrupted, search, stopped_by_sigterm
from automl.task import Task, task_of
from automl.tracked import make_tracker
from automl.workers import make_executor
from compressors.compressor import Compressor
from compressors.errors import UserError
from compressors.grouping import layer_table
from envs.compression import CompressionEnv
from envs.target import parse_targets, sample_targets


def run_search(config: SearchConfig, place: Place, run: Run | None = None) -> SearchResult:
    """A search on a net and data given by name; `run` goes on with an earlier one."""
    check_config(config)
    check_place(place, run)
    loaded, splits = load_named(config.net, config.data, progress=place.watch.stage)
    if not loaded.trained:
        place.watch.note(f"Warning: net {loaded.name} is untrained. Train it with `secateur train` or pass --weights.")
    parts = ("train", "calibration", "search", "test")
    sizes = ", ".join(f"{len(getattr(splits, part)):,} {part}" for part in parts)
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (splits.mean, splits.std))
    place.watch.note(f"Images: {sizes}; normalised by mean {mean}, std {std}.")
    task = task_of(splits, batch_size=config.data.batch_size)
    return search_net(loaded.net, task, config, place, name=loaded.name, run=run, named=True)


def search_net(
    net: nn.Module,
    task: Task,
    config: SearchConfig,
    place: Place,
    *,
    name: str,
    run: Run | None = None,
    named: bool = False,
) -> SearchResult:
    """A search on any net: measure it, search, finetune the front, report; `named` if the command line can load it.

    Raises:
        UserError: Bad input, in one line.
        SearchInterrupted: Ctrl-C or SIGTERM came; everything finished is kept.
    """
    check_config(config)
    check_place(place, run)
    threads = place.threads or (run.info().threads if run is not None else None)
    # Workers and this process compute on equally many threads, so that results are those of one process.
    threads = threads or (place.workers.cpus_per_worker if place.workers is not None else None)
    device = settle(threads, place.device)
    with make_executor(place, threads, device) as executor:
        return _search_net(
            net.to(device).eval(), task, config, place, executor, device, name=name, run=run, named=named
        )


def _search_net(
    net: nn.Module,
    task: Task,
    config: SearchConfig,
    place: Place,
    executor: Executor,
    device: str,
    *,
    name: str,
    run: Run | None,
    named: bool,
) -> SearchResult:
    targets = parse_targets(config.env.targets)
    original = accuracy_of(net, task)
    place.watch.note(f"Original net {name}: {original:.4f} on the search split.")
    table = layer_table(net, task.example.to(device), name)
    check_targets(config, table)
    compressor = Compressor(config.compressor)
    profile = prepare(compressor, net, table, task, place.watch.stage)
    for note in profile.notes:
        place.watch.note(note)
    guard = Guarded(Evaluator(net, compressor, task, config.evaluation), original)
    env = CompressionEnv(table, profile, guard, config.env)
    agent = make_agent(config.agent, env, config.loop.episodes, config.loop.seed)
    run = open_run(run, place, config, table, task, original, compressor.cost.original, named=named)
    remake = Remake(config, task, place, named)
    tracker = make_tracker(run, place, net, compressor, task)
    progress = metered(place.progress, executor, search=run.search_id, net=name, staleness=config.loop.staleness)
    with run.lock(), stopped_by_sigterm():
        tracker.start()
        try:
            archive = search(
                Player(env, guard), agent, executor, run, config.loop,
                lambda episode: sample_targets(targets, episode, config.loop.seed), tracker, progress,
            )  # fmt: skip
            executor.close()
            front = finetune_front(
                run, net, task, compressor, archive, config.finetune,
                lambda policy, candidate, maker: describe(policy, candidate, maker, remake), place.watch.stage,
            )  # fmt: skip
        except KeyboardInterrupt:
            executor.close()
            tracker.close()
            raise SearchInterrupted(
                f"Interrupted while the front was finetuned. Go on with: secateur resume {run.address}"
            ) from None
        except BaseException:
            executor.close()
            tracker.close()
            raise
        reports = write_reports(run)
        tracker.finish()
    return SearchResult(run, front, net, compressor, task, reports)


def accuracy_of(net: nn.Module, task: Task) -> float:
    """The original net on the search split.

    Raises:
        UserError: It gives NaN or infinity.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values()):
        raise UserError("The net's weights must be finite, but hold NaN or infinity: check the weights file.")
    with torch.no_grad():
        accuracy = float(task.measure_search(copy.deepcopy(net).eval().to(memory_format=torch.channels_last)))
    if not math.isfinite(accuracy):
        raise UserError("Outputs of the original net on the search split must be finite, but hold NaN or infinity.")
    return accuracy
