"""A search's settings as the nodes of a cluster can use them: paths of this machine mean nothing there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from automl.cluster.shipping import Shipment
from automl.remote.url import check_no_secret
from compressors.errors import UserError


def config_for_nodes(
    values: Mapping[str, Any], shipment: Shipment, note: Callable[[str], None]
) -> tuple[dict[str, Any], Path | None]:
    """Settings for the nodes, and the weights that must travel.

    Weights travel wherever they lie here. Data does not travel: its path is one on the nodes, or a URL; only a relative
    path is that of a folder that travels with the working folder.

    Args:
        values: Checked settings, as in the configuration file.
        shipment: What travels.
        note: Gets a line about what must be on the nodes.

    Returns:
        The settings without the weights, and the weights' file; None where none travel.

    Raises:
        UserError: The weights are not there, data of a relative path does not travel, or a URL holds a secret.
    """
    net, data = dict(values.get("net") or {}), dict(values.get("data") or {})
    _check_module(str(net.get("name") or ""), shipment, note)
    kind, _, path = str(data.get("name") or "").partition(":")
    if kind in ("folder", "parquet") and path:
        _check_data("data.name", path, shipment)
    if data.get("data_dir"):
        _check_data("data.data_dir", str(data["data_dir"]), shipment)
    weights = None
    given = net.get("weights")
    check_no_secret(str(given or ""))
    if given and "://" not in str(given):
        weights = Path(str(given)).expanduser()
        if weights.is_file():
            del net["weights"]
        elif weights.is_absolute():
            note(f"The weights {weights} are not on this machine: they must be on the nodes.")
            weights = None
        else:
            raise UserError(f"There are no weights {str(weights)!r} in {Path.cwd()}: correct net.weights.")
    changed = {name: section for name, section in (("net", net), ("data", data)) if section}
    return {**{name: value for name, value in values.items() if name not in ("net", "data")}, **changed}, weights


def _check_module(name: str, shipment: Shipment, note: Callable[[str], None]) -> None:
    module, colon, _ = name.partition(":")
    top = module.partition(".")[0]
    if colon and module not in ("torchvision", "timm") and not shipment.has_module(top):
        note(f"The module {top!r} of the net is not in {shipment.root}: it must be installed on the nodes.")


def _check_data(setting: str, path: str, shipment: Shipment) -> None:
    check_no_secret(path)
    if "://" in path or path.startswith(("/", "~")):
        return
    if not shipment.has(path):
        raise UserError(
            f"{setting} must be a path on the nodes (absolute), a URL, or a path below {shipment.root} that travels, "
            f"but {path!r} does not travel (see .gitignore and .rayignore)."
        )
