"""From a remote run to its local copy: whatever the copy lacks, or has in an older form."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress

from automl.checkpoint import load_checkpoint
from automl.files import storage_errors
from automl.ledger import read_ledger
from automl.remote.copies import CHECKPOINT, CONFIG, FRONT, LEDGER, Seen, changed, rank, state_of, travels
from automl.remote.errors import named_as
from automl.remote.folder import CameIncomplete, RemoteFile, RemoteFolder
from automl.runs import Run
from compressors.errors import UserError

Warn = Callable[[str], None]


def pull(run: Run, *, light: bool = False, keep_config: bool = False, warn: Warn | None = None) -> None:
    """Fetches what a local copy lacks, or what is newer at the remote.

    Of ledger and checkpoint the side wins that has come further; of everything else the remote, unless only this side
    has a front.

    Args:
        run: The local copy; nobody writes to it meanwhile.
        light: Leave out checkpoint and nets.
        keep_config: Keep the local settings of the finetune.
        warn: Gets one line when what is there cannot be used; a log without it.

    Raises:
        UserError: The remote refuses, or the run is damaged there and not here.
    """
    pulling = _Pull(run, warn or logging.getLogger(__name__).warning)
    try:
        pulling.config(keep_config)
        if light:
            pulling.longer_ledger()
        else:
            pulling.trials()
        pulling.results(light)
    finally:
        shutil.rmtree(pulling.incoming, ignore_errors=True)
    pulling.state.save()


class _Pull:
    def __init__(self, run: Run, warn: Warn) -> None:
        self.run, self.warn = run, warn
        self.state, self.remote = state_of(run), RemoteFolder(run.remote)
        self.there = self._listed()
        self.incoming = run.folder / f".incoming-{os.getpid()}"

    def _listed(self) -> dict[str, RemoteFile]:
        return {name: file for name, file in self.remote.files().items() if travels(name)}

    def config(self, keep: bool) -> None:
        """Takes the configuration, unless it is of another search than the copy."""
        here = self.run.config.exists()
        if CONFIG not in self.there or (here and not self._is_new(CONFIG)):
            return
        self._fetch([CONFIG])
        with named_as(self.incoming, self.run.remote):
            try:
                found = Run(self.incoming).info()
            except UserError as error:
                if not here:
                    raise
                self.warn(f"{error} Going on with {self.run.config}.".replace(str(self.incoming), self.run.remote))
                self._send_again([CONFIG])
                return
        if here and found.fingerprint != self.run.info().fingerprint:
            raise UserError(
                f"{self.run.folder} is a copy of another search than {self.run.remote} holds now: delete that folder, "
                "or choose another name for the run."
            )
        if not (here and keep):
            self._take(CONFIG)

    def longer_ledger(self) -> None:
        """Takes the ledger alone, if it is the longer one: a checkpoint may count on fewer lines, not on more."""
        if LEDGER not in self.there or not self._is_new(LEDGER):
            return
        self._fetch([LEDGER])
        with named_as(self.incoming, self.run.remote):
            found = len(read_ledger(self.incoming / LEDGER))
        if found > len(read_ledger(self.run.ledger)):
            self._take(LEDGER)

    def trials(self) -> None:
        """Takes ledger and checkpoint, if they have come further."""
        names = [name for name in (LEDGER, CHECKPOINT) if name in self.there]
        if not any(self._is_new(name) for name in names):
            return
        self._fetch(names)
        fingerprint = self.run.info().fingerprint
        here = _NOTHING
        if self.run.ledger.exists() or self.run.checkpoint.exists():
            with suppress(UserError):
                here = _episodes(self.run, fingerprint)
        try:
            there = _episodes(Run(self.incoming), fingerprint)
        except UserError as error:
            problem = str(error).replace(str(self.incoming), self.run.remote)
            if here == _NOTHING:
                raise UserError(problem) from error
            self.warn(f"{problem} Going on with the copy in {self.run.folder}.")
            there = _NOTHING
        if there > here:
            for name in names:
                self._take(name)
        else:
            self._send_again(names)

    def results(self, light: bool) -> None:
        """Takes the rest: members, nets, report, front."""
        rest = [name for name in self.there if name not in (CONFIG, LEDGER, CHECKPOINT)]
        if light:
            rest = [name for name in rest if not name.endswith(".safetensors")]
        ours = self.run.front.exists() and FRONT not in self.there
        names = [
            name
            for name in sorted(rest, key=rank)
            if (not (self.run.folder / name).exists() if ours else self._is_new(name) and not self._is_ahead(name))
        ]
        self._fetch(names)
        for name in names:
            self._take(name)

    def _send_again(self, names: list[str]) -> None:
        for name in names:
            self.state.seen.pop(name, None)

    def _is_new(self, name: str) -> bool:
        seen = self.state.seen.get(name)
        here = (self.run.folder / name).exists()
        return not here or seen is None or not seen.version or seen.version != self.there[name].version

    def _is_ahead(self, name: str) -> bool:
        """Whether a file was sent by a process that died over it, and has changed here since."""
        seen = self.state.seen.get(name)
        sent = seen is not None and not seen.version and seen.size == self.there[name].size
        return sent and changed(self.run.folder / name, seen)

    def _fetch(self, names: list[str]) -> None:
        if not names:
            return
        with storage_errors(f"keep the run {self.run.remote} in {self.run.folder}"):
            try:
                self._fetch_listed(names)
            except CameIncomplete:
                # A search that goes on elsewhere has written to it since it was listed.
                self.there |= self._listed()
                self._fetch_listed(names)

    def _fetch_listed(self, names: list[str]) -> None:
        self.remote.fetch([self.there[name] for name in names], [self.incoming / name for name in names])

    def _take(self, name: str) -> None:
        path = self.run.folder / name
        with storage_errors(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.incoming / name, path)
            facts = path.stat()
        version = self.there[name].version
        self.state.seen[name] = Seen(size=facts.st_size, mtime_ns=facts.st_mtime_ns, version=version)


_NOTHING = (-1, -1)


def _episodes(run: Run, fingerprint: str) -> tuple[int, int]:
    """How far a run has come: its ledger and, behind it, its checkpoint."""
    snapshot = load_checkpoint(run.checkpoint, fingerprint)
    lines = len(read_ledger(run.ledger))
    if snapshot is not None and lines < snapshot.next_episode:
        raise UserError(
            f"{run.checkpoint} knows {snapshot.next_episode} trials, but {run.ledger} holds {lines}. Restore it from a "
            "copy, or delete both to start this search again."
        )
    return lines, snapshot.next_episode if snapshot is not None else 0
