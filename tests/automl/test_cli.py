"""The command line as a user types it."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from journeys import SMALL, Done, ledger, refused, run, secateur, start
from PIL import Image

from automl import files, search_loop
from automl.checkpoint import save_checkpoint
from automl.cli import _COMMANDS, foreign_packages
from automl.runs import Run
from automl.zoo.load import CHECKPOINTS
from compressors.errors import UserError

WEIGHTS = CHECKPOINTS / "resnet8_digits.safetensors"

FACTS = {"Images:", "Original", "Calibration:", "Profile:", "Search:", "Finetuning"}


def search(runs: Path, *more: object) -> Done:
    return secateur("search", *SMALL, "--runs", runs, *more)


# What works.


def test_help_names_every_command_and_so_does_nothing_at_all():
    for done in (secateur("--help"), secateur()):
        assert done.code == 0 and all(name in done.out for name in _COMMANDS)


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_command_explains_itself(command):
    done = secateur(command, "--help")
    assert done.code == 0 and done.out.startswith(f"Usage: secateur {command}")


def test_version():
    done = secateur("--version")
    assert done.code == 0 and done.out.startswith("secateur, version ")


def test_search_as_typed_says_all_that_is_promised_and_nothing_else(tmp_path):
    given = [item for item in SMALL if item != "--no-track"]
    done = run("search", *given, "--name", "first", "--export", "out", cwd=tmp_path)
    assert done.code == 0, done.err
    for word in ("The front", "original", "search", "tuned", "test", "MACs", "params", "size"):
        assert word in done.out
    starts = [line.split()[0] for line in done.out.splitlines()[-4:]]
    assert starts == ["Export:", "Report:", "MLflow:", "Next:"]
    assert (tmp_path / "runs/first/report.html").stat().st_size > 1000
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"policy.json", "model.pt2", "model.safetensors"}
    # Facts and progress alone on standard error, whatever libraries have to say.
    assert {line.split()[0] for line in done.err.splitlines()} <= FACTS


def test_front_as_table_and_as_json(finished):
    shown = secateur("front", finished.folder)
    assert shown.code == 0 and "t0000" in shown.out
    by_id = secateur("front", "done", "--runs", finished.folder.parent, "--json")
    document = json.loads(by_id.out)
    assert set(document) == {"original", "front"} and document["front"]
    wanted = {"trial_id", "accuracy_search", "accuracy_finetuned", "accuracy_test", "macs", "macs_ratio", "params",
              "size_bytes", "bops"}  # fmt: skip
    assert all(wanted <= set(member) for member in document["front"])
    ratios = [member["macs_ratio"] for member in document["front"]]
    assert ratios == sorted(ratios)
    assert document["front"][0]["macs"] / document["original"]["macs"] == pytest.approx(ratios[0])


def test_resume_of_a_finished_run_prints_the_front_and_does_nothing_again(finished, monkeypatch):
    monkeypatch.setattr("automl.pipeline.run_search", lambda *_: pytest.fail("searched again"))
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    done = secateur("resume", finished.folder)
    assert done.code == 0 and "The front" in done.out and done.out.splitlines()[-1].startswith("Next:")
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_resume_of_a_finished_run_can_export(finished, tmp_path):
    done = secateur("resume", finished.folder, "--export", tmp_path / "out", "--threads", "1")
    assert done.code == 0 and (tmp_path / "out/model.pt2").exists()


def test_settings_from_yaml_with_options_winning(tmp_path, runs):
    path = tmp_path / "s.yaml"
    path.write_text("loop: {episodes: 9, seed: 5}\nfinetune: {training: {lr: 0.005}, distill: {temperature: 2.0}}\n")
    done = search(runs, "--config", path, "--name", "a", "--temperature", "3")
    assert done.code == 0, done.err
    config = Run(runs / "a").info().config
    assert config["loop"] == {"episodes": 4, "seed": 5, "staleness": 1}
    assert config["finetune"]["training"]["lr"] == 0.005 and config["finetune"]["training"]["epochs"] == 1
    assert config["finetune"]["distill"] == {"temperature": 3.0, "weight": 0.5}


def test_recorded_command_is_what_was_typed_without_passwords(runs):
    done = search(runs, "--name", "a", "--tracking-uri", "http://me:secret@127.0.0.1:1")
    assert done.code == 0
    command = Run(runs / "a").info().command
    assert command.startswith("secateur search --data digits") and "http://***@127.0.0.1:1" in command


def test_bits_and_distillation_end_to_end(runs, tmp_path):
    done = search(runs, "--name", "a", "--mode", "both", "--activation-bits", "--target", "size=0.15", "--distill",
                  "--export", tmp_path / "e")  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(secateur("front", runs / "a", "--json").out)
    assert all(member["size_bytes"] <= 0.15 * document["original"]["size_bytes"] for member in document["front"])


def test_export_chooses_a_member(finished, tmp_path):
    members = json.loads(secateur("front", finished.folder, "--json").out)["front"]
    cheapest = members[0]
    done = secateur("export", finished.folder, "--max-macs", cheapest["macs_ratio"], "--out", tmp_path / "a")
    assert done.code == 0 and cheapest["trial_id"] in done.out
    named = secateur("export", finished.folder, "--trial", members[-1]["trial_id"], "--out", tmp_path / "b")
    assert named.code == 0 and members[-1]["trial_id"] in named.out
    policy = json.loads((tmp_path / "b/policy.json").read_text())
    assert policy["details"]["trial_id"] == members[-1]["trial_id"] and policy["details"]["command"]


def test_layers_profile_list_and_report(finished, tmp_path):
    layers = secateur("layers", "--data", "digits")
    assert layers.code == 0 and "resnet8_digits" in layers.out and "In all:" in layers.out
    document = json.loads(secateur("layers", "--data", "digits", "--json").out)
    assert {"net", "fingerprint", "layers", "groups", "pins"} == set(document)
    done = secateur("profile", "--data", "digits", "--calibration-images", "200", "--out", tmp_path / "p.png")
    assert done.code == 0 and (tmp_path / "p.png").stat().st_size > 1000 and "by bits" in done.out
    assert "ddpg" in secateur("list").out and "surgeon" in secateur("list").out
    finished.report.unlink()
    assert secateur("report", finished.folder).code == 0 and finished.report.exists()


def test_train_writes_weights_that_search_takes(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = secateur("train", "--net", "resnet8_digits", "--data", "digits", "--epochs", "1", "--threads", "1")
    assert done.code == 0 and (tmp_path / "resnet8_digits-digits.safetensors").exists()
    assert search(runs, "--weights", "resnet8_digits-digits.safetensors").code == 0


# Names and values that are wrong.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], ["Unknown command 'serch'", "Did you mean 'search'"]),
        (["search", "--episode", "3"], ["'--episode'", "'--episodes'"]),
        (["search", "--net", "resnet8_digit"], ["Unknown net", "Did you mean 'resnet8_digits'"]),
        (["search", "--net", "resnet18"], ["'torchvision:resnet18'"]),
        (["search", "--net", "torchvision:resnet19"], ["Unknown torchvision net", "Did you mean 'resnet"]),
        (["search", "--net", "timm:resnet19"], ["Unknown timm net", "Did you mean"]),
        (["search", "--net", "no_such_module:make"], ["'no_such_module'", "neither installed nor in"]),
        (["search", "--net", "json:lods"], ["must have 'lods'", "Did you mean 'load"]),
        (["search", "--data", "digit"], ["Unknown data 'digit'", "Did you mean 'digits'"]),
        (["search", "--agent", "ddpq"], ["Unknown agent 'ddpq'", "Did you mean 'ddpg'"]),
        (["search", "--order", "surgon"], ["'surgon'", "Did you mean 'surgeon'"]),
        (["search", "--repair", "least_square"], ["Did you mean 'least_squares'"]),
        (["search", "--reward", "acuracy"], ["Did you mean 'accuracy'"]),
        (["search", "--mode", "spars"], ["'env.mode'", "'sparsity'", "'spars'"]),
        (["search", "--target", "mac=0.5"], ["Unknown target 'mac'", "Did you mean 'macs'"]),
        (["search", "--target", "macs"], ["KIND=VALUE", "macs=0.5"]),
        (["search", "--target", "macs=half"], ["'half'", "not a number"]),
        (["search", "--target", "macs=-0.5"], ["'-0.5'"]),
        (["search", "--target", "macs=0"], ["positive"]),
        (["search", "--target", "macs=0.8..0.3"], ["low to high", "macs=0.3..0.8"]),
        (["search", "--target", "macs=0.5", "--target", "macs=0.4"], ["2 times"]),
        (["search", "--target", "macs=0.001"], ["out of reach", "smallest reachable is macs=0.1"]),
        (["search", "--target", "size=0.05"], ["out of reach", "smallest reachable is size=", "mode=both"]),
        (["search", "--episodes", "-3"], ["'loop.episodes'", "-3"]),
        (["search", "--episodes", "many"], ["--episodes", "'many'"]),
        (["search", "--staleness", "0"], ["'loop.staleness'", "0"]),
        (["search", "--seed", "-1"], ["'loop.seed'", "-1"]),
        (["search", "--members", "0"], ["'finetune.members'", "0"]),
        (["search", "--finetune-epochs", "-1"], ["'finetune.training.epochs'", "-1"]),
        (["search", "--finetune-lr", "inf"], ["'finetune.training.lr'", "inf"]),
        (["search", "--finetune-lr", "0"], ["'finetune.training.lr'", "0"]),
        (["search", "--finetune-steps", "-1"], ["'evaluation.finetune_steps'"]),
        (["search", "--l2-weight", "nan"], ["'env.l2_weight'", "nan"]),
        (["search", "--min-preserve-ratio", "1.5"], ["'env.min_preserve_ratio'", "1.5"]),
        (["search", "--channel-multiple", "0"], ["'env.channel_multiple'"]),
        (["search", "--activation-bits"], ["activation_bits needs mode"]),
        (["search", "--temperature", "3"], ["--temperature needs --distill"]),
        (["search", "--distill-weight", "0.3"], ["--distill-weight needs --distill"]),
        (["search", "--distill", "--temperature", "-1"], ["'finetune.distill.temperature'", "-1"]),
        (["search", "--distill", "--distill-weight", "2"], ["'finetune.distill.weight'", "2"]),
        (["search", "--threads", "0"], ["--threads"]),
        (["search", "--threads", "99999999999"], ["--threads"]),
        (["search", "--device", "abacus"], ["Device 'abacus'"]),
        (["search", "--device", "meta"], ["Device 'meta'"]),
        (["search", "--num-classes", "3"], ["10 classes"]),
        (["search", "--calibration-images", "1000000"], ["calibration_images", "must be at most"]),
        (["search", "--search-from", "tset"], ["search_from", "'tset'"]),
        (["search", "--batch-size", "0"], ["'data.batch_size'"]),
        (["search", "--data-seed", "-1"], ["'data.seed'"]),
        (["search", "--image-size", "0"], ["'data.image_size'"]),
        (["search", "--channels", "2"], ["--channels"]),
        (["search", "--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (["search", "--name", "../up"], ["name", "'../up'"]),
        (["search", "stray"], ["stray"]),
        (["layers", "--net", "resnet8"], ["Unknown net"]),
        (["profile", "--order", "l3"], ["'l3'"]),
        (["profile", "--out", "profile.docx"], [".png", "profile.docx"]),
        (["train", "--lr", "nan"], ["'lr'", "nan"]),
        (["train", "--epochs", "-1"], ["--epochs"]),
        (["train", "--out", "weights.pt"], [".safetensors", "weights.pt"]),
        (["train", "--out", "/proc/nowhere/w.safetensors"], ["Cannot write the weights"]),
        (["resume", "nothing"], ["nothing"]),
        (["front", "."], ["not a run folder"]),
        (["apply", "nowhere.json"], ["nowhere.json"]),
        (["export", "nothing", "--out", "x"], ["nothing"]),
        (["export", "nothing"], ["--out"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_bad_values_get_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--calibration-images", "200"] if "--calibration-images" not in arguments else []
    command = [arguments[0], *(small if arguments[0] == "search" else []), *arguments[1:]]
    refused(secateur(*command), *words)
    assert not any(tmp_path.glob("runs/*/trials.jsonl"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("lop: {episodes: 3}\n", ["Unknown setting 'lop'", "s.yaml", "Did you mean 'loop'"]),
        ("loop: {episodes: -3}\nenv: {mode: sparsity}\n", ["'loop.episodes'", "s.yaml"]),
        ("net: resnet20\n", ["'net'", "s.yaml", "'resnet20'"]),
        ("a: [1\n", ["s.yaml", "not YAML"]),
    ],
)
def test_bad_configuration_files(content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(content)
    refused(secateur("search", "--config", "s.yaml"), *words)


def test_an_option_that_is_wrong_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("loop: {episodes: 3}\n")
    assert "s.yaml" not in refused(secateur("search", "--config", "s.yaml", "--seed", "-4"), "'loop.seed'")


# Weights.


def weights(path: Path, kind: str) -> Path:
    from safetensors.torch import load_file, save_file

    state = load_file(WEIGHTS)
    if kind == "truncated":
        path.write_bytes(WEIGHTS.read_bytes()[:5000])
    elif kind == "nan":
        state["conv1.weight"][0] = float("nan")
        save_file(state, path)
    elif kind == "missing":
        del state["conv1.weight"]
        save_file({**state, "extra": torch.zeros(1)}, path)
    elif kind == "shapes":
        save_file({**state, "linear.weight": torch.zeros(7, 64), "linear.bias": torch.zeros(7)}, path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path = path.with_suffix(".pt")
        torch.save({"state_dict": state, "hook": Loud()}, path)
    return path


class Loud:
    """Makes a folder if anything unpickles it."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/secateur-was-here",)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", ["truncated"]),
        ("nan", ["NaN", "conv1.weight"]),
        ("missing", ["lacks conv1.weight", "also has extra"]),
        ("shapes", ["linear.weight (7, 64)", "--num-classes 7"]),
        ("empty", ["empty"]),
        ("absent", ["does not"]),
        ("pickle", ["posix.mkdir", "state_dict"]),
    ],
)
def test_bad_weights(kind, words, tmp_path, runs):
    refused(search(runs, "--weights", weights(tmp_path / "w.safetensors", kind)), *words)
    assert not Path("/tmp/secateur-was-here").exists()


