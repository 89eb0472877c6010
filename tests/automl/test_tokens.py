"""Who may use a cluster: tokens, their files, and addresses that only this machine reaches."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from automl.cluster.connect import is_loopback
from automl.cluster.job_server import dashboard_address
from automl.cluster.tokens import (
    MAKE_TOKEN,
    has_token,
    missing_token,
    read_token,
    token_file,
    token_files,
    warn_of_readers,
)
from compressors.errors import UserError

SECRET = "e0b0" * 16


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def file(home):
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def warnings():
    said = []
    warn_of_readers(said.append)
    return said


def test_the_token_comes_from_where_ray_looks_for_it(home, file, monkeypatch):
    assert token_file() == file and has_token() and read_token() == SECRET
    assert token_files() == [file]
    other = home / "other"
    other.write_text(f"{SECRET[::-1]}\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    assert token_file() == other and read_token() == SECRET[::-1]
    monkeypatch.setenv("RAY_AUTH_TOKEN", f" {SECRET} ")
    assert token_file() is None and has_token() and read_token() == SECRET
    assert token_files() == [other, file]


def test_without_a_token_there_is_none(home, monkeypatch):
    assert token_file() is None and not has_token() and read_token() == ""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "nowhere"))
    assert token_file() is None and not has_token()
    assert "umask 077" in missing_token("http://head:8265")


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_token_that_others_can_read_is_warned_of(file, mode):
    assert warnings() == []
    file.chmod(mode)
    (line,) = warnings()
    assert f"chmod 600 {file}" in line
    assert SECRET not in line


@pytest.mark.slow
def test_the_documented_command_makes_a_token_that_only_its_owner_can_read(home):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", f"umask 022; {MAKE_TOKEN}"], env={**os.environ, "PATH": path, "HOME": str(home)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    made = home / ".ray" / "auth_token"
    assert done.returncode == 0, shlex.quote(done.stderr)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert len(made.read_text()) == 64 and done.stdout == ""


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8265", "127.0.0.1:6379", "localhost:8265", "https://localhost", "http://[::1]:8265", "::1",
     "127.9.9.9", "http://127.0.0.1:8265/prefix"],
)  # fmt: skip
def test_loopback_is_this_machine(address):
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    ["http://10.0.0.1:8265", "http://127.0.0.1.example.org:8265", "localhost.example.org:80", "http://head/@127.0.0.1",
     "http://127.0.0.1@head:8265", "0.0.0.0:8265", "[2001:db8::1]:8265"],
)  # fmt: skip
def test_what_only_looks_like_loopback_is_not(address):
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("head", "http://head:8265"), ("head:80", "http://head:80"), ("https://head", "https://head:443"),
     ("http://head:8265/", "http://head:8265"), ("https://head/ray/", "https://head:443/ray"),
     ("http://[::1]:1", "http://[::1]:1")],
)  # fmt: skip
def test_addresses_get_a_scheme_and_a_port(given, meant):
    assert dashboard_address(given) == meant


@pytest.mark.parametrize(
    ("address", "word"),
    [("ray://head:10001", "client port"), ("ftp://head", "http://HOST:8265"), ("http://", "http://HOST:8265"),
     ("http://head:99999", "http://HOST:8265"), ("http://me:secret@head:8265", "name or password")],
)  # fmt: skip
def test_addresses_of_no_dashboard_are_refused(address, word):
    with pytest.raises(UserError, match=word) as refusal:
        dashboard_address(address)
    assert "me:secret" not in str(refusal.value)
