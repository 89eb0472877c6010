"""The report of one run: a single HTML file with everything inside, to be opened without a server or a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from automl.archive import COST_KEYS, Archive
from automl.files import storage_errors, write_atomic
from automl.ledger import TrialRecord, read_ledger
from automl.run_info import RunInfo
from automl.runs import Run
from compressors.errors import UserError

_INK, _MUTED, _ACCENT, _SECOND, _GRID = "#1b1f24", "#9aa4b1", "#c2410c", "#1d4ed8", "#e5e8ec"
_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
    "margin": {"l": 60, "r": 20, "t": 16, "b": 50},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "height": 420,
}
_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {_INK}; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: 0; }} h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .3rem; }}
p {{ margin: .2rem 0; color: #57606a; }} code {{ overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }} table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .3rem .7rem; border-bottom: 1px solid {_GRID}; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }} th {{ font-weight: 600; }}
"""
_COLUMNS = (
    ("accuracy_search", "Accuracy (search)"),
    ("accuracy_finetuned", "Accuracy (finetuned)"),
    ("accuracy_test", "Accuracy (test)"),
    ("macs", "MACs"),
    ("params", "Parameters"),
    ("size_bytes", "Size (bytes)"),
    ("bops", "BOPs"),
)


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Writes the report of a run, finished or not.

    Args:
        run_folder: The run; `config.json`, `trials.jsonl` and, where there is one, `front.json` are read.
        out: The file to write; `report.html` in the run folder without it.

    Returns:
        The file that was written.

    Raises:
        UserError: The folder is not a run's or is damaged, or the report cannot be written.
    """
    run = Run(Path(run_folder))
    info = run.info()
    archive = Archive(info.original, info.cost)
    volumes: list[float] = []
    for record in read_ledger(run.ledger):
        changed = archive.add(record)
        volumes.append(archive.hypervolume() if changed or not volumes else volumes[-1])
    members = _members(run, archive)
    target = Path(out) if out is not None else run.report
    write_atomic(target, _page(info, archive, volumes, members).encode())
    return target


def _members(run: Run, archive: Archive) -> list[dict[str, Any]]:
    """Rows of the front: from `front.json`, before there is one from the trials."""
    if not run.front.exists():
        return [
            {"trial_id": member.trial_id, "accuracy_search": member.accuracy_search, **member.costs}
            for member in archive.front
        ]
    with storage_errors(f"read {run.front}"):
        text = run.front.read_text()
    try:
        rows = json.loads(text)["front"]
        return [{**row, "trial_id": str(row["trial_id"])} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run.front} is damaged ({error}). Make it again with `secateur front`.") from None


def _page(info: RunInfo, archive: Archive, volumes: Sequence[float], members: Sequence[Mapping[str, Any]]) -> str:
    done = len(archive.records)
    sections = [
        _section(
            "Accuracy against cost", "Each point is a trial; hover for its name.", _scatter(info, archive, members)
        )
    ]
    if done:
        sections.append(
            _section("Progress", "Hypervolume of the front so far, and each trial.", _history(archive, volumes))
        )
    chosen = _records_of(archive, members)
    if chosen:
        sections.append(
            _section(
                "What is kept of each group", "Fraction of channels kept, for the front's members.", _kept(info, chosen)
            )
        )
        if any(bits != 32 for record in chosen for bits in record.policy.weight_bits):
            sections.append(
                _section("Bits of each layer", "Width of the weights, for the front's members.", _bits(info, chosen))
            )
    name = escape(info.search_id)
    failed = sum(record.status == "failed" for record in archive.records)
    stopped = sum(record.status == "stopped" for record in archive.records)
    facts = f"Net <b>{escape(info.net)}</b>, {done} trials" + (f", {failed} failed" if failed else "")
    facts += f", {stopped} stopped early and not shown" if stopped else ""
    command = f"<p><code>{escape(info.command)}</code></p>" if info.command else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name} - Secateur</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{name}</h1><p>{facts}</p>{command}"
        f"<h2>The front</h2>{_table(info, members)}{''.join(sections)}</body></html>\n"
    )


def _section(title: str, caption: str, figure: go.Figure) -> str:
    chart = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    return f"<h2>{escape(title)}</h2><p>{escape(caption)}</p>{chart}"


def _table(info: RunInfo, members: Sequence[Mapping[str, Any]]) -> str:
    original = {**info.original, "trial_id": "original", "accuracy_search": info.original.get("accuracy")}
    rows = [original, *members]
    columns = [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    head = "".join(f"<th>{title}</th>" for _, title in columns)
    body = "".join(
        f"<tr><td>{escape(str(row['trial_id']))}</td>"
        + "".join(f"<td>{_cell(key, row.get(key), info.original.get(key))}</td>" for key, _ in columns)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr><th>Trial</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(key: str, value: float | None, original: float | None) -> str:
    if value is None:
        return ""
    if key.startswith("accuracy"):
        return f"{float(value):.4f}"
    ratio = f" ({float(value) / original:.3f})" if original else ""
    return f"{int(value):,}{ratio}"


def _scatter(info: RunInfo, archive: Archive, members: Sequence[Mapping[str, Any]]) -> go.Figure:
    key = COST_KEYS[info.cost]
    figure = go.Figure()

    def points(records: Sequence[TrialRecord], **style: Any) -> None:
        figure.add_scatter(
            x=[archive.cost_ratio(record) for record in records],
            y=[record.accuracy_search for record in records],
            text=[escape(f"{record.trial_id} ({record.behaviour})") for record in records],
            hovertemplate=f"%{{text}}<br>{info.cost} ratio %{{x:.3f}}<br>accuracy %{{y:.4f}}<extra></extra>",
            **style,
        )

    done = [record for record in archive.records if record.status == "done"]
    points(done, name="trials", mode="markers", marker={"color": _MUTED, "size": 6, "opacity": 0.7})
    points(
        archive.front, name="front", mode="lines+markers", line={"color": _ACCENT, "shape": "hv"}, marker={"size": 9}
    )
    tested = [row for row in members if row.get("accuracy_test") is not None]
    if tested:
        figure.add_scatter(
            x=[row[key] / info.original[key] for row in tested],
            y=[row["accuracy_test"] for row in tested],
            text=[escape(row["trial_id"]) for row in tested],
            hovertemplate="%{text}, finetuned<br>test accuracy %{y:.4f}<extra></extra>",
            name="front on the test split, finetuned",
            mode="markers",
            marker={"color": _SECOND, "size": 9, "symbol": "diamond"},
        )
    figure.add_scatter(
        x=[1.0],
        y=[info.original.get("accuracy")],
        name="original",
        mode="markers",
        marker={"color": _INK, "size": 13, "symbol": "star"},
        hovertemplate="original<br>accuracy %{y:.4f}<extra></extra>",
    )
    figure.update_layout(_LAYOUT, xaxis_title=f"{info.cost}, ratio to the original", yaxis_title="accuracy")
    return figure


def _history(archive: Archive, volumes: Sequence[float]) -> go.Figure:
    records = archive.records
    figure = go.Figure()
    figure.add_scatter(
        x=[record.episode for record in records],
        y=[record.accuracy_search if record.status == "done" else None for record in records],
        text=[escape(f"{record.trial_id} ({record.behaviour})") for record in records],
        hovertemplate="%{text}<br>accuracy %{y:.4f}<extra></extra>",
        name="accuracy of each trial",
        mode="markers",
        marker={"color": _MUTED, "size": 5},
    )
    figure.add_scatter(
        x=[record.episode for record in records],
        y=list(volumes),
        name="hypervolume so far",
        mode="lines",
        line={"color": _ACCENT, "width": 2},
        hovertemplate="episode %{x}<br>hypervolume %{y:.4f}<extra></extra>",
    )
    figure.update_layout(_LAYOUT, xaxis_title="episode", yaxis_title="accuracy, hypervolume")
    return figure


def _records_of(archive: Archive, members: Sequence[Mapping[str, Any]]) -> list[TrialRecord]:
    records = {record.trial_id: record for record in archive.records}
    return [records[member["trial_id"]] for member in members if member["trial_id"] in records]


def _kept(info: RunInfo, chosen: Sequence[TrialRecord]) -> go.Figure:
    names = [group.name for group in info.groups] or [str(index) for index in range(len(chosen[0].policy.kept))]
    sizes = [group.size for group in info.groups] or [1] * len(names)
    rows = [[kept / size for kept, size in zip(record.policy.kept, sizes, strict=True)] for record in chosen]
    return _bars(names, chosen, rows, "preserve ratio", [0, 1.02])


def _bits(info: RunInfo, chosen: Sequence[TrialRecord]) -> go.Figure:
    rows = [[float(bits) for bits in record.policy.weight_bits] for record in chosen]
    names = [layer.name for layer in info.layers] or [str(index) for index in range(len(rows[0]))]
    return _bars(names, chosen, rows, "weight bits", None)


def _bars(
    names: Sequence[str],
    chosen: Sequence[TrialRecord],
    rows: Sequence[Sequence[float]],
    title: str,
    span: Sequence[float] | None,
) -> go.Figure:
    """One set of bars for each member, chosen from a menu: the bars of ten members side by side are unreadable."""
    figure = go.Figure()
    middle = len(chosen) // 2
    for index, (record, row) in enumerate(zip(chosen, rows, strict=True)):
        figure.add_bar(
            x=[escape(name) for name in names],
            y=list(row),
            name=record.trial_id,
            visible=index == middle,
            marker={"color": _ACCENT},
            hovertemplate=f"%{{x}}<br>{title} %{{y:.3g}}<extra></extra>",
        )
    buttons = [
        {
            "label": f"{escape(record.trial_id)}: {record.accuracy_search:.3f}",
            "method": "update",
            "args": [{"visible": [other == index for other in range(len(chosen))]}],
        }
        for index, record in enumerate(chosen)
    ]
    menu = {"buttons": buttons, "active": middle, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}
    figure.update_layout(_LAYOUT, yaxis_title=title, updatemenus=[menu], showlegend=False)
    figure.update_layout(margin={"l": 60, "r": 20, "t": 60, "b": 130})
    figure.update_xaxes(tickangle=-60, type="category")
    if span is not None:
        figure.update_yaxes(range=list(span))
    return figure
