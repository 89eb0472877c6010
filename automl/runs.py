"""Run folders: where one search keeps its configuration, trials, checkpoint, front, policies, nets and report."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from automl.files import storage_errors, write_atomic
from automl.remote.url import is_url, joined
from automl.run_info import VERSION, RunInfo
from automl.run_lock import RunInUse, locked
from compressors.errors import UserError, one_of

STATE = ".mirror.json"
"""File by which a run folder is known as the local copy of a remote run."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: `<runs root>/<search_id>`.
        remote: URL of the run where it is kept elsewhere as well, and `folder` is its local copy; else empty.
    """

    folder: Path
    remote: str = ""

    @property
    def address(self) -> str:
        """What to type to mean this run: its URL, or its folder."""
        return self.remote or str(self.folder)

    @property
    def search_id(self) -> str:
        """Name of the run."""
        return self.folder.name

    @property
    def config(self) -> Path:
        """What the search was asked to do; see `RunInfo`."""
        return self.folder / "config.json"

    @property
    def ledger(self) -> Path:
        """One line for each trial."""
        return self.folder / "trials.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state after the last finished trial."""
        return self.folder / "checkpoint.safetensors"

    @property
    def front(self) -> Path:
        """The front's members after finetuning and test."""
        return self.folder / "front.json"

    @property
    def policies(self) -> Path:
        """Folder of `<trial_id>.json` policies."""
        return self.folder / "policies"

    @property
    def nets(self) -> Path:
        """Folder of the front's nets."""
        return self.folder / "nets"

    @property
    def report(self) -> Path:
        """The report to open in a browser."""
        return self.folder / "report.html"

    def write_info(self, info: RunInfo) -> None:
        """Writes `config.json`, from which moment the run can be resumed."""
        write_atomic(self.config, (info.model_dump_json(indent=1) + "\n").encode())

    def info(self) -> RunInfo:
        """Reads `config.json`.

        Raises:
            UserError: It is missing, damaged or of another version.
        """
        if not self.config.exists():
            raise UserError(
                f"The run {self.folder} has no config.json: it stopped before its search began. "
                "Delete the folder and start the search again."
            )
        with storage_errors(f"read {self.config}"):
            data = self.config.read_bytes()
        try:
            info = RunInfo.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the file"
            raise UserError(f"{self.config} is damaged ({where}: {problem['msg']}). Restore it from a copy.") from None
        if info.version != VERSION:
            raise UserError(f"{self.config} has version {info.version}, this Secateur reads {VERSION}.")
        return info

    def require(self, expected: str) -> None:
        """Checks that the run is of the search with the fingerprint `expected`.

        Raises:
            UserError: It is another search's.
        """
        found = self.info().fingerprint
        if found != expected:
            raise UserError(
                f"The run {self.folder} belongs to another search (its configuration or net differs: fingerprint "
                f"{found[:12]}, here {expected[:12]}). Choose another name, or resume it with what config.json says."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing to the run, of a remote run also those on other machines.

        A dead process's lock does not count. A remote run's local copy is brought up to date.

        Raises:
            RunInUse: Another process holds it.
            UserError: The folder cannot be written to, or the remote refuses.
        """
        with locked(self.folder) as file:
            with storage_errors(f"write to the run {self.folder}"):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            with _exclusive(self) if self.remote else nullcontext():
                yield

    @contextmanager
    def read_lock(self) -> Iterator[None]:
        """Keeps searches from the run while several processes bring its local copy up to date.

        Raises:
            RunInUse: A search writes to it.
            UserError: The folder cannot be written to.
        """
        with locked(self.folder, shared=True):
            yield


def _exclusive(run: Run) -> AbstractContextManager[None]:
    from automl.remote.runs import exclusive

    return exclusive(run)


def new_run(root: Path, name: str | None = None, prefix: str = "run", remote: str = "") -> Run:
    """Makes a run folder.

    Args:
        root: The runs folder; made where missing.
        name: Name of the run. Without one it is `prefix` and the next free number, e.g. `resnet20-digits-003`.
        prefix: Beginning of a numbered name.
        remote: URL of a folder where all runs are kept as well; the run is claimed there.

    Raises:
        UserError: The name is taken or no name for a folder, or the folder cannot be made.
    """
    if name is not None:
        require_free(root, name)
    with storage_errors(f"make a run in {root}"):
        root.mkdir(parents=True, exist_ok=True)
        if not remote:
            return _make_named(root, name) if name is not None else _make_numbered(root, prefix)
    from automl.remote.runs import claim, taken_at

    taken = taken_at(remote) if name is None else ()
    while True:
        with storage_errors(f"make a run in {root}"):
            made = _make_named(root, name) if name is not None else _make_numbered(root, prefix, taken)
        run = Run(made.folder, joined(remote, made.search_id))
        try:
            claim(run)
        except RunInUse:
            if name is not None:
                raise
            continue  # another machine has just taken this number
        return run


def require_free(root: Path, name: str) -> None:
    """Checks that a run of this name can be made.

    Raises:
        UserError: The name is taken, or no name for a folder.
    """
    check_name(name)
    run = Run(root / name)
    if run.folder.is_file():
        raise UserError(f"{run.folder} is a file. Choose another name for the run.")
    if run.config.exists() or run.ledger.exists():
        raise UserError(
            f"The run {run.folder} exists. Choose another name, or go on with: secateur resume {run.folder}"
        )


def check_name(name: str) -> None:
    """Checks that a name can be a run's.

    Raises:
        UserError: It cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise UserError(
            f"A run's name consists of at most 200 letters, digits, '.', '_' and '-' and begins with a letter or "
            f"digit, but got {name!r}."
        )


def _make_named(root: Path, name: str) -> Run:
    run = Run(root / name)
    run.folder.mkdir(exist_ok=True)
    _fill(run)
    return run


def _make_numbered(root: Path, prefix: str, taken: Collection[str] = ()) -> Run:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", prefix).strip("-.") or "run"
    number = 1
    while True:
        run = Run(root / f"{safe}-{number:03d}")
        if run.search_id in taken:
            number += 1
            continue
        try:
            run.folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        _fill(run)
        return run


def _fill(run: Run) -> None:
    run.policies.mkdir(exist_ok=True)
    run.nets.mkdir(exist_ok=True)


def find_run(root: Path | str, run: str | Path, *, light: bool = False) -> Run:
    """The run that somebody means by a folder, a URL or an id; of a remote one what is missing here is fetched.

    Args:
        root: The runs folder or its URL, for ids.
        run: Path or URL of a run folder, or a run's name.
        light: Of a remote run, fetch neither checkpoint nor nets.

    Raises:
        UserError: There is none (names the nearest), the folder is not a run's, or its search never began.
    """
    if is_url(run) or (is_url(root) and not (Path(run) / "config.json").exists()):
        from automl.remote.runs import fetch_run

        return fetch_run(str(run) if is_url(run) else joined(str(root), str(run)), light=light)
    root = Path(root)
    for folder in (Path(run), root / run):
        if folder.is_file():
            raise UserError(f"{folder} is a file; a run is a folder, here perhaps {folder.parent}.")
        if not folder.is_dir():
            continue
        found = Run(folder.resolve(), _remote_of(folder))
        if found.config.exists():
            found.info()
            return found
        if found.policies.is_dir() or found.ledger.exists():
            found.info()  # raises: half-written
        if folder == Path(run):
            names = _names(root)
            hint = f" Runs in {root}: {', '.join(names)}." if names else ""
            raise UserError(f"{folder} is not a run folder: it has no config.json.{hint}")
    names = _names(root)
    if not names:
        raise UserError(f"There is no run {str(run)!r}: {root} holds no runs. Start one with `secateur search`.")
    raise one_of("run", str(run), names)


def _remote_of(folder: Path) -> str:
    if not (folder / STATE).exists():
        return ""
    from automl.remote.copies import state_in

    state = state_in(folder)
    return state.url if state is not None else ""


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(folder.name for folder in root.iterdir() if (folder / "config.json").is_file())
