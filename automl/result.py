"""What a finished search gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from automl.export import Exported, export
from automl.front import Front, FrontMember, load_member
from automl.runs import Run
from automl.task import Task
from compressors.compressor import Compressor
from compressors.policy import CompressionPolicy


@dataclass(frozen=True, repr=False, eq=False)
class SearchResult:
    """A finished search.

    Attributes:
        run: Its run folder.
        result: The content of `front.json`: the original net and the front.
        original: The original net.
        compressor: Prepared for it.
        task: What it was judged on.
        reports: Reports written.
    """

    run: Run
    result: Front
    original: nn.Module
    compressor: Compressor
    task: Task
    reports: list[Path] = field(default_factory=list)

    def __repr__(self) -> str:
        first, last = self.front[0], self.front[-1]
        members = f"{len(self.front)} members" if len(self.front) > 1 else "1 member"
        return (
            f"SearchResult({str(self.run.folder)!r}: {members}, macs {first.macs_ratio:.3f}..{last.macs_ratio:.3f} of "
            f"the original, accuracy {first.accuracy_finetuned:.4f}..{last.accuracy_finetuned:.4f}, original "
            f"{self.result.original['accuracy_search']:.4f})"
        )

    @property
    def front(self) -> tuple[FrontMember, ...]:
        """The front's members, in order of macs."""
        return self.result.front

    def best(self, max_macs: float | None = None, min_accuracy: float | None = None) -> FrontMember:
        """The most accurate member within `max_macs`, or the cheapest of at least `min_accuracy`; see `Front.best`."""
        return self.result.best(max_macs, min_accuracy)

    def policy(self, trial_id: str) -> CompressionPolicy:
        """A member's policy."""
        self.result.member(trial_id)
        return load_member(self.run, trial_id, self.original, self.compressor)[0]

    def net(self, trial_id: str) -> nn.Module:
        """A member's finetuned net, in evaluation mode."""
        self.result.member(trial_id)
        return load_member(self.run, trial_id, self.original, self.compressor)[1]

    def export(
        self,
        out: str | Path,
        *,
        trial_id: str | None = None,
        max_macs: float | None = None,
        min_accuracy: float | None = None,
    ) -> Exported:
        """Exports one member: by id, or the best under the conditions; see `automl.export.export`.

        Args:
            out: Folder to write to.
            trial_id: The member.
            max_macs: Ratio where at most 1, else multiply-accumulates.
            min_accuracy: On the search split after finetuning.
        """
        chosen = self.result.member(trial_id) if trial_id else self.best(max_macs, min_accuracy)
        policy, net = load_member(self.run, chosen.trial_id, self.original, self.compressor)
        return export(net, self.original, policy, self.compressor, self.task.calibration[0][:4], Path(out))
