"""Pretrained ResNets on CIFAR-10, where `SECATEUR_DATA` says where they are: figures that a user was promised."""

import json
import os
import time
from pathlib import Path

import pytest
from journeys import secateur

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="needs SECATEUR_DATA"),
]


def given(net: str) -> tuple[object, ...]:
    root = Path(os.environ["SECATEUR_DATA"])
    weights, data = root / "weights" / f"{net}-cifar10-jpeg.pt", f"parquet:{root / 'cifar10-jpeg'}"
    return ("--net", net, "--weights", weights, "--data", data, "--search-from", "test:0.5")


def test_half_the_macs_keep_seventy_percent_before_any_finetune(tmp_path):
    done = secateur(
        "search", *given("resnet20"), "--search-images", "1000", "--target", "macs=0.5", "--agent", "sensitivity",
        "--episodes", "1", "--members", "1", "--finetune-epochs", "0", "--runs", tmp_path, "--name", "a", "--no-track",
        "--export", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(secateur("front", tmp_path / "a", "--json").out)
    assert document["original"]["accuracy_test"] == pytest.approx(0.8802, abs=0.002)
    assert document["original"]["macs"] == 40_551_040
    (member,) = document["front"]
    assert member["macs_ratio"] <= 0.5
    assert member["accuracy_test"] >= 0.70
    applied = secateur("apply", tmp_path / "out" / "policy.json", "--out", tmp_path / "again")
    assert applied.code == 0 and "bit for bit" in applied.out


@pytest.mark.parametrize(("net", "bound_s"), [("resnet20", 20), ("resnet56", 60)])
def test_profiles_are_quick(net, bound_s, tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    secateur("layers", *given(net))  # decodes the data
    begun = time.perf_counter()
    done = secateur("profile", *given(net), "--out", tmp_path / "profile.png")
    assert done.code == 0, done.err
    # The bound is for two quiet cores; here one thread shares them.
    assert time.perf_counter() - begun < 2 * bound_s
    assert (tmp_path / "profile.png").stat().st_size > 10_000