# Data.


def images(root: Path, channels: int = 1, count: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("a", "b"):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8) if channels == 1 else (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number:03d}.png")
    return root


def test_data_folders(tmp_path, runs):
    refused(secateur("search", "--runs", runs, "--data", f"folder:{tmp_path / 'no'}"), "must exist")
    (tmp_path / "bare").mkdir()
    refused(secateur("search", "--runs", runs, "--data", f"folder:{tmp_path / 'bare'}"), "train/", "missing")
    for part in ("train", "test"):
        (tmp_path / "void" / part / "a").mkdir(parents=True)
    refused(secateur("search", "--runs", runs, "--data", f"folder:{tmp_path / 'void'}"), "must hold images")


def test_corrupt_images_are_named_and_skipped_when_asked(tmp_path):
    root = images(tmp_path / "data")
    bad = root / "train/a/007.png"
    bad.write_bytes(bad.read_bytes()[:40])
    arguments = ["layers", "--net", "resnet8_digits", "--data", f"folder:{root}"]
    refused(secateur(*arguments), str(bad), "--skip-corrupt")
    assert secateur(*arguments, "--skip-corrupt").code == 0


def test_channels_that_the_weights_do_not_have(tmp_path, runs):
    root = images(tmp_path / "data", channels=3)
    arguments = ["search", "--runs", runs, "--data", f"folder:{root}", "--weights", WEIGHTS, "--num-classes", "10"]
    refused(secateur(*arguments), "conv1.weight", "(16, 1, 3, 3)", "(16, 3, 3, 3)")


