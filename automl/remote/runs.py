"""Runs at URLs: found, fetched, claimed, and kept from other machines while this one searches."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from automl.files import storage_errors
from automl.remote.copies import CONFIG, copies_of, pending, state_of
from automl.remote.folder import RemoteFolder
from automl.remote.lease import Lease, held
from automl.remote.pull import pull
from automl.remote.push import push, seal
from automl.remote.url import joined
from automl.run_lock import RunInUse
from automl.runs import Run, check_name
from compressors.errors import UserError, one_of


def names_at(url: str) -> list[str]:
    """Names of the runs in a remote folder.

    Raises:
        UserError: The remote refuses.
    """
    remote = RemoteFolder(url)
    return [name for name in remote.folders() if remote.has(f"{name}/{CONFIG}")]


def taken_at(url: str) -> set[str]:
    """Names in a remote folder, also of runs that have not begun.

    Raises:
        UserError: The remote refuses.
    """
    return set(RemoteFolder(url).folders())


def fetch_run(url: str, *, light: bool = False) -> Run:
    """The local copy of a remote run, with what it lacks.

    Args:
        url: The run.
        light: Leave out checkpoint and nets.

    Raises:
        UserError: There is no such run (names the nearest), it is damaged, or the remote refuses.
    """
    root, _, name = joined(url).rpartition("/")
    check_name(name)
    run = Run(copies_of(root) / name, joined(url))
    if not run.config.exists() and not RemoteFolder(run.remote).has(CONFIG):
        names = names_at(root)
        if names:
            raise one_of("run", name, names)
        raise UserError(f"There is no run {url}: {root} holds no runs. Start one with `secateur search --runs {root}`.")
    with storage_errors(f"keep the run {url} in {run.folder}"):
        for folder in (run.folder, run.policies, run.nets):
            folder.mkdir(parents=True, exist_ok=True)
    # A search that goes on here knows better than the remote.
    with suppress(RunInUse), run.read_lock():
        pull(run, light=light)
    run.info()
    return run


def check_remote(url: str, name: str | None, run: Run | None = None) -> None:
    """Checks that a search can write to a remote folder, before anything takes time.

    Args:
        url: The folder of all runs.
        name: Of a new run.
        run: The run that goes on.

    Raises:
        UserError: The name is taken, another process searches the run, or the remote refuses.
    """
    remote = RemoteFolder(run.remote if run else url)
    if run is not None:
        Lease(run.remote, state_of(run).owner).require_free()
    elif name is not None and remote.has(f"{name}/{CONFIG}"):
        there = joined(url, name)
        raise UserError(f"The run {there} exists. Choose another name, or go on with: secateur resume {there}")
    probe = f".probe-{uuid.uuid4().hex[:8]}"
    try:
        remote.write(probe, b"")
    except UserError as error:
        raise UserError(str(error).replace(f"/{probe}", "")) from error
    with suppress(UserError):
        remote.remove(probe)


def claim(run: Run) -> None:
    """Takes the lease of a new run, so that no other machine makes one of this name.

    Raises:
        RunInUse: Another did.
        UserError: The remote refuses.
    """
    Lease(run.remote, state_of(run).owner).claim()


@contextmanager
def exclusive(run: Run) -> Iterator[None]:
    """Keeps other machines from a remote run, whose local copy is up to date from here on.

    Raises:
        UserError: Another machine searches it, it is damaged, or the remote refuses.
    """
    with held(Lease(run.remote, state_of(run).owner)):
        pull(run, keep_config=True)
        push(run, only=(CONFIG,))
        yield


def send_rest(run: Run) -> None:
    """Sends what an earlier process could not.

    Raises:
        UserError: Another machine searches the run, or the remote refuses.
    """
    if run.remote and pending(run):
        with run.lock():
            push(run)
            seal(run)
