"""The front of a finished search: `front.json`, and the nets of its members."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from automl.files import storage_errors
from automl.runs import Run
from compressors.compressor import Compressor
from compressors.errors import UserError, one_of
from compressors.policy import CompressionPolicy
from compressors.storage import load_packed


class FrontMember(BaseModel):
    """One member of the front.

    Attributes:
        trial_id: Its trial.
        accuracy_search: On the search split, as the search saw it.
        accuracy_start: On the search split, as the long finetune found it: made by the best repair.
        accuracy_finetuned: On the search split, after the long finetune.
        accuracy_test: On the test split, after the long finetune; None where there is no test.
        accuracy_test_before: On the test split, before it.
        macs: Multiply-accumulates of one input.
        macs_ratio: The same, relative to the original net.
        params: Parameters.
        size_bytes: Bytes to store it.
        bops: Bit operations.
        seconds: Of its finetune.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: str
    accuracy_search: float
    accuracy_finetuned: float
    accuracy_test: float | None
    accuracy_test_before: float | None = None
    accuracy_start: float | None = None
    macs: int
    macs_ratio: float
    params: int
    size_bytes: int
    bops: int
    seconds: float = 0.0


class Front(BaseModel):
    """The content of `front.json`.

    Attributes:
        original: Accuracies and costs of the original net.
        front: Members in order of macs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    original: dict[str, int | float | None]
    front: tuple[FrontMember, ...]

    def member(self, trial_id: str) -> FrontMember:
        """The member with this id; raises a `UserError` that lists them where there is none."""
        for member in self.front:
            if member.trial_id == trial_id:
                return member
        raise one_of("front member", trial_id, [member.trial_id for member in self.front])

    def best(self, max_macs: float | None = None, min_accuracy: float | None = None) -> FrontMember:
        """The most accurate member within `max_macs`, or the cheapest of at least `min_accuracy`.

        Args:
            max_macs: Ratio to the original net where at most 1, else multiply-accumulates.
            min_accuracy: On the search split after finetuning, 0..1; the test split only reports.

        Raises:
            UserError: No member meets the conditions; the message says what the nearest has.
        """
        fitting = [member for member in self.front if max_macs is None or _within(member, max_macs)]
        if not fitting:
            least = min(self.front, key=lambda member: member.macs)
            raise UserError(
                f"No front member has at most max_macs={max_macs:g}; the smallest is {least.trial_id} with "
                f"{least.macs:,} macs ({least.macs_ratio:.3f} of the original)."
            )
        if min_accuracy is None:
            return max(fitting, key=_accuracy)
        good = [member for member in fitting if _accuracy(member) >= min_accuracy]
        if not good:
            best = max(fitting, key=_accuracy)
            raise UserError(
                f"No front member reaches min_accuracy={min_accuracy:g}; the best is {best.trial_id} with "
                f"{_accuracy(best):.4f}. Finetune longer, or search with a larger target."
            )
        return min(good, key=lambda member: member.macs)


def _within(member: FrontMember, max_macs: float) -> bool:
    return (member.macs_ratio if max_macs <= 1 else member.macs) <= max_macs


def _accuracy(member: FrontMember) -> float:
    # The search split chooses; the test split only reports what was chosen.
    return member.accuracy_finetuned


def read_front(run: Run) -> Front:
    """Reads `front.json`.

    Raises:
        UserError: It is not there yet, or is damaged.
    """
    if not run.front.exists():
        raise UserError(f"The run {run.address} has no front yet. Finish it with: secateur resume {run.address}")
    with storage_errors(f"read {run.front}"):
        data = run.front.read_bytes()
    try:
        return Front.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(
            f"{run.front} is damaged ({problem['msg']}). Delete it and run: secateur resume {run.address}"
        ) from None


def load_member(run: Run, trial_id: str, net: nn.Module, compressor: Compressor) -> tuple[CompressionPolicy, nn.Module]:
    """A front member's policy and finetuned net.

    Args:
        run: The run folder.
        trial_id: The member.
        net: The original net.
        compressor: Knows the net's layer table.

    Raises:
        UserError: The member's files are missing or damaged.
    """
    path = run.policies / f"{trial_id}.json"
    policy = CompressionPolicy.load(path)
    return policy, load_packed(net, compressor.table, policy, run.nets / f"{trial_id}.safetensors")