def test_labels_out_of_range(tmp_path, runs):
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    features = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps(features)},
    )
    rows = [{"bytes": buffer.getvalue(), "path": None}] * 20
    for part in ("train", "test"):
        table = pa.Table.from_pydict({"image": rows, "label": [0, 1] * 9 + [0, 7]}, schema=schema)
        pq.write_table(table, tmp_path / f"{part}-00000-of-00001.parquet")
    refused(secateur("search", "--runs", runs, "--data", f"parquet:{tmp_path}"), "0..1", "row 19", "has 7")


# A user's own net.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no such file of mine')", ["net factory", "RuntimeError", "no such file of mine"]),
        ("return 3", ["must return a torch.nn.Module", "int"]),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(5, 10))", ["must run on images of 1x8x8"]),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))", ["10 classes", "it has 4"]),
        ("return nn.Sequential(nn.Flatten(), nn.ReLU(), Nan())", ["NaN"]),
        ("return nn.Sequential(nn.Flatten(), nn.LogSoftmax(1))", ["no convolution or linear layer"]),
        ("return NanLater()", ["finite", "NaN"]),
    ],
)
def test_factories(body, words, tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"factory_{abs(hash(body))}"
    Path(f"{name}.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Nan(nn.Module):\n    def forward(self, x): return x / 0 * torch.zeros(1)\n"
        "class NanLater(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.f = nn.Linear(64, 10)\n"
        "    def forward(self, x): return self.f(torch.log(1 - x.flatten(1).clamp(max=2)))\n"
        f"def make(num_classes):\n    {body}\n"
    )
    refused(search(runs, "--net", f"{name}:make"), *words)


# Runs.


def test_a_taken_name_is_refused_before_anything_is_measured(finished, monkeypatch):
    monkeypatch.setattr("automl.loading.load_splits", lambda *_: pytest.fail("loaded data"))
    refused(search(finished.folder.parent, "--name", "done"), "exists", "secateur resume")


@pytest.mark.parametrize("option", ["--export", "--runs"])
def test_places_that_cannot_be_written_are_refused_before_the_search(option, tmp_path, runs, monkeypatch):
    monkeypatch.setattr("automl.loading.load_splits", lambda *_: pytest.fail("loaded data"))
    (tmp_path / "file").write_text("")
    refused(search(runs, option, tmp_path / "file/below"), str(tmp_path / "file/below"), "Not a directory")


def read_only(monkeypatch, folder: Path) -> None:
    """Tests may run as root, whom no permission stops."""

    def refuse(*_args, dir: Path, **_more):
        assert Path(dir) == folder.absolute()
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)


