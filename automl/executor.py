"""Where episodes run: a protocol small enough that one process, or many, can stand behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Handle:
    """A value that an executor holds; given as an argument of `Executor.submit` it arrives as the value.

    Attributes:
        value: The value, or whatever the executor needs to find it.
    """

    value: Any


@dataclass(frozen=True)
class Ticket:
    """A promise of a result.

    Attributes:
        value: Whatever the executor needs to find or make the result.
    """

    value: Any


class WorkLost(Exception):
    """A call was given up: the processes that tried it died, or did not end in time. The message says how."""


class Executor(Protocol):
    """Runs functions somewhere."""

    def put(self, value: Any) -> Handle:
        """Hands over a value once, to be used by many calls. It must not be changed afterwards."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        """Asks for `function(*args)`; every argument that is a `Handle` is replaced by its value."""

    def result(self, ticket: Ticket) -> Any:
        """Waits for a result, once for each ticket.

        Raises:
            WorkLost: Nobody lived to answer.
            Exception: Whatever the function raised.
        """

    def close(self) -> None:
        """Lets go of everything; unfinished work is dropped."""


@dataclass
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]


class InlineExecutor:
    """Runs each call in this process, in this thread, when its result is asked for."""

    def put(self, value: Any) -> Handle:
        """Holds the value itself, not a copy."""
        return Handle(value)

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        """Notes the call; nothing runs yet."""
        return Ticket(_Call(function, args))

    def result(self, ticket: Ticket) -> Any:
        """Runs the call and returns, or raises, what it does."""
        call: _Call = ticket.value
        return call.function(*(arg.value if isinstance(arg, Handle) else arg for arg in call.args))

    def close(self) -> None:
        """There is nothing to let go of."""
