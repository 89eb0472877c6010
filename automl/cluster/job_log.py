"""What the log of a job tells: how far its search is, whether it can go on, and why it failed."""

from __future__ import annotations

import re

from automl.cluster.driver import BEGUN


def why(name: str, message: str, log: str) -> str:
    """Why a job failed, in one line.

    Args:
        name: Of the job.
        message: What the cluster says of it.
        log: What it said itself.
    """
    said = [line.strip() for line in log.splitlines() if line.startswith("Error: ")]
    if said:
        return f"The job {name} failed: {said[-1].removeprefix('Error: ')}"
    text = " ".join(f"{message} {log}".split())
    missing = re.search(r"No module named '?([\w.]+)", text)
    if missing:
        own = missing[1].partition(".")[0] in ("automl", "compressors", "envs", "agents")
        hint = "submit without --no-code" if own else "install what Secateur needs on all nodes"
        return f"The job {name} failed: the nodes lack the module {missing[1]!r}; {hint}."
    if "exit code 127" in text:
        return f"The job {name} failed: the nodes have no command `python`."
    if "exit code -9" in text or "exit code 137" in text:
        return f"The job {name} failed: its driver was killed, perhaps because the head ran out of memory."
    return f"The job {name} failed: {last_line(log) if message.startswith('Job entry') else last_line(message)}"


def resumable(log: str) -> bool:
    """Whether a job came so far that there is a run to go on with."""
    return "secateur submit --resume" in log or any(line.startswith("Search: ") for line in log.splitlines())


def progress(log: str) -> str:
    """The last line of a log that says how far the search is, or nothing."""
    lines = [line.strip() for line in log.splitlines()]
    begun = lines.index(BEGUN) if BEGUN in lines else len(lines)
    said = [line for line in lines[begun + 1 :] if line and not line.startswith("Error: ")]
    return next((line for line in reversed(said) if line.startswith("Search: ")), said[-1] if said else "")


def last_line(text: str) -> str:
    """The last line of a text that says something, shortened."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "it gives no reason")[:300].rstrip(".") + "."
