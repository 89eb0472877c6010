import json
import shutil

import pytest
import torch
from journeys import refused, secateur
from safetensors.torch import load_file, save_file

from automl.zoo.load import CHECKPOINTS

WEIGHTS = CHECKPOINTS / "resnet8_digits.safetensors"


@pytest.fixture
def policy(finished):
    """The policy of the most accurate member."""
    return sorted(finished.policies.glob("*.json"))[-1]


def test_the_net_before_finetuning_is_made_bit_for_bit(policy, tmp_path):
    done = secateur("apply", policy, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "bit for bit the net of the search" in done.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"policy.json", "model.pt2", "model.safetensors"}
    # Its accuracy is that from which the search's own finetuning started, not that after it.
    recorded = json.loads(policy.read_text())["details"]["accuracies"]
    written = json.loads((tmp_path / "out/policy.json").read_text())["details"]
    assert written["accuracies"]["accuracy_search"] == recorded["accuracy_start"]
    assert set(written["accuracies"]) == {"accuracy_search", "accuracy_test"}
    assert written["command"].startswith("secateur apply")


def test_it_is_measured_anew_where_no_cache_is(policy, tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "other"))
    assert "bit for bit" in secateur("apply", policy, "--out", tmp_path / "out").out


def test_a_policy_applies_twice(policy, tmp_path):
    secateur("apply", policy, "--out", tmp_path / "a")
    done = secateur("apply", tmp_path / "a/policy.json", "--out", tmp_path / "b")
    assert "bit for bit" in done.out
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_named_net_weights_and_data_give_the_same(policy, tmp_path):
    shutil.copy(WEIGHTS, tmp_path / "w.safetensors")
    done = secateur("apply", policy, "--net", "resnet8_digits", "--weights", tmp_path / "w.safetensors", "--data",
                    "digits", "--out", tmp_path / "out")  # fmt: skip
    assert "bit for bit" in done.out


def test_finetunes_on_request_only(policy, tmp_path):
    secateur("apply", policy, "--out", tmp_path / "a")
    done = secateur("apply", policy, "--finetune-epochs", "1", "--distill", "--out", tmp_path / "b")
    assert done.code == 0 and "after 1 epochs" in done.out and "bit for bit" in done.out
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_another_net_is_refused_before_anything_is_written(policy, tmp_path):
    state = load_file(WEIGHTS)
    state["linear.bias"] = state["linear.bias"] + 1e-6
    save_file(state, tmp_path / "w.safetensors")
    out = tmp_path / "out"
    refused(secateur("apply", policy, "--weights", tmp_path / "w.safetensors", "--out", out), "fingerprint", "resnet8")
    refused(secateur("apply", policy, "--net", "resnet20", "--out", out), "fingerprint")
    assert not out.exists()


def test_other_calibration_images_are_said_to_be_the_reason(policy, tmp_path):
    done = secateur("apply", policy, "--data-seed", "1", "--out", tmp_path / "out")
    assert done.code == 0 and "not the very net of the search (the calibration images differ" in done.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document.update(schema_version=9), ["schema_version 1", "9"]),
        (lambda document: document["layers"][0].update(kept=[5, 1]), ["increasing"]),
        (lambda document: document["layers"][0].update(weight_bits=9), ["weight_bits"]),
        (lambda document: document["layers"].pop(), ["layers"]),
        (lambda document: document["details"]["data"].update(name="digit"), ["'digit'", "Did you mean 'digits'"]),
        (lambda document: document["details"]["net"].update(colour=1), ["'colour'", "the policy's net"]),
    ],
)
def test_policies_that_somebody_edited(policy, tmp_path, change, words):
    document = json.loads(policy.read_text())
    change(document)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    refused(secateur("apply", path, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_a_policy_without_any_details_takes_the_embedded_defaults(policy, tmp_path):
    document = json.loads(policy.read_text())
    document["details"] = {"net": 3, "threads": "many"}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    done = secateur("apply", path, "--calibration-images", "200", "--search-images", "150", "--out", tmp_path / "out")
    assert done.code == 0 and "not the very net" in done.out


def test_truncated_policies_and_places_that_cannot_be_written(policy, tmp_path):
    cut = tmp_path / "p.json"
    cut.write_text(policy.read_text()[:200])
    refused(secateur("apply", cut), "p.json", "not JSON")
    (tmp_path / "file").write_text("")
    refused(secateur("apply", policy, "--out", tmp_path / "file"), "Cannot write the export")
    refused(secateur("apply", policy, "--finetune-lr", "nan"), "'lr'", "finite")
