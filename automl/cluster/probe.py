"""Asks a cluster's port who it is, before Ray joins it: Ray itself would try for half a minute and then say little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from automl.cluster.tokens import missing_token, read_token
from compressors.errors import UserError

_SECONDS_TO_ANSWER = 5.0


@dataclass(frozen=True)
class Answer:
    """What a cluster's port says.

    Attributes:
        guarded: Whether it asks for a token.
        version: Of Ray there; empty where the port does not tell.
    """

    guarded: bool
    version: str


def ask(address: str) -> Answer:
    """Asks the port of a cluster: its own (GCS), or that of its Ray Client (`ray://`).

    Args:
        address: `HOST:PORT` or `ray://HOST:PORT`.

    Raises:
        UserError: Nobody answers, it is no Ray cluster's port, or the cluster does not take this machine's token.
    """
    import grpc

    code = grpc.StatusCode
    status, version = _call(address, None)
    if status is None:
        return Answer(False, version)
    if status == code.UNAUTHENTICATED:
        token = read_token()
        status, version = _call(address, token) if token else (status, "")
        if status is None:
            return Answer(True, version)
        if status == code.UNAUTHENTICATED:
            raise UserError(wrong_token(address) if token else missing_token(address))
    if status in (code.UNAVAILABLE, code.DEADLINE_EXCEEDED):
        raise UserError(f"Nobody answers at {address}: is the cluster up, and its port open to here?")
    other = "HOST:6379" if address.startswith("ray://") else "ray://HOST:10001"
    raise UserError(f"What answers at {address} is no such port of a Ray cluster: did you mean {other}?")


def _call(address: str, token: str | None) -> tuple[Any, str]:
    """The status of the answer, None where all is well, and the version of Ray where it is told."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc

    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            if address.startswith("ray://"):
                client = ray_client_pb2_grpc.RayletDriverStub(channel)
                ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
                client.ClusterInfo(ping, timeout=_SECONDS_TO_ANSWER, metadata=metadata)
                return None, ""
            nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            request = gcs_service_pb2.CheckAliveRequest()
            answer = nodes.CheckAlive(request, timeout=_SECONDS_TO_ANSWER, metadata=metadata)
            return None, str(answer.ray_version)
        except grpc.RpcError as error:
            return error.code(), ""


def wrong_token(address: str) -> str:
    """What to do about a token that a cluster does not take."""
    return (
        f"The cluster at {address} does not accept this machine's token: set RAY_AUTH_TOKEN_PATH to a copy of the "
        "cluster's token file, or RAY_AUTH_TOKEN to its content."
    )
