"""The job server of a cluster: found, safe or refused, and every refusal in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from automl.cluster.connect import import_ray, is_loopback, open_to_all
from automl.cluster.probe import wrong_token
from automl.cluster.tokens import missing_token, use_token
from compressors.errors import UserError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TO_CONNECT_S = 10.0
_TO_ANSWER_S = 120.0
_OLDEST_RAY = (2, 40)


@dataclass(frozen=True)
class JobServer:
    """A connection to the job server of a cluster.

    Attributes:
        address: Of the dashboard.
        client: Ray's `JobSubmissionClient`.
        guarded: Whether the cluster asks for a token.
        ray_version: Of the cluster.
    """

    address: str
    client: Any
    guarded: bool
    ray_version: str


def open_server(address: str | None, note: Callable[[str], None], *, insecure: bool = False) -> JobServer:
    """Connects to a job server; nothing is sent there but questions.

    Args:
        address: `http://HOST:PORT` or `https://HOST:PORT` of the dashboard; None: that of RAY_API_SERVER_ADDRESS, else
            of this machine.
        note: Gets a line about a token that others can read.
        insecure: Accept a cluster that anybody can use and that more than this machine reaches.

    Raises:
        UserError: No cluster there, another port of its, one that asks for no token, a wrong token, no job server, or a
            Ray that is too old.
    """
    address = dashboard_address(address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS)
    guarded = _is_guarded(address)
    if not guarded and not insecure and not is_loopback(address):
        raise UserError(open_to_all(address))
    if guarded and not use_token(note):
        mode = os.environ.get("RAY_AUTH_MODE", "token")
        if mode.lower() != "token":
            raise UserError(
                f"The cluster at {address} asks for a token, but RAY_AUTH_MODE={mode} forbids to send one: unset it, "
                "or set RAY_AUTH_MODE=token."
            )
        raise UserError(missing_token(address))
    with answers(address), _only(address):
        client = _client(address)
    version = str(getattr(client, "_server_ray_version", None) or "unknown")
    if _numbers(version) < _OLDEST_RAY:
        raise UserError(
            f"The cluster at {address} runs Ray {version}, but Secateur needs {'.'.join(map(str, _OLDEST_RAY))} or "
            "later: update it there."
        )
    return JobServer(address, client, guarded, version)


def _client(address: str) -> Any:
    import_ray()
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, *args: Any, **options: Any) -> Any:
            # Ray's own waits for ever.
            return super()._do_request(*args, **{"timeout": (_TO_CONNECT_S, _TO_ANSWER_S), **options})

    return Client(address)


def dashboard_address(address: str) -> str:
    """An address with scheme and port.

    Raises:
        UserError: It is none of a dashboard.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    wanted = f"--address must be that of the cluster's dashboard, e.g. http://HOST:8265, but got {address!r}"
    if parts.scheme == "ray":
        raise UserError(f"{wanted}, which is Ray's client port.")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UserError(f"{wanted}.")
    if parts.username is not None or parts.password is not None:
        raise UserError("--address must not hold a name or password: a cluster is guarded by its token.")
    named = f"[{host}]" if ":" in host else host
    shown = port or (443 if parts.scheme == "https" else 8265)
    return f"{parts.scheme}://{named}:{shown}{parts.path.rstrip('/')}"


def _is_guarded(address: str) -> bool:
    """Asks without a token."""
    import requests

    with answers(address):
        answer = requests.get(f"{address}/api/jobs/", timeout=_TO_CONNECT_S, allow_redirects=False)
    if answer.status_code in (401, 403):
        return True
    if answer.status_code == 200 and _is_list(answer):
        return False
    if answer.status_code >= 500:
        raise UserError(f"The job server at {address} is in trouble (status {answer.status_code}): look at its logs.")
    raise UserError(
        f"{address} is no dashboard with a job server (status {answer.status_code}): give the dashboard's address, as "
        "a rule http://HOST:8265, and see that the head has ray[default] installed."
    )


def _is_list(answer: Any) -> bool:
    try:
        return isinstance(answer.json(), list)
    except ValueError:
        return False


@contextmanager
def answers(address: str) -> Iterator[None]:
    """Turns what goes wrong between here and a job server into one line.

    Raises:
        UserError: Something did.
    """
    import_ray()
    import requests
    from ray.exceptions import AuthenticationError

    broken = requests.exceptions
    try:
        yield
    except AuthenticationError as error:
        raise UserError(wrong_token(address)) from error
    except broken.SSLError as error:
        if "certificate" not in str(error).lower():
            raise UserError(f"What answers at {address} does not speak https: use http://.") from error
        raise UserError(
            f"The certificate of {address} is not trusted here: name a file with the one that signed it with "
            "REQUESTS_CA_BUNDLE."
        ) from error
    except (broken.ConnectTimeout, broken.ReadTimeout, ConnectionError, broken.ConnectionError) as error:
        raise UserError(_unreachable(address, error)) from error
    except broken.RequestException as error:
        raise UserError(f"{address} cannot be asked: {' '.join(str(error).split())[:200]}.") from error


def _unreachable(address: str, error: BaseException) -> str:
    import requests

    text = str(error)
    if any(sign in text for sign in ("BadStatusLine", "Connection aborted", "RemoteDisconnected", "HTTP/0.9")):
        return (
            f"What answers at {address} does not speak HTTP: give the dashboard's port, as a rule 8265, not that of "
            "the cluster itself (6379) or of Ray's client (10001)."
        )
    if isinstance(error, requests.exceptions.ReadTimeout):
        return f"{address} took the question but does not answer: is that the dashboard's port, as a rule 8265?"
    if "resolve" in text or "Name or service" in text:
        return f"There is no host of the name in {address}: check --address."
    return (
        f"Nobody answers at {address}: is the cluster up, and its dashboard to be reached from here (a tunnel, "
        "`ssh -L 8265:localhost:8265 HEAD`, or `ray start --head --dashboard-host 0.0.0.0`)?"
    )


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Keeps Ray from preferring the environment's address to the one that was checked."""
    aside = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(aside)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return numbers or _OLDEST_RAY
