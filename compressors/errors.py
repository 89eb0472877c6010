"""Errors that are meant for a person: one line that says what must hold, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command line prints its message as one line and exits with code 2."""


def one_of(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for an unknown name: names the nearest choice and lists them all.

    Args:
        kind: What the name stands for, e.g. `net`.
        name: What came.
        choices: The names that exist.
    """
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Choose one of: {', '.join(known)}.")
