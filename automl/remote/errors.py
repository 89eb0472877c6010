"""Whatever a file system elsewhere raises, in one line for a person."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from automl.remote.url import shown
from compressors.errors import UserError

_CREDENTIALS = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "s3a": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
}


@contextmanager
def remote_errors(what: str, url: str) -> Iterator[None]:
    """Turns whatever a file system raises into one line.

    Args:
        what: What is being done, as in `Cannot {what} {url}`.
        url: To what.

    Raises:
        UserError: Anything came from the block.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # file systems raise errors of their own libraries
        raise UserError(_explained(what, url, error)) from error


@contextmanager
def named_as(local: Path, url: str) -> Iterator[None]:
    """Lets messages about a local copy name what it is a copy of."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(local), shown(url))) from error


def _explained(what: str, url: str, error: Exception) -> str:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and not isinstance(cause, type(error)):
        error = cause  # HTTP's says so of a server that is down, too
    scheme, url, text = url.partition("://")[0], shown(url), first_line(error).replace(url, shown(url))
    number = getattr(error, "errno", None)
    status, name = _status(error), type(error).__name__
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"Cannot {what} {url}: {os.strerror(number or 0)}. Please free some space, then try again."
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status == 404:
        return f"There is nothing at {url}: check the bucket and the path, and that this machine can see them."
    refused = isinstance(error, PermissionError) or status in (401, 403)
    if refused or re.search(r"credential|access ?denied|forbidden|anonymous", text, re.I):
        advice = f"Give it some ({_CREDENTIALS[scheme]})" if scheme in _CREDENTIALS else "Check the permissions"
        return f"No permission to {what} {url} with the credentials of this machine: {text}. {advice}, then try again."
    if isinstance(error, ConnectionError | TimeoutError) or re.search(r"connect|timeout", f"{name} {text}", re.I):
        return f"No connection to {url}: {text}. Check the network and the address, then try again."
    return f"Cannot {what} {url}: {text}. Check the address, then try again."


def _status(error: Exception) -> int | None:
    """The HTTP status, which every client library keeps elsewhere."""
    answer = getattr(error, "response", None)
    inner = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    found = (inner, getattr(error, "status", None), getattr(error, "code", None))
    return next((int(value) for value in found if isinstance(value, int | str) and str(value).isdigit()), None)


def first_line(error: Exception) -> str:
    """The first line of an error, or its name; without the queries of URLs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\?[^\s'\"]*", "", lines[0] if lines else type(error).__name__).rstrip(".:")
