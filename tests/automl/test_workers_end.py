"""A search with workers, ended in every way from outside: nothing of ours stays, and it can be gone on with."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from automl.ledger import comparable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")]
COMMAND = [
    "search",
    "--data",
    "digits",
    "--threads",
    "1",
    "--staleness",
    "4",
    "--members",
    "1",
    "--finetune-epochs",
    "0",
]


def secateur(*arguments, mark="", **more):
    program = [sys.executable, "-c", "from automl.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SECATEUR_MARK": mark}
    return subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )


def marked(mark):
    """Processes that descend from the marked one, wherever they hang now."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"SECATEUR_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def lines(folder):
    return [comparable(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    runs = tmp_path_factory.mktemp("reference")
    with secateur(*COMMAND, "--episodes", "40", "--runs", runs, "--name", "a", "--no-track") as process:
        process.communicate(timeout=120)
    return lines(runs / "a")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_ours_is_left_and_the_search_goes_on(tmp_path, reference, number):
    mark, folder = uuid.uuid4().hex, tmp_path / "a"
    options = [*COMMAND, "--workers", "2", "--episodes", "40", "--runs", tmp_path, "--name", "a", "--no-track"]
    # A group of its own, so that Ctrl-C reaches all of it, as in a terminal.
    process = secateur(*options, mark=mark, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (folder / "trials.jsonl").exists() or len(lines(folder)) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    ended = time.monotonic()
    output, _ = process.communicate(timeout=30)
    while marked(mark) and time.monotonic() < ended + 10:
        time.sleep(0.2)
    assert marked(mark) == []
    if number != signal.SIGKILL:
        assert process.returncode == 2
        assert "Traceback" not in output
        assert output.strip().splitlines()[-1].startswith("Error: Interrupted after")
    assert len(lines(folder)) < 40
    with secateur("resume", folder, "--workers", "2", "--no-track") as again:
        output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert lines(folder) == reference
