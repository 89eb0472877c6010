"""Tries out nets, data and targets on the cluster before a sweep begins, and not when their turn comes at night."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl.cluster.sweep_config import Search
from automl.runs import Run
from compressors.errors import UserError


def check_searches(ray: Any, searches: Sequence[Search], folder: Path) -> None:
    """Loads each net with its data in a task of the cluster, where both must be, and checks its targets.

    Args:
        ray: The module, connected.
        searches: Of the sweep; those that have begun were fine and are left out.
        folder: The sweep's.

    Raises:
        UserError: A net or data set cannot be loaded, or a target is out of reach.
    """
    pairs: dict[str, list[Search]] = {}
    for search in searches:
        if not Run(folder / search.name).config.exists():
            key = search.config.net.model_dump_json() + search.config.data.model_dump_json()
            pairs.setdefault(key, []).append(search)
    task = ray.remote(num_cpus=1, max_retries=1)(_check)
    asked = [
        (group, task.remote([search.config.model_dump(mode="json") for search in group])) for group in pairs.values()
    ]
    for group, reference in asked:
        try:
            found: tuple[int, str] | None = ray.get(reference)
        except ray.exceptions.RayError as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"Net {group[0].config.net.name!r} cannot be tried out on the cluster: {text}") from error
        if found is not None:
            search = group[found[0]]
            raise UserError(f"No search was started, for {search.net} with {search.target} cannot work: {found[1]}")


def _check(plans: list[dict[str, Any]]) -> tuple[int, str] | None:
    """What is wrong with configurations of one net and data, and which of them it is; runs on a node."""
    from automl.config import SearchConfig, parse
    from automl.loading import load_named
    from automl.place import settle
    from automl.preflight import check_targets
    from compressors.grouping import layer_table

    index = 0
    try:
        settle(1, "cpu")
        configs = [parse(SearchConfig, plan) for plan in plans]
        loaded, splits = load_named(configs[0].net, configs[0].data)
        table = layer_table(loaded.net, splits.example, loaded.name)
        for index, config in enumerate(configs):  # noqa: B007
            check_targets(config, table)
    except UserError as error:
        return index, str(error)
    return None
