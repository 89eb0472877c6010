"""How many workers a search gets and where; none of this changes its results. Ray is not imported here."""

from __future__ import annotations

from dataclasses import dataclass

ATTEMPTS = 3
"""Workers that an episode may take down with it before it is given up."""
MORE_ATTEMPTS = 10
"""The same where workers are known to die for other reasons, since an episode that one died of another has finished."""


@dataclass(frozen=True)
class WorkerPlan:
    """Workers for a search.

    Attributes:
        workers: Processes that play episodes.
        address: `local` starts Ray on this machine for this search alone; `auto` joins the cluster that runs here or
            that a job belongs to; `HOST:PORT` and `ray://HOST:PORT` join another.
        cpus_per_worker: Also the threads of torch in each worker.
        gpus_per_worker: May be a fraction.
        wait: Wait for a cluster that is too small or busy now, instead of refusing.
        deadline_s: An episode that takes longer is stopped and tried again; None: no limit.
        insecure: Accept a cluster elsewhere that anybody may use.
    """

    workers: int
    address: str = "local"
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    wait: bool = False
    deadline_s: float | None = None
    insecure: bool = False
