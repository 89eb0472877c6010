import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "automl"))
from searching import make_record, make_run

from automl.ledger import Ledger, TrialPolicy
from automl.run_info import GroupFacts, LayerFacts
from compressors.errors import UserError
from dashboards.report import write_report

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    found = make_run(tmp_path, "mine")
    info = found.info().model_copy(
        update={
            "net": EVIL,
            "layers": tuple(LayerFacts(name=f"{EVIL}{index}", kind="conv", macs=1, params=1) for index in range(2)),
            "groups": tuple(GroupFacts(name=f"g{index}{EVIL}", size=8, layers=()) for index in range(2)),
        }
    )
    found.write_info(info)
    return found


def fill(run, bits=8):
    ledger = Ledger(run.ledger)
    policy = TrialPolicy(kept=(2, 4), weight_bits=(bits, bits), activation_bits=(32, 32))
    for episode, (macs, accuracy) in enumerate([(500, 0.8), (300, 0.6), (400, 0.5), (700, 0.85)]):
        name = f"agent {EVIL}"
        ledger.append(make_record(episode, macs=macs, accuracy_search=accuracy, policy=policy, behaviour=name))


def page(run, **more):
    path = write_report(run.folder, **more)
    return path.read_text(encoding="utf-8")


def body(text):
    return text[text.index("<body>") :]


def test_one_file_with_everything_inside(run):
    fill(run)
    text = page(run)
    assert not re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=""", body(text))
    assert "plotly.js" in text
    for title in ("The front", "Accuracy against cost", "Progress", "What is kept of each group", "Bits of each layer"):
        assert f"<h2>{title}</h2>" in text


def test_table_holds_the_original_and_the_front_in_order_of_cost(run):
    fill(run)
    rows = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td>", page(run))
    assert rows == [
        ("original", "0.9000", "1,000 (1.000)"),
        ("t00001", "0.6000", "300 (0.300)"),
        ("t00000", "0.8000", "500 (0.500)"),
        ("t00003", "0.8500", "700 (0.700)"),
    ]


def test_finetuned_front_is_shown_where_there_is_one(run):
    fill(run)
    row = {"trial_id": "t00000", "accuracy_search": 0.8, "accuracy_finetuned": 0.87, "accuracy_test": 0.86, "macs": 500}
    run.front.write_text(json.dumps({"original": {}, "front": [row]}))
    text = page(run)
    assert "<td>0.8700</td><td>0.8600</td>" in text
    assert "front on the test split, finetuned" in text
    assert "<td>t00001</td>" not in text


def test_names_cannot_inject(run):
    fill(run)
    assert EVIL not in page(run)


def test_unquantised_runs_have_no_bits(run):
    fill(run, bits=32)
    assert "Bits of each layer" not in page(run)


def test_a_run_without_trials_and_another_place(run, tmp_path):
    out = tmp_path / "elsewhere.html"
    assert write_report(run.folder, out) == out
    assert "0 trials" in out.read_text(encoding="utf-8")
    assert not run.report.exists()


def test_refusals_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        write_report(tmp_path)
    fill(run)
    run.front.write_text("{")
    with pytest.raises(UserError, match=r"front\.json is damaged"):
        write_report(run.folder)
    run.front.unlink()
    with pytest.raises(UserError, match="Cannot write"):
        write_report(run.folder, tmp_path / "missing" / "report.html")
