"""What a user types, as a function; and what they must see when it is refused."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.cli import main
from automl.ledger import comparable
from automl.runs import Run

ROOT = Path(__file__).parents[2]
SMALL = (
    "--data", "digits", "--episodes", "4", "--members", "2", "--finetune-epochs", "1", "--threads", "1",
    "--calibration-images", "200", "--search-images", "150", "--no-track",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def secateur(*arguments: Any) -> Done:
    """Runs the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments: Any, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Starts the installed command."""
    command = Path(sys.executable).with_name("secateur")
    line = [str(command)] if command.exists() else [sys.executable, "-c", "from automl.cli import main; main()"]
    return subprocess.Popen(
        [*line, *map(str, arguments)], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(*arguments: Any, cwd: Path, **env: str) -> Done:
    process = start(*arguments, cwd=cwd, **env)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def refused(done: Done, *words: str) -> str:
    """Checks that a command ended as bad input must, and returns the line that says so."""
    assert done.code == 2, (done.code, done.err)
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and done.err.splitlines()[-1] == errors[0], done.err
    for word in words:
        assert word in errors[0], (word, errors[0])
    return errors[0]


def ledger(run: Run) -> list[str]:
    """The ledger's lines without times."""
    return [comparable(line) for line in run.ledger.read_text().splitlines()]
