"""The page of `secateur bench quality`: one HTML file with curves and a table for each net and target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from automl.benchmarks import ablation_table
from automl.benchmarks.quality.results import Results, read_summary
from automl.benchmarks.quality.statistics import Floats, bands, steps_at
from automl.benchmarks.quality.tables import CAPTION, HEAD, CellCurves, Curve, cells_of, entries
from automl.files import write_atomic

_POINTS = 60
"""Places on the axis of seconds at which curves of different searches are averaged."""

# Paul Tol's "muted" scheme and black: told apart with every common colour blindness; dashes help in print.
_COLOURS = (
    "#332288", "#cc6677", "#117733", "#88ccee", "#aa4499", "#999933", "#882255", "#44aa99", "#ddaa33", "#000000",
)  # fmt: skip
_DASHES = ("solid", "dash", "dot", "dashdot")
_PANELS = (
    ("best", "evaluations", "Best accuracy so far"),
    ("best", "seconds", "Best accuracy so far"),
    ("hypervolume", "evaluations", "Hypervolume so far"),
    ("hypervolume", "seconds", "Hypervolume so far"),
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
p { margin: .2rem 0; color: #57606a; } code { overflow-wrap: anywhere; } label { margin-right: 1.5rem; }
select { font: inherit; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .9rem; border-bottom: 1px solid #e5e8ec; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
"""
_SCRIPT = """
const cells = JSON.parse(document.getElementById("cells").textContent);
const net = document.getElementById("net"), target = document.getElementById("target");
function fill(menu, values) {
  const before = menu.value;
  menu.replaceChildren(...values.map(value => new Option(value, value)));
  if (values.includes(before)) menu.value = before;
}
function show() {
  const cell = cells.find(one => one.net === net.value && one.target === target.value);
  document.getElementById("title").textContent = cell.title;
  document.getElementById("table").innerHTML = cell.table;
  Plotly.react("plot", cell.figure.data, cell.figure.layout, {displaylogo: false, responsive: true});
}
function choose() {
  fill(target, cells.filter(one => one.net === net.value).map(one => one.target));
  show();
}
fill(net, [...new Set(cells.map(one => one.net))]);
net.onchange = choose;
target.onchange = show;
choose();
"""


def write_quality_page(summary: Path, out: Path) -> Path:
    """Draws a `summary.csv`.

    Args:
        summary: The file; `summary.json` beside it is read where there is one.
        out: Folder that gets `quality.html`.

    Returns:
        The file that was written.

    Raises:
        UserError: The summary is damaged, or the page cannot be written.
    """
    results = read_summary(Path(summary))
    path = Path(out) / "quality.html"
    write_atomic(path, _page(results).encode())
    return path


def _page(results: Results) -> str:
    cells = cells_of(results.rows)
    ablated = ablation_table.is_ablation(cells)
    agents = sorted({agent for cell in cells for agent in cell.agents})
    content = [
        {
            "net": f"{cell.net} on {cell.data}",
            "target": cell.target,
            "title": cell.title,
            "table": _table(cell, ablated),
            "figure": json.loads(figure(cell, agents).to_json()),
        }
        for cell in cells
    ]
    # A script element ends at the first `</`, whatever it stands in.
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    agents_of = [facts for cell in results.facts.get("cells", ()) for facts in cell["agents"].values()]
    commands = dict.fromkeys(command for facts in agents_of for command in facts.get("commands", ()) if command)
    title, subject, caption = "Search quality", "Every agent against every other at equal cost", CAPTION
    if ablated:
        title, subject = "Ablation", "The agent without one of its parts at a time"
        caption = " ".join([*ablation_table.legend(cells), ablation_table.CAPTION])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} - Secateur</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{title}</h1><p>{subject}: lines are means over seeds, bands their 95% intervals.</p>"
        f"{''.join(f'<p><code>{escape(command)}</code></p>' for command in commands)}"
        '<p><label>Net <select id="net"></select></label><label>Target <select id="target"></select></label></p>'
        '<h2 id="title"></h2><div class="scroll" id="table"></div>'
        f'<p>{escape(caption)}</p><div id="plot"></div>'
        f'<script type="application/json" id="cells">{data}</script><script>{_SCRIPT}</script></body></html>\n'
    )


def _table(cell: CellCurves, ablated: bool) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (ablation_table.HEAD if ablated else HEAD))
    lines = (line.cells() for line in (ablation_table.lines(cell) if ablated else entries(cell)))
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def figure(cell: CellCurves, agents: Sequence[str]) -> go.Figure:
    """Accuracy and hypervolume against evaluations and seconds, mean and band of each agent.

    Args:
        cell: The searches.
        agents: All agents of the page, so that each has the same colour everywhere.
    """
    drawn = make_subplots(2, 2, horizontal_spacing=0.08, vertical_spacing=0.12)
    for position, (value, axis, title) in enumerate(_PANELS):
        row, column = position // 2 + 1, position % 2 + 1
        for agent, curves in cell.agents.items():
            places, mean, low, high = averaged(curves, value, axis)
            index = agents.index(agent)
            colour = _COLOURS[index % len(_COLOURS)]
            shared: dict[str, Any] = {"legendgroup": agent, "row": row, "col": column}
            shape = {"color": colour, "shape": "hv"}
            for edge, fill in ((low, None), (high, "tonexty")):
                drawn.add_scatter(
                    x=places, y=edge, mode="lines", line={**shape, "width": 0}, fill=fill, fillcolor=_faint(colour),
                    hoverinfo="skip", showlegend=False, **shared,
                )  # fmt: skip
            drawn.add_scatter(
                x=places, y=mean, name=escape(agent), mode="lines", showlegend=position == 0,
                line={**shape, "width": 2, "dash": _DASHES[index // len(_COLOURS) % len(_DASHES)]},
                hovertemplate=f"{escape(agent)}<br>{axis} %{{x:.4g}}<br>%{{y:.4f}}<extra></extra>", **shared,
            )  # fmt: skip
        drawn.update_xaxes(title_text=axis, row=row, col=column)
        drawn.update_yaxes(title_text=title, row=row, col=column)
    drawn.update_layout(
        template="plotly_white", height=820, margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.03, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    return drawn


def averaged(curves: Sequence[Curve], value: str, axis: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean and 95% band over seeds of step functions.

    Args:
        curves: One for each seed.
        value: `best` or `hypervolume`.
        axis: `evaluations` or `seconds`.

    Returns:
        Places, mean, lower and upper end, `(points,)` each; no place lies before the first result of the slowest
        search or after the end of the fastest.
    """
    axes: list[Floats] = [getattr(curve, axis) for curve in curves]
    first, last = max(float(one[0]) for one in axes), min(float(one[-1]) for one in axes)
    if axis == "evaluations":
        places = np.unique(np.concatenate(axes))
        places = places[(places >= first) & (places <= last)]
    else:
        places = np.linspace(first, max(first, last), _POINTS)
    mean, low, high = bands(
        [steps_at(one, getattr(curve, value), places) for one, curve in zip(axes, curves, strict=True)]
    )
    return places, mean, low, high


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
