"""Says how a sweep goes, as Tune tells it, and keeps why searches failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from automl.cluster.plan import ATTEMPTS
from automl.cluster.sweep_config import Search
from automl.cluster.sweep_folder import SweepPlace
from automl.cluster.sweep_trial import last_line
from automl.runs import Run

_SAY_S = 30.0
"""How often a line says how far the searches are."""


def make_watcher(searches: Sequence[Search], place: SweepPlace) -> Any:
    """Tune's callback; its `failures` hold why a search failed, by name.

    Args:
        searches: By the index that their trials have.
        place: Gets the lines.
    """
    from ray.tune import Callback

    total = len(searches)

    class Watcher(Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.failures: dict[str, str] = {}
            self.running: list[int] = []
            self.ended = 0
            self.said = time.monotonic()

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune writes callbacks to a file that nobody reads

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            index = trial.config["index"]
            if index not in self.running:
                self.running.append(index)
                place.note(f"Begun: {searches[index].name}.")

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            place.note(f"The process of {searches[trial.config['index']].name} died; it goes on from its checkpoint.")

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._end(trial, (trial.last_result or {}).get("failure", ""))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            error = trial.get_pickled_error() or trial.get_error()
            reason = last_line(error) if isinstance(error, BaseException) else "unknown"
            self._end(trial, f"its process died {ATTEMPTS} times, the last time of {reason}")

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            now = time.monotonic()
            if now - self.said < _SAY_S:
                return
            self.said = now
            doing = ", ".join(_progress(searches[index], place) for index in self.running)
            place.note(f"Sweep: {self.ended} of {total} ended; {doing or 'waiting for room on the cluster'}.")

        def _end(self, trial: Any, failure: str) -> None:
            index = trial.config["index"]
            self.ended += 1
            self.said = time.monotonic()
            with suppress(ValueError):
                self.running.remove(index)
            name = searches[index].name
            if failure:
                self.failures[name] = failure
                place.note(f"Failed ({self.ended} of {total}): {name}: {failure}")
            else:
                place.note(f"Finished ({self.ended} of {total}): {name}.")

    return Watcher()


def _progress(search: Search, place: SweepPlace) -> str:
    """How far a search is, as its ledger says."""
    ledger = Run(place.folder / search.name).ledger
    try:
        done = ledger.read_bytes().count(b"\n")
    except OSError:
        done = 0
    return f"{search.name.removeprefix(f'{place.name}-')} {done}/{search.config.loop.episodes}"
