"""What the tracker is told about a search: full policies of trials, and nets of the front's members."""

from __future__ import annotations

from typing import Any

from torch import nn

from automl.candidate import for_inference
from automl.finetuning import allocation_in
from automl.front import load_member
from automl.ledger import TrialRecord
from automl.place import Place
from automl.remote.mirror import mirrored
from automl.runs import Run
from automl.task import Task
from automl.tracker import MlflowTracker, NullTracker, Tracker
from automl.tracking import track
from compressors.compressor import Compressor
from compressors.errors import UserError


class Sources:
    """Policies and nets of one run.

    Args:
        run: The run folder.
        net: The original net.
        compressor: Prepared for it.
        task: Gives an example input.
    """

    def __init__(self, run: Run, net: nn.Module, compressor: Compressor, task: Task) -> None:
        self.run, self.net, self.compressor, self.task = run, net, compressor, task

    def policy(self, record: TrialRecord) -> dict[str, Any]:
        """A trial's policy as plain values."""
        return self.compressor.policy(allocation_in(record)).model_dump(mode="json")

    def model(self, trial_id: str) -> tuple[nn.Module, Any] | None:
        """A front member's net, ready for inference, and two inputs as an array."""
        try:
            _, net = load_member(self.run, trial_id, self.net, self.compressor)
        except UserError:
            return None  # not finetuned yet
        return for_inference(net, self.compressor), self.task.calibration[0][:2].contiguous().cpu().numpy()


def make_tracker(run: Run, place: Place, net: nn.Module, compressor: Compressor, task: Task) -> Tracker:
    """The tracker that `place` asks for; it also keeps a remote run up to date."""
    tracker: Tracker = NullTracker()
    if place.track:
        sources = Sources(run, net, compressor, task)
        tracker = MlflowTracker(run, place.tracking_uri, sources.policy, sources.model, warn=place.watch.note)
    return mirrored(tracker, run, place.watch.note)


def track_again(run: Run, uri: str | None, net: nn.Module, compressor: Compressor, task: Task) -> int:
    """Writes into MLflow what it does not have of a run; returns how many trials that were."""
    sources = Sources(run, net, compressor, task)
    return track(run, uri, sources.policy, sources.model)
