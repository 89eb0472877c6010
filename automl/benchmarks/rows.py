"""Rows of results as CSV, and back: one frozen dataclass for each kind of row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from automl.files import storage_errors
from compressors.errors import UserError

Row = TypeVar("Row")


def rounded(value: float) -> float:
    """A number as the file holds it, so that tables from either are equal."""
    return float(_text(value))


def write_csv(kind: type[Any], rows: Iterable[Any]) -> str:
    """Rows as CSV; None is left empty.

    Args:
        kind: Their dataclass, whose fields are the columns.
        rows: The rows.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    for row in rows:
        writer.writerow([_text(value) if isinstance(value, float) else value for value in astuple(row)])
    return buffer.getvalue()


def read_csv(path: Path, kind: type[Any], what: str, parse: Callable[[list[str]], Row]) -> list[Row]:
    """Rows of a CSV file.

    Args:
        path: The file.
        kind: Their dataclass, whose fields are the columns.
        what: What the file is, for messages, e.g. `a summary`.
        parse: Makes a row of a line; raises a ValueError where it cannot.

    Raises:
        UserError: It cannot be read, or is not such a file; the message names the line.
    """
    with storage_errors(f"read {path}"):
        text = path.read_text()
    lines = csv.reader(io.StringIO(text))
    names = [field.name for field in fields(kind)]
    if next(lines, None) != names:
        raise UserError(f"{path} is not {what}: its first line must be {','.join(names)}.")
    rows = []
    for line in lines:
        try:
            rows.append(parse(line))
        except ValueError:
            raise UserError(f"{path}, line {lines.line_num} is no row of {what}: {','.join(line)[:80]!r}.") from None
    if not rows:
        raise UserError(f"{path} holds no results.")
    return rows


def _text(value: float) -> str:
    return f"{value:.6g}"