def test_read_only_folders(finished, tmp_path, monkeypatch):
    finished.front.unlink()
    read_only(monkeypatch, finished.folder)
    refused(secateur("resume", finished.folder, "--no-track"), "Cannot write to the run", "Read-only file system")
    read_only(monkeypatch, tmp_path)
    refused(search(tmp_path / "new"), "Cannot make a run", "Read-only")


def test_run_of_another_search(finished):
    text = finished.config.read_text()
    finished.config.write_text(text.replace('"seed": 0', '"seed": 1'))
    finished.front.unlink()
    before = finished.ledger.read_bytes()
    refused(secateur("resume", finished.folder, "--no-track"), "belongs to another search")
    assert finished.ledger.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("config.json", 100, ["config.json is damaged"]),
        ("config.json", None, ["no config.json", "Delete the folder"]),
        ("checkpoint.safetensors", 100, ["checkpoint", "damaged"]),
        ("trials.jsonl", 300, ["checkpoint knows 4 trials", "holds 0"]),
        ("trials.jsonl", None, ["does not exist"]),
    ],
)
def test_half_written_runs(finished, name, size, words):
    finished.front.unlink()
    path = finished.folder / name
    data = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(data[:size])
    refused(secateur("resume", finished.folder, "--no-track"), *words)


