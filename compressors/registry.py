"""A registry: an ordinary object that maps names to frozen records with a description and a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from compressors.errors import one_of

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing.

    Attributes:
        name: The name a user types.
        summary: One line on what it does.
        source: Paper, year and section, or `""` where it is common practice.
        value: The class or function itself.
    """

    name: str
    summary: str
    source: str
    value: T


class Registry(Generic[T]):
    """Named things of one kind, e.g. all channel selectors."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, summary: str, source: str = "") -> Callable[[T], T]:
        """Decorator that registers what it decorates under `name`."""

        def add(value: T) -> T:
            if name in self._entries:
                raise KeyError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, summary, source, value)
            return value

        return add

    def __getitem__(self, name: str) -> T:
        """The thing called `name`.

        Raises:
            UserError: No such name; the message lists the choices and the nearest.
        """
        return self.entry(name).value

    def entry(self, name: str) -> Entry[T]:
        """The whole record of `name`; raises like `__getitem__`."""
        if name not in self._entries:
            raise one_of(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)
