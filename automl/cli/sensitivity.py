"""The sensitivity table and picture of a profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from automl.files import require_writable, storage_errors
from compressors.errors import UserError
from compressors.layers import LayerTable
from compressors.profile import BITS, Profile

_RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)


def print_tables(console: Console, table: LayerTable, profile: Profile) -> None:
    """Relative L2 errors (0 nothing lost, 1 all lost) by fraction kept, and by bits."""
    cuts = Table(title=f"Relative L2 error by fraction kept (order: {profile.order})", title_justify="left")
    cuts.add_column("group")
    cuts.add_column("units", justify="right")
    for ratio in _RATIOS:
        cuts.add_column(f"{ratio:.0%}", justify="right")
    for group in table.groups:
        errors = np.sqrt(profile.errors[group.index])
        kept = [max(1, round(group.size * ratio)) for ratio in _RATIOS]
        cuts.add_row(group.name, str(group.size), *(f"{errors[count]:.3f}" for count in kept))
    console.print(cuts)
    widths = Table(title="Relative L2 error by bits (weights / activations)", title_justify="left")
    widths.add_column("layer")
    for bits in BITS[:-1]:
        widths.add_column(str(bits), justify="right")
    for layer in table.layers:
        pairs = zip(
            np.sqrt(profile.weight_errors[layer.index]), np.sqrt(profile.activation_errors[layer.index]), strict=True
        )
        widths.add_row(layer.name, *(f"{weight:.3f}/{activation:.3f}" for weight, activation in list(pairs)[:-1]))
    console.print(widths)


def check_picture(out: Path) -> None:
    """Checks, before anything is measured, that a picture can be written.

    Raises:
        UserError: The file's ending is no kind of picture, or its folder cannot be written to.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if out.suffix.removeprefix(".").lower() not in kinds:
        raise UserError(f"A picture must end in one of .{', .'.join(kinds)}, but got {str(out)!r}.")
    require_writable(out.parent, f"write the picture {out}")


def draw(table: LayerTable, profile: Profile, out: Path) -> None:
    """Error curves of all groups, and quantisation errors of all layers, as a picture.

    Raises:
        UserError: The file's ending is no kind of picture, or it cannot be written.
    """
    from matplotlib.figure import Figure

    height = 2.5 + 0.16 * max(len(table.groups), len(table.layers))
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = np.linspace(0.05, 1, 20)
    curves = np.zeros((len(table.groups), len(grid)))
    for group in table.groups:
        fractions = np.arange(group.size + 1) / group.size
        curves[group.index] = np.interp(grid, fractions, np.sqrt(profile.errors[group.index]))
    _heat(figure, left, curves, [f"{value:.0%}" for value in grid], [group.name for group in table.groups],
          "Relative L2 error by fraction kept")  # fmt: skip
    bits = [str(width) for width in BITS[:-1]]
    _heat(figure, right, np.sqrt(profile.weight_errors[:, :-1]), bits, [layer.name for layer in table.layers],
          "Relative L2 error by bits of the weights")  # fmt: skip
    figure.suptitle(f"{table.net}: sensitivity (order {profile.order})")
    with storage_errors(f"write the picture {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(out, dpi=120)
        except ValueError as error:
            raise UserError(f"Cannot write the picture {out}: {str(error).splitlines()[0]}") from error


def _heat(figure, axes, values, columns, rows, title) -> None:  # type: ignore[no-untyped-def]
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=max(0.5, float(values.max(initial=0))))
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6)
