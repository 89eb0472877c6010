"""The example files of docs/cluster.md are what Ray and KubeRay take."""

import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import yaml

from automl.cli import cli

ROOT = Path(__file__).resolve().parents[2]
UP, JOB = (yaml.safe_load((ROOT / "docs" / "cluster" / name).read_text()) for name in ("ray-up.yaml", "rayjob.yaml"))
SCHEMA = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())


def options(name):
    command = cli.get_command(None, name)
    return {option for parameter in command.params for option in parameter.opts}


def test_the_ray_up_file_fits_the_schema_that_ray_has():
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(UP, schema)
    assert UP["head_node_type"] in UP["available_node_types"]
    started = " ".join(UP["head_start_ray_commands"] + UP["worker_start_ray_commands"])
    assert started.count("RAY_AUTH_MODE=token") == 2, "no node without a token"
    assert "--dashboard-host=127.0.0.1" in started


def test_the_rayjob_fits_what_kuberay_takes():
    jsonschema.validate(JOB, SCHEMA)
    cluster = JOB["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= volumes


@pytest.mark.parametrize("path, value", [
    (("spec", "submissionMode"), "Sometimes"),
    (("spec", "shutdownAfterFinish"), True),
    (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
])  # fmt: skip
def test_the_schema_refuses_mistakes(path, value):
    wrong = json.loads(json.dumps(JOB))
    place = wrong
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_the_commands_of_the_rayjob_are_ours_and_its_workers_have_room():
    shell = shlex.split(JOB["spec"]["entrypoint"])[2]
    found = re.findall(r"secateur (search|resume)([^;]*);", shell)
    assert [name for name, _ in found] == ["resume", "search"]
    for name, words in found:
        used = [word for word in words.split() if word.startswith("--")]
        assert set(used) <= options(name)
        workers, each = (int(words.split(f"{option} ")[1].split()[0]) for option in ("--workers", "--cpus-per-worker"))
        group = JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
        cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        assert workers <= group["replicas"] * (cpus // each)


def test_the_files_name_the_tested_version_of_ray():
    tested = version("ray")
    assert f"=={tested}" in " ".join(UP["setup_commands"])
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == tested
