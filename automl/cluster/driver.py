"""What a job runs on the cluster: the search, or its resumption, that a request in its working folder describes.

Imports little, since every process of a job loads it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

FOLDER = "secateur-job"
"""Folder, in a job's working folder, of what belongs to the job."""

BEGUN = "Secateur: the job begins."
"""The line after which a job's request is known to be in order."""

ENTRYPOINT = 'exec "${SECATEUR_PYTHON:-python}" -P -m automl.cluster.driver'
"""Without a shell in between, which would get the signals; `-P` keeps the user's folder from hiding packages."""


@dataclass(frozen=True)
class JobRequest:
    """What a job is asked to do.

    Attributes:
        run: Name of the run.
        runs: Folder of all runs on the cluster, or a URL.
        resume: Whether the run goes on.
        options: Options of `secateur search` and `resume` as they are typed.
        weights: File below `FOLDER` with the net's weights, or empty.
        code: What the nodes must run, by name; empty where the code travels.
    """

    run: str
    runs: str
    resume: bool = False
    options: list[str] = field(default_factory=list)
    weights: str = ""
    code: dict[str, str] = field(default_factory=dict)

    def data(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), indent=1).encode()


def remember_python() -> None:
    """Tells the job's command which Python Ray runs on, for it need not be the one that the shell would find."""
    os.environ["SECATEUR_PYTHON"] = sys.executable


def main() -> None:
    """Runs the job; its output is the job's log."""
    signal.signal(signal.SIGTERM, _interrupt)
    request = JobRequest(**json.loads((Path(FOLDER) / "request.json").read_bytes()))
    try:
        _run(request)
    except ModuleNotFoundError as error:
        _fail(f"This node lacks the module {error.name!r}: install what Secateur needs on all nodes.")
    except KeyboardInterrupt:
        _fail("The job was stopped before its search began.")
    except SystemExit as error:
        if error.code not in (None, 0) and _can_resume(request):
            print(f"From where it was submitted: secateur submit --resume {request.run}", file=sys.stderr)
        raise


def _run(request: JobRequest) -> None:
    from automl.cli import main as secateur
    from compressors.errors import UserError

    try:
        arguments = _arguments(request)
    except UserError as error:
        _fail(str(error))
    print(BEGUN, flush=True)
    secateur(arguments)


def _arguments(request: JobRequest) -> list[str]:
    """The command line of the search, once all that it needs is in its place.

    Raises:
        UserError: Other code runs here, the run is taken, there is none to resume, or the disk refuses.
    """
    from automl.cluster.code import code_facts
    from automl.cluster.connect import check_code

    if request.code:
        check_code(code_facts(), "the cluster", request.code)
    remote = "://" in request.runs
    runs = request.runs if remote else str(Path(request.runs).expanduser())
    if request.resume:
        if not remote:
            from automl.runs import find_run

            find_run(Path(runs), request.run)
        return ["resume", f"{runs.rstrip('/')}/{request.run}", *request.options]
    if not remote:
        _require_new(Path(runs) / request.run)
    weights = ["--weights", _keep_weights(request, runs, remote)] if request.weights else []
    config = str(Path(FOLDER) / "config.yaml")
    return ["search", "--config", config, "--runs", runs, "--name", request.run, *weights, *request.options]


def _can_resume(request: JobRequest) -> bool:
    """Whether the search came so far that there is a run."""
    if "://" not in request.runs:
        return (Path(request.runs).expanduser() / request.run / "config.json").exists()
    from automl.remote.folder import RemoteFolder
    from compressors.errors import UserError

    try:
        return RemoteFolder(f"{request.runs.rstrip('/')}/{request.run}").has("config.json")
    except UserError:
        return False


def _require_new(folder: Path) -> None:
    from automl.files import require_writable
    from automl.runs import require_free

    if (folder / "config.json").exists():
        raise _exists(str(folder), folder.name)
    require_free(folder.parent, folder.name)
    require_writable(folder, f"make the run {folder}")


def _exists(where: str, run: str) -> Exception:
    from compressors.errors import UserError

    return UserError(
        f"The run {where} exists on the cluster. Choose another --name, or go on with: secateur submit --resume {run}"
    )


def _keep_weights(request: JobRequest, runs: str, remote: bool) -> str:
    """Puts the weights into the run's folder, since what travels with a job is deleted after it."""
    from automl.files import storage_errors

    source = Path(FOLDER) / request.weights
    if remote:
        return _send_weights(source, f"{runs.rstrip('/')}/{request.run}")
    target = Path(runs).absolute() / request.run / "weights" / source.name
    with storage_errors(f"keep the weights in {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    return str(target)


def _send_weights(source: Path, run: str) -> str:
    from automl.remote.folder import RemoteFolder

    folder = RemoteFolder(run)
    if folder.has("config.json"):
        raise _exists(run, run.rpartition("/")[2])
    folder.send(f"weights/{source.name}", source)
    return f"{run}/weights/{source.name}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str) -> Any:
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
