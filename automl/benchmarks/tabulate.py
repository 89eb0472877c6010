"""Tables of texts, for a terminal and for a page of documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def rich_table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> Table:
    """For a terminal.

    Args:
        title: Above it.
        head: Titles of the columns.
        lines: Texts under them.
        left: How many columns hold words; the others hold numbers.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, name in enumerate(head):
        table.add_column(name, justify="left" if column < left else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def markdown_table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """For a page of documentation; arguments as those of `rich_table`."""
    rule = ("---",) * left + ("---:",) * (len(head) - left)
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
    return f"### {title}\n\n{table}\n"
