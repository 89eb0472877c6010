"""Workers on a Ray cluster behind the executor protocol: they may die, and their work is done all the same.

Ray's own retries are off. A thread of the driver hands out the calls in the order in which they came, replaces workers
that died, and gives a call whose worker died to another; so the search thread may learn while workers work.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from automl.cluster.code import code_facts
from automl.cluster.connect import check_code, connected
from automl.cluster.plan import ATTEMPTS, MORE_ATTEMPTS, WorkerPlan
from automl.cluster.resources import require_resources, strategy
from automl.executor import Executor, Handle, InlineExecutor, Ticket, WorkLost
from automl.parcels import Parcel, pack, unpack
from automl.place import Place, settle
from compressors.errors import UserError

Note = Callable[[str], None]

_LOOK_S = 0.5
"""How often deadlines are looked at."""
_FAILED_STARTS = 3
"""Workers in a row that may die before any of them is ready."""


@contextmanager
def make_executor(place: Place, threads: int | None) -> Iterator[Executor]:
    """Where episodes run: this process, or workers on `threads` threads each.

    Raises:
        UserError: The cluster cannot be used, or is too small.
    """
    if place.workers is None:
        yield InlineExecutor()
        return
    with ray_executor(place.workers, threads, place.progress.note, place.watch.note) as executor:
        yield executor


@contextmanager
def ray_executor(plan: WorkerPlan, threads: int | None, note: Note, waiting: Note) -> Iterator[RayExecutor]:
    """An executor on the cluster of a plan, while the block lasts.

    Args:
        plan: How many workers, and where.
        threads: Of torch in each worker; None: one for each CPU of its.
        note: Gets a line when a worker dies.
        waiting: Gets a line when a cluster is waited for.

    Raises:
        UserError: The cluster cannot be used, see `connected`, or is too small.
    """
    with connected(plan, waiting) as ray:
        require_resources(ray, plan, waiting)
        executor = RayExecutor(ray, plan, threads, note)
        try:
            yield executor
        finally:
            executor.close()


class _Key(str):
    """Stands for a value that every worker holds."""


class _Actor:
    """What runs in a worker's process."""

    def __init__(self, threads: int) -> None:
        settle(threads, "auto")
        self.values: dict[str, Any] = {}

    def hold(self, key: str, parcel: Parcel) -> None:
        self.values[key] = unpack(parcel)

    def facts(self) -> dict[str, Any]:
        import ray

        return {"code": code_facts(), "pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return function(*(self.values[arg] if isinstance(arg, _Key) else arg for arg in args))


@dataclass
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    deaths: list[str] = field(default_factory=list)  # nodes that workers died on
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    error: BaseException | None = None

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error = value, error
        self.done.set()


@dataclass(eq=False)
class _Worker:
    number: int
    actor: Any
    ready: bool = False
    call: _Call | None = None
    since: float = 0.0
    killed_for: str = ""
    pid: int = 0
    node: str = ""


@dataclass
class Counts:
    """What happened to the workers of a search, for metrics.

    Attributes:
        busy: Workers at work now.
        waiting: Calls that no worker has yet.
        requeued: Calls that were given to another worker.
        restarts: Workers that were replaced.
        lost: Calls that were given up.
    """

    busy: int = 0
    waiting: int = 0
    requeued: int = 0
    restarts: int = 0
    lost: int = 0


class RayExecutor:
    """Runs calls in workers on a Ray cluster.

    Args:
        ray: The module, connected.
        plan: How many workers, and what each may use.
        threads: Of torch in each worker; None: one for each CPU of its.
        note: Gets a line when a worker dies.

    Attributes:
        counts: What happened so far.
    """

    def __init__(self, ray: Any, plan: WorkerPlan, threads: int | None, note: Note) -> None:
        self._ray, self._plan, self._note = ray, plan, note
        self._threads = threads or plan.cpus_per_worker
        self.counts = Counts()
        self._held: dict[str, Any] = {}
        self._keys = itertools.count()
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._queued: deque[_Call] = deque()
        self._workers: dict[int, _Worker] = {}
        self._numbers = itertools.count()
        self._failed_starts = 0
        self._attempts = ATTEMPTS
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._actor = ray.remote(_Actor).options(
            num_cpus=plan.cpus_per_worker,
            num_gpus=plan.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=strategy(ray),
        )

    def put(self, value: Any) -> Handle:
        """Places a value in the cluster's object store, once on each node, for all workers to share.

        Raises:
            UserError: It cannot be sent, the object store is full, or workers are at work already.
        """
        if self._thread is not None:
            raise UserError("Values must be put before the first call is submitted.")
        try:
            parcel = pack(value)
        except (TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"Net, data and metric must be such that they can be sent to other processes, but: {error}. Define "
                "functions and classes in a module, and open files in the function that reads them."
            ) from error
        size = sum(len(buffer) for buffer in parcel.buffers) + len(parcel.stream)
        try:
            reference = self._ray.put(parcel)
        except (self._ray.exceptions.ObjectStoreFullError, self._ray.exceptions.OutOfDiskError) as error:
            raise UserError(
                f"Ray's object store has no room for {size / 1e6:,.0f} MB of net and images: use fewer search images, "
                "or give Ray more with `ray start --object-store-memory`."
            ) from error
        key = _Key(f"v{next(self._keys)}")
        self._held[key] = reference
        return Handle(key)

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        """Queues a call; the first one brings the workers up."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="secateur-workers", daemon=True)
            self._thread.start()
        call = _Call(function, tuple(arg.value if isinstance(arg, Handle) else arg for arg in args))
        self._events.put(lambda: self._take(call))
        return Ticket(call)

    def result(self, ticket: Ticket) -> Any:
        """Waits for a result.

        Raises:
            WorkLost: Several workers died of the call, or did not end in time.
            UserError: The workers cannot start, or run other code.
            Exception: Whatever the function raised.
        """
        call: _Call = ticket.value
        while not call.done.wait(1.0):  # not forever: signals are seen between two waits
            if self._thread is not None and not self._thread.is_alive() and not call.done.is_set():
                raise UserError("The workers' thread ended unexpectedly; the search can be resumed.")
        if call.error is not None:
            raise call.error
        return call.value

    def pids(self) -> list[int]:
        """Processes of the workers that are ready, on whatever nodes."""
        return [worker.pid for worker in list(self._workers.values()) if worker.ready]

    def close(self) -> None:
        """Kills the workers; unfinished calls are dropped."""
        if self._thread is not None and self._thread.is_alive():
            self._events.put(None)
            self._thread.join(10)

    # What follows runs in the thread.

    def _serve(self) -> None:
        try:
            for _ in range(self._plan.workers):
                self._spawn()
            while True:
                try:
                    event = self._events.get(timeout=_LOOK_S)
                except queue.Empty:
                    self._check_deadlines()
                    continue
                if event is None:
                    break
                event()
                self._check_deadlines()
        except BaseException as error:  # a mistake in this file must not leave the search waiting
            self._break(error)
        finally:
            for worker in self._workers.values():
                with suppress(Exception):
                    self._ray.kill(worker.actor)

    def _take(self, call: _Call) -> None:
        if self._broken is not None:
            call.finish(error=self._broken)
            return
        self._queued.append(call)
        self._assign()

    def _assign(self) -> None:
        for worker in self._workers.values():
            if not self._queued:
                break
            if worker.ready and worker.call is None:
                self._give(worker, self._queued.popleft())
        self._count()

    def _give(self, worker: _Worker, call: _Call) -> None:
        worker.call, worker.since = call, time.monotonic()
        self._when_done(
            worker.actor.run.remote(call.function, call.args), lambda future: self._answered(worker, call, future)
        )

    def _when_done(self, reference: Any, then: Callable[[Future[Any]], None]) -> None:
        # Ray calls back on a thread of its own; all decisions are made on ours.
        reference.future().add_done_callback(lambda future: self._events.put(lambda: then(future)))

    def _spawn(self) -> None:
        worker = _Worker(next(self._numbers), self._actor.remote(self._threads))
        self._workers[worker.number] = worker
        loading = [worker.actor.hold.remote(key, reference) for key, reference in self._held.items()]
        for reference in loading:
            self._when_done(reference, lambda future: self._loaded(worker, future))
        self._when_done(worker.actor.facts.remote(), lambda future: self._started(worker, future))

    def _loaded(self, worker: _Worker, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None and not self._is_death(error):
            self._break(self._cannot_load(error))

    def _started(self, worker: _Worker, future: Future[Any]) -> None:
        if worker.number not in self._workers or self._broken is not None:
            return
        error = future.exception()
        if error is None:
            facts = future.result()
            try:
                if self._plan.address != "local":  # else it is this very installation
                    check_code(facts["code"], "this cluster")
            except UserError as other:
                self._break(other)
                return
            worker.ready, worker.pid, worker.node = True, facts["pid"], facts["node"]
            self._failed_starts = 0
            self._assign()
        elif self._is_death(error) and not getattr(error, "actor_init_failed", False):
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                self._break(
                    UserError(f"{_FAILED_STARTS} workers in a row died before they could begin: {_reason(error)}.")
                )
                return
            self._replace(worker, error)
        else:
            self._break(self._cannot_load(error))

    def _answered(self, worker: _Worker, call: _Call, future: Future[Any]) -> None:
        if worker.number not in self._workers:
            return
        error = future.exception()
        if error is None:
            worker.call = None
            if call.deaths:
                self._attempts = MORE_ATTEMPTS
            call.finish(future.result())
        elif not self._is_death(error):
            worker.call = None
            call.finish(error=getattr(error, "cause", None) or error)
        else:
            self._died(worker, call, error)
            return
        self._assign()

    def _died(self, worker: _Worker, call: _Call, error: BaseException) -> None:
        call.deaths.append(worker.node)
        if len(call.deaths) >= self._attempts:
            # A node that went away says nothing about the episode; it may take seconds until that is known.
            gone = {node["NodeID"] for node in self._ray.nodes() if not node["Alive"]}
            call.deaths = [node for node in call.deaths if node not in gone]
        if len(call.deaths) >= self._attempts:
            self.counts.lost += 1
            reason = worker.killed_for or _reason(error)
            call.finish(error=WorkLost(f"{len(call.deaths)} workers died of it, the last: {reason}"))
        else:
            self.counts.requeued += 1
            self._queued.appendleft(call)
        self._replace(worker, error)

    def _replace(self, worker: _Worker, error: BaseException) -> None:
        del self._workers[worker.number]
        self.counts.restarts += 1
        self._note(f"A worker died ({worker.killed_for or _reason(error)}); another takes over its work.")
        self._spawn()
        self._assign()

    def _check_deadlines(self) -> None:
        limit = self._plan.deadline_s
        if limit is None:
            return
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.call is not None and not worker.killed_for and now - worker.since > limit:
                worker.killed_for = f"it did not end within {limit:g} s"
                self._ray.kill(worker.actor)

    def _break(self, error: BaseException) -> None:
        """Nothing can be run any more: everybody who waits is told."""
        if self._broken is not None:
            return
        self._broken = error
        for call in [*self._queued, *(worker.call for worker in self._workers.values() if worker.call is not None)]:
            call.finish(error=error)
        self._queued.clear()

    def _count(self) -> None:
        self.counts.waiting = len(self._queued)
        self.counts.busy = sum(worker.call is not None for worker in self._workers.values())

    def _is_death(self, error: BaseException) -> bool:
        known = self._ray.exceptions
        return isinstance(
            error,
            (known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError,
             known.ObjectLostError, known.LocalRayletDiedError),
        ) and not isinstance(error, known.RayTaskError)  # fmt: skip

    def _cannot_load(self, error: BaseException) -> UserError:
        cause = getattr(error, "cause", None) or error
        text = _reason(cause)
        if isinstance(cause, ModuleNotFoundError) or "No module named" in text:
            return UserError(
                f"The workers lack a module of the net or its data: {text}. Install it on the nodes, or send it along "
                "with `secateur submit --working-dir .`."
            )
        return UserError(f"The workers cannot begin: {text}.")


def _reason(error: BaseException) -> str:
    """Why a worker is gone, in words of few."""
    text = str(error)
    if "low on memory" in text or "OutOfMemory" in type(error).__name__:
        return "its node ran out of memory"
    if "node has died" in text:
        return "its node is gone"
    if "worker process has died" in text or "connection error code" in text:
        return "its process or its node was killed, or crashed"
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".")
