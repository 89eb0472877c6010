"""URLs of files elsewhere."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from compressors.errors import UserError

# Two letters at least: `C://` is a Windows drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# A password may hold whatever ends a host for a parser, `/` above all; a port and IPv6 are none.
_PASSWORD = re.compile(r"(?!\[)[^/:?#]*:(?!\d*(?:[/?#]|$))[^@]*@")
_SECRETS = re.compile(r"^sig$|signature|token|secret|passw|pwd|credential|auth|key|^x-(amz|goog|oss)-", re.I)


def is_url(text: object) -> bool:
    """Whether a text is a URL, as `s3://bucket/folder`, and not a path."""
    return isinstance(text, str) and _URL.match(text) is not None


def joined(url: str, *names: str) -> str:
    """The URL of something inside a folder."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{'/'.join([rest.rstrip('/'), *names] if rest else names)}"


def has_user(url: str) -> bool:
    """Whether a URL names a user, with or without a password."""
    rest = url.partition("://")[2]
    return "@" in re.split(r"[/?#]", rest, maxsplit=1)[0] or _PASSWORD.match(rest) is not None


def check_no_secret(url: str) -> None:
    """Checks that a URL of data, weights or runs can be recorded; a path always can.

    Raises:
        UserError: It holds a password, or a query that looks like a signature or a token.
    """
    if not is_url(url):
        return
    scheme, _, rest = url.partition("://")
    if _PASSWORD.match(rest):
        raise UserError(
            f"A URL must not hold a password, since it is recorded with the run, but {scheme}://***@... does: "
            "give it to the file system as its settings expect."
        )
    query = rest.partition("?")[2].partition("#")[0]
    found = next((key for key, _ in parse_qsl(query, keep_blank_values=True) if _SECRETS.search(key)), None)
    if found is not None:
        raise UserError(
            "A URL must not hold a signature or a token, since it is recorded with the run, but "
            f"{shown(url)}?{found}=*** does: give the plain URL and let this machine have permission, or fetch "
            "the file first."
        )


def shown(url: str) -> str:
    """A URL as people may see it: without its query, which may hold a signature."""
    return url.partition("?")[0] if is_url(url) else url
