"""The token that a cluster asks for: where it lies on this machine, and who can read it; its content is never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

MAKE_TOKEN = "(umask 077; ray get-auth-token --generate > /dev/null)"
"""Makes a token file that only its owner can read; without the umask Ray's command makes one that everybody can."""


def token_files() -> list[Path]:
    """Every file that may hold a token, used now or not: that of the environment, then Ray's own."""
    given = [os.environ["RAY_AUTH_TOKEN_PATH"]] if os.environ.get("RAY_AUTH_TOKEN_PATH") else []
    return [Path(path).expanduser() for path in (*given, "~/.ray/auth_token")]


def token_file() -> Path | None:
    """The file that Ray would read the token from; None where the environment holds the token, or there is no file."""
    if _in_environment():
        return None
    path = token_files()[0]
    return path if path.is_file() else None


def read_token() -> str:
    """What Ray would send; empty where there is no token, or its file cannot be read."""
    if token := _in_environment():
        return token
    try:
        return token_files()[0].read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def has_token() -> bool:
    """Whether this machine has a token."""
    return bool(_in_environment()) or token_file() is not None


def _in_environment() -> str:
    return os.environ.get("RAY_AUTH_TOKEN", "").strip()


def use_token(note: Callable[[str], None]) -> bool:
    """Lets Ray send this machine's token, unless RAY_AUTH_MODE forbids it.

    Args:
        note: Gets a line where other users of this machine can read the token.

    Returns:
        Whether there is a token to send.
    """
    if not has_token() or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return False
    warn_of_readers(note)
    if "RAY_AUTH_MODE" not in os.environ:
        from automl.cluster.connect import import_ray, reread_authentication

        os.environ["RAY_AUTH_MODE"] = "token"
        import_ray()
        reread_authentication()
    return True


def warn_of_readers(note: Callable[[str], None]) -> None:
    """Says so where others than its owner can read the token file."""
    file = token_file()
    if file is not None and os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        note(f"Warning: other users of this machine can read the cluster's token: chmod 600 {file}")


def missing_token(address: str) -> str:
    """What to do where a cluster asks for a token and this machine has none."""
    return (
        f"The cluster at {address} asks for a token, and this machine has none: copy the cluster's token file, e.g. "
        "(umask 077; mkdir -p ~/.ray; scp HEAD:.ray/auth_token ~/.ray/auth_token), or name a copy with "
        "RAY_AUTH_TOKEN_PATH."
    )
