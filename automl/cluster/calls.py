"""Calls, the workers that they are given to, and what happened to them: plain records of `automl.workers`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Call:
    """A function that is to be called, and what became of it.

    Attributes:
        function: The function.
        args: Its arguments; keys stand for held values.
        deaths: Nodes on which workers died of it.
        overran: How often it was stopped at its deadline.
        tries: How often it was given to a worker.
        done: Set when it has a value or an error.
        value: What the function returned.
        error: What it raised, or why it was given up.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    deaths: list[str] = field(default_factory=list)
    overran: int = 0
    tries: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    error: BaseException | None = None

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """Tells whoever waits."""
        self.value, self.error = value, error
        self.done.set()


@dataclass(eq=False)
class Worker:
    """A worker as the driver sees it.

    Attributes:
        number: Its own; replacements have others.
        actor: Ray's handle.
        ready: Whether it has begun.
        call: What it works on.
        since: When it was given that, in seconds of the monotonic clock.
        begun: Whether it lived when that began.
        overran: Whether it was killed at its deadline.
        pid: Of its process.
        node: Id of its node.
    """

    number: int
    actor: Any
    ready: bool = False
    call: Call | None = None
    since: float = 0.0
    begun: bool = False
    overran: bool = False
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