def test_config_of_a_later_version(finished):
    document = json.loads(finished.config.read_text())
    document["config"]["loop"]["magic"] = 1
    finished.config.write_text(json.dumps(document))
    finished.front.unlink()
    refused(secateur("resume", finished.folder), "'loop.magic'", "config.json")


def test_commands_on_an_unfinished_run(finished, tmp_path):
    finished.front.unlink()
    refused(secateur("front", finished.folder, "--json"), "no front yet", f"secateur resume {finished.folder}")
    refused(secateur("export", finished.folder, "--out", tmp_path / "x"), "no front yet")
    assert secateur("report", finished.folder).code == 0


def test_choices_that_no_member_meets(finished, tmp_path):
    out = tmp_path / "x"
    refused(secateur("export", finished.folder, "--max-macs", "0.01", "--out", out), "max_macs=0.01", "smallest is")
    refused(secateur("export", finished.folder, "--min-accuracy", "1.1", "--out", out), "min_accuracy=1.1", "best is")
    refused(secateur("export", finished.folder, "--trial", "t99999", "--out", out), "front member 't99999'")
    refused(secateur("export", finished.folder, "--trial", "t00000", "--max-macs", "1", "--out", out), "--trial")
    assert not out.exists()


def test_exports_that_cannot_be_written(finished, tmp_path):
    (tmp_path / "file").write_text("")
    refused(secateur("export", finished.folder, "--out", tmp_path / "file"), "Cannot write the export")


