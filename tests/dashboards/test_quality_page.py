import json
import re

import numpy as np
import pytest

from automl.benchmarks.quality.results import Row, to_csv
from automl.benchmarks.quality.tables import cells_of
from compressors.errors import UserError
from dashboards.quality import averaged, figure, write_quality_page

EVIL = "</script><script>alert(1)</script>"
CURVES = {
    "random": ([(1, 1.0, 0.4), (3, 3.0, 0.6)], [(1, 2.0, 0.6), (2, 4.0, 0.8), (3, 6.0, 0.8)]),
    "ddpg": ([(1, 1.0, 0.7), (3, 3.0, 0.9)], [(1, 1.0, 0.7), (3, 3.0, 0.9)]),
}


def rows(net="resnet20", agents=CURVES):
    return [
        Row(net, "cifar10", target, agent, seed, count, seconds, best, best / 2)
        for target in ("macs=0.5", "size=0.1")
        for agent, searches in agents.items()
        for seed, search in enumerate(searches)
        for count, seconds, best in search
    ]


def page(folder, *given):
    (folder / "summary.csv").write_text(to_csv([row for some in given or (rows(),) for row in some]))
    path = write_quality_page(folder / "summary.csv", folder)
    assert path == folder / "quality.html"
    return path.read_text(encoding="utf-8")


def cells_in(text):
    return json.loads(re.search(r'<script type="application/json" id="cells">(.*?)</script>', text, re.DOTALL)[1])


def test_one_file_with_every_cell_inside(tmp_path):
    text = page(tmp_path, rows(), rows("resnet56"))
    assert "plotly.js" in text
    assert not re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=""", text[text.index("<body>") :])
    cells = cells_in(text)
    assert [(cell["net"], cell["target"]) for cell in cells] == [
        (f"{net} on cifar10", target) for net in ("resnet20", "resnet56") for target in ("macs=0.5", "size=0.1")
    ]
    assert "<td>ddpg</td><td>2</td><td>90.00%</td>" in cells[0]["table"]
    titles = [cells[0]["figure"]["layout"][f"yaxis{number}"]["title"]["text"] for number in ("", "2", "3", "4")]
    assert titles == ["Best accuracy so far"] * 2 + ["Hypervolume so far"] * 2


def test_commands_are_shown_where_they_are_known(tmp_path):
    facts = {"commands": ["secateur bench quality --out x"]}
    cells = [
        {"net": "resnet20", "data": "cifar10", "target": name, "agents": {"ddpg": facts}} for name in ("macs=0.5",)
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"cells": cells}))
    assert "secateur bench quality --out x" not in page(tmp_path)  # the facts are of fewer cells than the rows
    cells.append({**cells[0], "target": "size=0.1"})
    (tmp_path / "summary.json").write_text(json.dumps({"cells": cells}))
    assert page(tmp_path).count("secateur bench quality --out x") == 1


def test_names_cannot_inject(tmp_path):
    evil = {f"{name}{EVIL}": searches for name, searches in CURVES.items()}
    assert EVIL not in page(tmp_path, rows(f"net{EVIL}", evil))
    assert cells_in(page(tmp_path, rows(f"net{EVIL}", evil)))[0]["net"] == f"net{EVIL} on cifar10"


def test_curves_are_averaged_as_the_steps_that_they_are():
    curves = cells_of(rows())[0].agents["random"]
    places, mean, low, high = averaged(curves, "best", "evaluations")
    assert places.tolist() == [1, 2, 3]
    assert mean == pytest.approx([0.5, 0.6, 0.7])
    assert (low[1], high[1]) == pytest.approx((0.4, 0.8))
    # Both have a result from second 2 on; the faster one ends at second 3.
    places, mean, _, _ = averaged(curves, "hypervolume", "seconds")
    assert (places[0], places[-1]) == (2, 3)
    assert (mean[0], mean[-1]) == pytest.approx(((0.2 + 0.3) / 2, (0.3 + 0.3) / 2))


def test_an_agent_has_one_colour_in_all_panels_and_cells():
    first, second = cells_of(rows())
    del second.agents["random"]
    agents = ["ddpg", "random"]
    colours = {
        (trace.name, trace.line.color)
        for cell in (first, second)
        for trace in figure(cell, agents).data
        if trace.name in agents
    }
    assert len(colours) == 2
    many = {f"agent{number}": CURVES["ddpg"] for number in range(12)}
    cell = cells_of(rows(agents=many))[0]
    lines = {
        (trace.line.color, trace.line.dash)
        for trace in figure(cell, sorted(many)).data
        if trace.name and trace.line.width
    }
    assert len(lines) == 12


def test_numbers_stay_finite(tmp_path):
    single = {"ddpg": ([(1, 0.0, 0.0)],)}
    text = page(tmp_path, rows(agents=single))
    assert "NaN" not in json.dumps(cells_in(text))
    assert np.isfinite(averaged(cells_of(rows(agents=single))[0].agents["ddpg"], "best", "seconds")[1]).all()


def test_refusals_are_one_line(tmp_path):
    with pytest.raises(UserError, match="Cannot read"):
        write_quality_page(tmp_path / "summary.csv", tmp_path)
    page(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        write_quality_page(tmp_path / "summary.csv", tmp_path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(UserError, match="Cannot write"):
        write_quality_page(tmp_path / "summary.csv", tmp_path / "missing")
