"""What was measured about workers: kept in one JSON file, part by part, and shown as tables and as a picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from automl.benchmarks.workers import Overhead, Speedup
from automl.benchmarks.workers_driver import Busy, Throughput
from automl.files import storage_errors, write_atomic
from compressors.errors import UserError

FILE = "workers.json"
PICTURE = "workers.png"

BOUNDS = {"overhead_ms": 40.0, "ratio": 1.85, "busy": 0.95, "per_second": 100.0}
"""What is to be reached: milliseconds at most, twofold workers' ratio, busy share of 256 workers, episodes a second."""

_KINDS: dict[str, type[Any]] = {"overhead": Overhead, "speedup": Speedup, "busy": Busy, "throughput": Throughput}


@dataclass(frozen=True)
class Figures:
    """All parts; those that were not measured are empty.

    Attributes:
        overhead: One worker against none.
        speedup: One-thread workers on real evaluations.
        busy: Simulated workers.
        throughput: The driver alone.
        facts: Machine, and the command of each part.
    """

    overhead: tuple[Overhead, ...] = ()
    speedup: tuple[Speedup, ...] = ()
    busy: tuple[Busy, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: Above it.
        head: Titles of the columns, the first one of words.
        lines: Texts under them.
    """

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


def read(folder: Path) -> Figures:
    """What a folder holds; nothing where nothing was measured yet.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return Figures()
    with storage_errors(f"read {path}"):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        parts = {name: tuple(kind(**row) for row in content[name]) for name, kind in _KINDS.items()}
        return Figures(**parts, facts=dict(content["facts"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged, or of another version ({error}). Delete it, or choose another --out."
        ) from None


def write(folder: Path, figures: Figures) -> Path:
    """Writes all parts, and says where."""
    with storage_errors(f"make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    content = {name: [asdict(row) for row in getattr(figures, name)] for name in _KINDS}
    write_atomic(path, (json.dumps(content | {"facts": figures.facts}, indent=1) + "\n").encode())
    return path


def machine() -> dict[str, Any]:
    """What figures depend on."""
    return {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}


def tables(figures: Figures) -> list[Table]:
    """A table for each part that was measured."""
    found = [_overhead(figures.overhead), _speedup(figures.speedup), _busy(figures.busy)]
    found.append(_throughput(figures.throughput))
    return [table for table in found if table.lines]


def _overhead(rows: Sequence[Overhead]) -> Table:
    return Table(
        f"Overhead of one worker, per episode (bound {BOUNDS['overhead_ms']:g} ms)",
        ("agent", "episode, s", "longer by, ms", "way there and back, ms", "pairs"),
        [(row.agent, f"{row.episode_s:.2f}", f"{row.overhead_ms:.1f}", f"{row.unexplained_ms:.1f}", f"{row.pairs}")
         for row in rows],
    )  # fmt: skip


def _speedup(rows: Sequence[Speedup]) -> Table:
    return Table(
        f"One-thread workers (bound for two: {BOUNDS['ratio']:g} times)",
        ("agent", "workers", "staleness", "episode, s", "episodes/s", "times one worker"),
        [(row.agent, f"{row.workers}", f"{row.staleness}", f"{row.episode_s:.2f}", f"{row.per_second:.2f}",
          f"{row.ratio:.2f}") for row in rows],
    )  # fmt: skip


def _busy(rows: Sequence[Busy]) -> Table:
    return Table(
        f"Simulated workers (bound for 256: {BOUNDS['busy']:.0%} busy)",
        ("agent", "workers", "staleness", "episode, s", "episodes/s", "busy", "busy, ideal driver"),
        [(row.agent, f"{row.workers}", f"{row.staleness}", f"{row.episode_s:.2f}", f"{row.per_second:.1f}",
          f"{row.busy:.1%}", f"{row.ideal:.1%}") for row in rows],
    )  # fmt: skip


def _throughput(rows: Sequence[Throughput]) -> Table:
    return Table(
        f"The driver alone, ms per episode (bound without learning: {BOUNDS['per_second']:g} episodes/s)",
        ("agent", "layers", "propose", "send", "state", "write", "other", "learn", "episodes/s", "with learning"),
        [(row.agent, f"{row.layers}", *(f"{value:.2f}" for value in (
            row.propose_ms, row.send_ms, row.state_ms, row.write_ms, row.other_ms, row.learn_ms)),
          f"{row.per_second:.0f}", f"{row.learning_per_second:.0f}") for row in rows],
    )  # fmt: skip


def draw(figures: Figures, out: Path) -> bool:
    """Workers against throughput, real and simulated, as a picture; says whether there was anything to draw.

    Raises:
        UserError: It cannot be written.
    """
    from matplotlib.figure import Figure

    panels = [
        (title, rows)
        for title, rows in (("Real evaluations", figures.speedup), ("Simulated evaluations", figures.busy))
        if rows
    ]
    if not panels:
        return False
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, title, rows)
    with storage_errors(f"write the picture {out}"):
        figure.savefig(out, dpi=120)
    return True


def _panel(axes: Any, title: str, rows: Sequence[Speedup] | Sequence[Busy]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        per_worker = row.staleness / row.workers
        name = f"{row.agent}, staleness {per_worker:g} x workers" if isinstance(row, Busy) else row.agent
        lines.setdefault(name, []).append((row.workers, row.per_second))
    numbers = sorted({row.workers for row in rows})
    one = rows[0].per_second / rows[0].workers if isinstance(rows[0], Speedup) else 1 / rows[0].episode_s
    axes.plot(numbers, [one * number for number in numbers], color="0.6", linestyle="--", label="all always busy")
    for (name, points), marker in zip(lines.items(), "osv^Dx" * len(lines), strict=False):
        axes.plot(*zip(*sorted(points), strict=True), marker=marker, label=name)
    if isinstance(rows[0], Busy):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set(title=title, xlabel="workers", ylabel="episodes per second")
    axes.legend(fontsize=8)