def test_finetune_settings_for_a_finished_run(finished):
    refused(secateur("resume", finished.folder, "--finetune-epochs", "3"), "finetuned already", "secateur apply")


def test_a_finetune_that_diverges_loses_nothing_and_can_be_repeated(runs):
    failed = search(runs, "--name", "a", "--finetune-lr", "1e30")
    run = Run(runs / "a")
    line = refused(failed, "Finetuning t0000", "All trials are kept", "--finetune-lr")
    kept = ledger(run)
    assert len(kept) == 4 and f"secateur resume {run.folder}" in line
    again = secateur("resume", run.folder, "--no-track", "--finetune-lr", "0.01")
    assert again.code == 0 and ledger(run) == kept
    assert run.info().config["finetune"]["training"]["lr"] == 0.01


def test_full_disk_while_checkpointing_leaves_the_last_checkpoint(runs, monkeypatch):
    whole = search(runs, "--name", "whole")
    assert whole.code == 0

    def full(path, snapshot):
        if snapshot.next_episode >= 3:
            with monkeypatch.context() as patch:
                patch.setattr(files.os, "fsync", fail)
                save_checkpoint(path, snapshot)
        save_checkpoint(path, snapshot)

    def fail(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(search_loop, "save_checkpoint", full)
        refused(search(runs, "--name", "cut"), "checkpoint.safetensors", "No space left", "free some space")
    assert not list((runs / "cut").glob(".*.tmp"))
    assert secateur("resume", runs / "cut", "--no-track").code == 0
    assert ledger(Run(runs / "cut")) == ledger(Run(runs / "whole"))


def test_out_of_memory_is_one_line(monkeypatch, runs):
    def out(*_):
        raise MemoryError

    monkeypatch.setattr("automl.loading.load_splits", out)
    refused(search(runs), "Out of memory", "--search-images")


def test_ctrl_c_before_the_search_began(monkeypatch, runs, finished):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("automl.loading.load_splits", interrupt)
    refused(search(runs, "--name", "a"), "Interrupted")
    finished.front.unlink()
    refused(secateur("resume", finished.folder), "Interrupted", f"secateur resume {finished.folder}")


def test_tracking_server_that_is_down(finished):
    refused(secateur("track", finished.folder, "--tracking-uri", "http://127.0.0.1:9"), "Cannot track at http://127.0")


def test_a_reader_that_leaves_is_no_error(finished, tmp_path):
    process = start("front", finished.folder, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)


def test_packages_of_another_distribution_are_noticed(tmp_path, monkeypatch):
    assert foreign_packages() == ""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    message = foreign_packages()
    assert "'agents'" in message and str(tmp_path) in message and "virtual environment" in message
    refused(secateur("list"), "'agents'")


def test_errors_of_our_own_are_one_line_even_if_their_text_is_not(monkeypatch, runs):
    def fail(*_):
        raise UserError("first\nsecond")

    monkeypatch.setattr("automl.loading.load_splits", fail)
    assert refused(search(runs)) == "Error: first second"


def test_runs_are_whole_folders(finished, tmp_path):
    shutil.move(finished.folder, tmp_path / "elsewhere")
    assert secateur("front", tmp_path / "elsewhere").code == 0


def test_normalisation_of_a_net_can_be_given(runs):
    done = search(runs, "--name", "a", "--mean", "0.5", "--std", "0.25")
    assert done.code == 0 and "normalised by mean 0.500, std 0.250" in done.err
    refused(search(runs, "--mean", "0.5"), "mean and std must be given together")
    refused(search(runs, "--mean", "0.5,0.5", "--std", "0.5,0.5"), "must have 1 numbers")
    refused(search(runs, "--mean", "half", "--std", "1"), "numbers separated by commas")


def test_weights_are_not_written_over_unasked(tmp_path):
    out = tmp_path / "mine.safetensors"
    given = ("train", "--net", "resnet8_digits", "--data", "digits", "--steps", "1", "--threads", "1", "--out", out)
    assert secateur(*given).code == 0
    refused(secateur(*given), "exists", "--force")
    assert secateur(*given, "--force").code == 0
