"""URLs of files elsewhere."""

from __future__ import annotations

import re

# Two letters at least: `C://` is a Windows drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(text: object) -> bool:
    """Whether a text is a URL, as `s3://bucket/folder`, and not a path."""
    return isinstance(text, str) and _URL.match(text) is not None


def joined(url: str, *names: str) -> str:
    """The URL of something inside a folder."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{'/'.join([rest.rstrip('/'), *names] if rest else names)}"


def shown(url: str) -> str:
    """A URL as people may see it: without its query, which may hold a signature."""
    return url.partition("?")[0] if is_url(url) else url
