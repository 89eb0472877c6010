"""Workers on a Ray cluster behind the executor protocol: they may die, and their work is done all the same.

Ray's own retries are off. A thread of the driver hands out the calls in the order in which they came, replaces workers
that died, and gives a call whose worker died to another; so the search thread may learn while workers work.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from automl.cluster.actor import Actor, Key
from automl.cluster.calls import Call, Counts, Worker
from automl.cluster.connect import check_code, connected
from automl.cluster.deaths import cannot_begin, gone_nodes, is_death, node_is_gone, reason
from automl.cluster.plan import ATTEMPTS, MORE_ATTEMPTS, WorkerPlan
from automl.cluster.resources import require_resources, strategy
from automl.executor import Executor, Handle, InlineExecutor, Ticket, WorkLost
from automl.parcels import pack
from automl.place import Place
from compressors.errors import UserError

Note = Callable[[str], None]

_LOOK_S = 0.5
"""How often deadlines are looked at."""
_PAUSE_S = 5.0
"""Before another worker is started where the last ones died at once."""
_PATIENCE_S = 30.0
_MOST_TRIES = 100
"""Of one call, whatever its workers died of."""
_FAILED_STARTS = 3
"""Workers in a row that may die before any of them is ready."""


@contextmanager
def make_executor(place: Place, threads: int | None, device: str) -> Iterator[Executor]:
    """Where episodes run: this process, or workers on `threads` threads each.

    Args:
        place: Says which.
        threads: Of torch in each worker; None: one for each CPU of its.
        device: Of this process.

    Raises:
        UserError: The cluster cannot be used, or is too small, or workers would compute on another kind of device.
    """
    if place.workers is None:
        yield InlineExecutor()
        return
    if device != "cpu" and not place.workers.gpus_per_worker:
        raise UserError(
            f"This process computes on {device}, but its workers have no GPU: give --gpus-per-worker (0.5 lets two "
            "share one), or --device cpu."
        )
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
        self._queued: deque[Call] = deque()
        self._workers: dict[int, Worker] = {}
        self._numbers = itertools.count()
        self._failed_starts = 0
        self._spawn_at: list[float] = []
        self._ever_ready = False
        self._stalled_since: float | None = None
        self._attempts = ATTEMPTS
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None
        device = "cuda" if plan.gpus_per_worker else "cpu"
        self._new_actor: Callable[[], Any] = partial(self._actor_class().remote, self._threads, device)

    def _actor_class(self) -> Any:
        plan = self._plan
        return self._ray.remote(Actor).options(
            num_cpus=plan.cpus_per_worker,
            num_gpus=plan.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=strategy(self._ray),
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
        key = Key(f"v{next(self._keys)}")
        self._held[key] = reference
        return Handle(key)

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        """Queues a call; the first one brings the workers up."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="secateur-workers", daemon=True)
            self._thread.start()
        call = Call(function, tuple(arg.value if isinstance(arg, Handle) else arg for arg in args))
        self._events.put(lambda: self._take(call))
        return Ticket(call)

    def result(self, ticket: Ticket) -> Any:
        """Waits for a result.

        Raises:
            WorkLost: Several workers died of the call, or did not end in time.
            UserError: The workers cannot start, or run other code.
            Exception: Whatever the function raised.
        """
        call: Call = ticket.value
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
                    self._look()
                    continue
                if event is None:
                    break
                event()
                if self._events.empty():  # an answer that is in the queue is in time
                    self._look()
        except BaseException as error:  # a mistake in this file must not leave the search waiting
            self._break(UserError(f"The workers cannot be led any more: {type(error).__name__}: {error}."))
        finally:
            for worker in self._workers.values():
                with suppress(Exception):
                    self._ray.kill(worker.actor)

    def _take(self, call: Call) -> None:
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

    def _give(self, worker: Worker, call: Call) -> None:
        worker.call, worker.since, worker.begun = call, time.monotonic(), False
        call.tries += 1
        self._when_done(worker.actor.begin.remote(), lambda future: self._began(worker, call, future))
        self._when_done(
            worker.actor.run.remote(call.function, call.args), lambda future: self._answered(worker, call, future)
        )

    def _began(self, worker: Worker, call: Call, future: Future[Any]) -> None:
        if worker.call is call and future.exception() is None:
            worker.begun = True

    def _when_done(self, reference: Any, then: Callable[[Future[Any]], None]) -> None:
        # Ray calls back on a thread of its own; all decisions are made on ours.
        reference.future().add_done_callback(lambda future: self._events.put(lambda: then(future)))

    def _spawn(self) -> None:
        worker = Worker(next(self._numbers), self._new_actor())
        self._workers[worker.number] = worker
        loading = [worker.actor.hold.remote(key, reference) for key, reference in self._held.items()]
        for reference in loading:
            self._when_done(reference, lambda future: self._loaded(worker, future))
        self._when_done(worker.actor.facts.remote(), lambda future: self._started(worker, future))

    def _loaded(self, worker: Worker, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None and not is_death(self._ray, error):
            self._break(cannot_begin(error))

    def _started(self, worker: Worker, future: Future[Any]) -> None:
        if worker.number not in self._workers or self._broken is not None:
            return
        error = future.exception()
        if error is None:
            facts = future.result()
            try:
                if self._plan.address != "local":  # else it is this very installation
                    check_code(facts["code"], "this cluster")
            except UserError as other:
                if self._ever_ready:
                    self._replace(worker, str(other), later=True)
                else:
                    self._break(other)
                return
            worker.ready, worker.pid, worker.node = True, facts["pid"], facts["node"]
            self._ever_ready, self._failed_starts = True, 0
            self._assign()
        elif not is_death(self._ray, error) or getattr(error, "actor_init_failed", False):
            self._break(cannot_begin(error))
        else:
            self._failed_starts += not node_is_gone(error)
            if self._failed_starts >= _FAILED_STARTS and not self._ever_ready:
                text = f"{_FAILED_STARTS} workers in a row died before they could begin: {reason(error)}."
                self._break(UserError(text))
                return
            self._replace(worker, reason(error), later=self._failed_starts > 1)

    def _answered(self, worker: Worker, call: Call, future: Future[Any]) -> None:
        if worker.number not in self._workers:
            return
        error = future.exception()
        if error is not None and is_death(self._ray, error):
            self._died(worker, call, error)
            return
        worker.call = None
        if error is None:
            if call.deaths:
                self._attempts = MORE_ATTEMPTS
            call.finish(future.result())
        else:
            call.finish(error=getattr(error, "cause", None) or error)
        if worker.overran:  # killed at the very moment when it had done
            self._replace(worker, self._too_slow())
        self._assign()

    def _died(self, worker: Worker, call: Call, error: BaseException) -> None:
        # The texts are those of the ledger: they must not depend on who died of what.
        if worker.overran:
            call.overran += 1
        elif worker.begun:
            call.deaths.append(worker.node)
        if len(call.deaths) >= self._attempts:
            # A node that went away says nothing about the episode; it may take seconds until that is known.
            gone = gone_nodes(self._ray)
            call.deaths = [node for node in call.deaths if node not in gone]
        given_up = ""
        if call.overran >= ATTEMPTS:
            given_up = self._too_slow()
        elif len(call.deaths) >= self._attempts or call.tries >= _MOST_TRIES:
            given_up = "workers died of it, again and again"
        else:
            self.counts.requeued += 1
            self._queued.appendleft(call)
        self._replace(worker, self._too_slow() if worker.overran else reason(error))
        if given_up:
            self.counts.lost += 1
            call.finish(error=WorkLost(given_up))
        self._assign()

    def _too_slow(self) -> str:
        return f"it did not end within {self._plan.deadline_s:g} s"

    def _replace(self, worker: Worker, why: str, later: bool = False) -> None:
        del self._workers[worker.number]
        self.counts.restarts += 1
        with suppress(Exception):  # it may be out of reach only, and would keep its place
            self._ray.kill(worker.actor)
        self._say(f"A worker died ({why}); another takes over its work.")
        if later:
            self._spawn_at.append(time.monotonic() + _PAUSE_S)
        else:
            self._spawn()

    def _look(self) -> None:
        """Stops calls past their deadline, starts workers that are due, and says so where nobody works."""
        now = time.monotonic()
        limit = self._plan.deadline_s
        for worker in self._workers.values():
            if limit is not None and worker.call is not None and not worker.overran and now - worker.since > limit:
                worker.overran = True
                with suppress(Exception):
                    self._ray.kill(worker.actor)
        due = [moment for moment in self._spawn_at if moment <= now]
        self._spawn_at = [moment for moment in self._spawn_at if moment > now]
        for _ in due:
            self._spawn()
        stalled = bool(self._queued) and not any(worker.ready for worker in self._workers.values())
        if not stalled:
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = now
        elif now - self._stalled_since > _PATIENCE_S:
            self._stalled_since = math.inf  # said once
            self._say("No worker has started for half a minute: the cluster has no room for them now. Waiting.")

    def _say(self, text: str) -> None:
        with suppress(Exception):  # nobody may be listening any more
            self._note(text)

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
