"""A sweep: many searches as trials of Ray Tune, each with its own run folder, which alone says what is done.

Tune gives out room and notices deaths. Its own state is not needed again: a sweep that goes on is a new one over the
searches whose `front.json` is missing, and these go on from their own checkpoints.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from automl.cluster.connect import connected
from automl.cluster.plan import ATTEMPTS, WorkerPlan
from automl.cluster.sweep_check import check_searches
from automl.cluster.sweep_config import Search
from automl.cluster.sweep_folder import SweepPlace
from automl.cluster.sweep_room import SweepPlan, require_room
from automl.cluster.sweep_trial import job_of, last_line, search_one
from automl.cluster.sweep_watch import make_watcher
from automl.runs import Run
from automl.search_loop import stopped_by_sigterm
from compressors.errors import UserError

_TUNE = ".tune"
"""Folder for Tune's own files inside the sweep's."""
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Tune waits so long for a trial to end by itself, and a search need not.
    "TUNE_FORCE_TRIAL_CLEANUP_S": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


def run_sweep(searches: Sequence[Search], plan: SweepPlan, place: SweepPlace) -> dict[str, str]:
    """Runs searches on Ray Tune.

    Args:
        searches: Those that are not finished, as `open_sweep` gives them.
        plan: What each may use, and where.
        place: Where they leave what they find.

    Returns:
        Why a search failed, by name; the others are finished.

    Raises:
        UserError: The cluster cannot be used, or has no room for even one search.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; what the searches have recorded is kept.
    """
    # Ray sets a handler of SIGTERM when it connects, so ours comes after it.
    with Run(place.folder).lock(), connected(_connection(plan, len(searches))) as ray, stopped_by_sigterm(), _quiet():
        require_room(ray, plan, place.folder, place.note)
        place.note("Trying out nets, data and targets.")
        check_searches(ray, searches, place.folder)
        return _tune(ray, searches, plan, place)


def _connection(plan: SweepPlan, searches: int) -> WorkerPlan:
    """The cluster to join, or one on this machine that holds as many searches as it has cores for."""
    return WorkerPlan(
        workers=plan.cpus * min(searches, plan.concurrent or max(1, _cores() // plan.cpus)),
        address=plan.address,
        gpus_per_worker=plan.gpus_per_worker,
        wait=plan.wait,
        insecure=plan.insecure,
    )


def _cores() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune without files, tables and handlers of its own."""
    before = {name: os.environ.get(name) for name in _QUIET}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_QUIET)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _tune(ray: Any, searches: Sequence[Search], plan: SweepPlan, place: SweepPlace) -> dict[str, str]:
    from ray import tune

    def one_search(config: dict[str, int], jobs: list[dict[str, Any]]) -> dict[str, str]:
        return search_one(jobs[config["index"]])

    # As a parameter it is in the object store alone: a tracking URI may hold a password, and Tune writes the rest down.
    jobs = [job_of(search, plan, place) for search in searches]
    trainable = tune.with_parameters(one_search, jobs=jobs)
    shutil.rmtree(place.folder / _TUNE, ignore_errors=True)
    watcher = make_watcher(searches, place)
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory(plan.bundles())),
        param_space={"index": tune.grid_search(list(range(len(jobs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=plan.concurrent),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=str(place.folder),
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
            callbacks=[watcher],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except ray.exceptions.RayError as error:
        raise UserError(
            f"The cluster was lost ({last_line(error)}). What the searches have recorded is kept; the same command "
            "goes on."
        ) from error
    except (tune.TuneError, OSError) as error:
        raise UserError(
            f"Ray Tune cannot go on ({last_line(error)}): check that {place.folder} can be written to. What the "
            "searches have recorded is kept; the same command goes on."
        ) from error
    shutil.rmtree(place.folder / _TUNE, ignore_errors=True)
    failures: dict[str, str] = watcher.failures
    for search in searches:
        if search.name not in failures and not Run(place.folder / search.name).front.exists():
            failures[search.name] = f"it ended, but {place.folder / search.name} holds no front.json."
    return failures
