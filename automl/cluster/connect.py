"""The connection to a Ray cluster: joined or started, safe or refused, and every refusal in one line."""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from automl.cluster.code import code_facts
from automl.cluster.plan import WorkerPlan
from automl.cluster.probe import ask
from automl.cluster.tokens import use_token
from compressors.errors import UserError

_MOST_FOR_A_CORE = 4
"""Threads of workers; each worker is a process of its own with several hundred megabytes."""
_AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def _silent(message: str) -> None:
    """Nobody listens."""


@contextmanager
def connected(plan: WorkerPlan, note: Callable[[str], None] = _silent) -> Iterator[Any]:
    """Joins or starts the cluster of a plan and gives the module `ray`; leaves it, or stops what it started.

    A process that is connected already, as in a job of one's own, uses that connection and keeps it.

    Args:
        plan: Says which cluster.
        note: Gets a line where the token's file can be read by others.

    Raises:
        UserError: No cluster there, a wrong token, other versions, or a cluster that anybody may use.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    before = {name: os.environ.get(name) for name in _AUTHENTICATION}
    try:
        if plan.address == "local":
            _require_cores(plan, note)
            _start(ray, plan)
        else:
            _join(ray, plan, note)
            check_cluster(ray, plan)
        yield ray
    finally:
        ray.shutdown()
        _restore(before)


def _restore(before: Mapping[str, str | None]) -> None:
    """Forgets a token that was for one cluster, so that the next one is not sent it."""
    if before == {name: os.environ.get(name) for name in before}:
        return
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    reread_authentication()


def import_ray() -> Any:
    """Ray, which reports to nobody how it is used."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without GPUs every worker would otherwise announce a change of Ray's behaviour.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # What Ray says about workers that died comes a second time, and longer, than what `automl.workers` says.
    ray._private.worker._worker_logs_enabled = False
    return ray


def is_loopback(address: str) -> bool:
    """Whether an address can only be reached from this machine."""
    host = _host(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, even one that begins with 127.


def _require_cores(plan: WorkerPlan, note: Callable[[str], None]) -> None:
    cores = os.cpu_count() or 1
    wanted = plan.workers * plan.cpus_per_worker
    share = (
        f"{plan.workers} workers of {plan.cpus_per_worker} thread(s) each on this machine, which has {cores} core(s)"
    )
    if wanted > _MOST_FOR_A_CORE * cores:
        raise UserError(
            f"{share}, would take its memory and be no faster: use --workers {max(1, cores // plan.cpus_per_worker)}, "
            "or a cluster (--ray-address)."
        )
    if wanted > cores:
        note(f"Warning: {share}, are no faster than fewer.")


def _start(ray: Any, plan: WorkerPlan) -> None:
    # A token of its own, in no file: nobody but this search and its workers need it, and it dies with them.
    if not any(name in os.environ for name in _AUTHENTICATION):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        os.environ["RAY_AUTH_MODE"] = "token"
        reread_authentication()
    cpus = plan.workers * plan.cpus_per_worker
    gpus = plan.workers * plan.gpus_per_worker
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=None if gpus else 0,
            include_dashboard=False,
            configure_logging=True,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            # Modules that can be imported here, e.g. a net of one's own in the working folder, can be there too.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"Ray does not start on this machine: {_line(error)} Try --workers 0.") from error


def reread_authentication() -> None:
    """Ray reads its environment when it is imported, which may have been earlier."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _join(ray: Any, plan: WorkerPlan, note: Callable[[str], None]) -> None:
    address = _found(plan.address)
    answer = ask(address)
    if answer.version and answer.version != ray.__version__:
        raise UserError(
            f"The cluster at {address} runs Ray {answer.version}, this process {ray.__version__}: install the same "
            "version in both places."
        )
    if not answer.guarded and not plan.insecure and not is_loopback(address):
        raise UserError(open_to_all(address))
    if answer.guarded and not use_token(note):
        raise UserError(f"The cluster at {address} asks for a token: unset RAY_AUTH_MODE, which forbids to send one.")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        text = " ".join(str(error).split())
        if "ersion mismatch" in text:
            raise UserError(f"The cluster at {address} runs other versions: {text}") from error
        hint = ""
        if address.startswith("ray://"):
            hint = " Try `secateur submit`, or set GRPC_ENABLE_FORK_SUPPORT=0 where the head is started."
        raise UserError(f"Cannot join the Ray cluster at {address}: {_line(error)}{hint}") from error


def _found(address: str) -> str:
    """An address as it was given, or that of the cluster which `auto` means.

    Raises:
        UserError: There is none on this machine, or it is no address.
    """
    if address == "auto":
        from ray._private.services import get_ray_address_from_environment

        try:
            return str(get_ray_address_from_environment("auto", None))
        except ConnectionError as error:
            raise UserError(
                "There is no Ray cluster on this machine (--ray-address auto): start one with `ray start --head`, or "
                "give --ray-address HOST:6379, or leave it out to use this machine alone."
            ) from error
    if not address.rpartition(":")[2].isdigit():
        raise UserError(
            "--ray-address must be local, auto, HOST:PORT (e.g. 10.0.0.1:6379) or ray://HOST:PORT, but got "
            f"{address!r}."
        )
    return address


def _host(address: str) -> str:
    plain = address.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    if plain.count(":") > 1 and not plain.startswith("["):
        return plain  # IPv6 without a port
    return (plain.rpartition(":")[0] if plain.rpartition(":")[2].isdigit() else plain).strip("[]")


def check_cluster(ray: Any, plan: WorkerPlan) -> None:
    """Asks a node of a joined cluster what it runs, before anything is sent there.

    Raises:
        UserError: It cannot run Secateur, or has other code than this process.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(_facts_there)
    try:
        found = ray.get(task.remote(), timeout=120)
    except ray.exceptions.RayTaskError as error:
        raise UserError(
            f"The nodes of {plan.address} cannot run Secateur: {_line(error, -1)} Install it there, or let it travel "
            "with `secateur submit`."
        ) from error
    except ray.exceptions.RayError as error:
        raise UserError(f"The cluster at {plan.address} does not run tasks: {_line(error)}") from error
    check_code(found, plan.address)


def open_to_all(address: str) -> str:
    """Why a cluster is refused."""
    return (
        f"The cluster at {address} asks for no token, so whoever reaches it can run programs there and read your net "
        "and data. Start it with RAY_AUTH_MODE=token (see docs/cluster.md), or accept that with --insecure."
    )


def check_code(there: Mapping[str, str], where: str, here: Mapping[str, str] | None = None) -> None:
    """Compares the code on a node with that of this process, or with `here`.

    Raises:
        UserError: It differs, so that results would not be those of one machine.
    """
    here = code_facts() if here is None else here
    different = [name for name in here if there.get(name) != here[name]]
    if different:
        facts = "; ".join(f"{name} is {there.get(name, 'missing')} there, {here[name]} here" for name in different)
        raise UserError(
            f"The workers at {where} run other code: {facts}. Install the same versions there, or let the code travel "
            "with `secateur submit`."
        )


def _facts_there() -> dict[str, str]:
    return code_facts()


def _line(error: BaseException, which: int = 0) -> str:
    """One line of what an error says, the first unless another is meant."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[which] if lines else type(error).__name__).rstrip(".:") + "."
