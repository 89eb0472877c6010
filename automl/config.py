"""The whole configuration of a search, composed from the settings of its parts."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agents.config import AgentConfig
from automl.candidate import EvaluationConfig
from automl.data import DataConfig
from automl.finetuning import FinetuneConfig
from automl.search_loop import LoopConfig
from automl.zoo import NetConfig
from compressors.compressor import CompressorConfig
from compressors.errors import UserError
from envs.config import EnvConfig

Model = TypeVar("Model", bound=BaseModel)


class SearchConfig(BaseModel):
    """What a search does; equal configurations on equal nets and data give equal results.

    Attributes:
        net: Which net; unused where a net is passed in.
        data: Which data; unused where data is passed in.
        compressor: How candidates are made.
        env: What is decided, and under which targets.
        agent: Who decides.
        evaluation: How candidates are judged.
        loop: How many episodes, seed, staleness.
        finetune: What becomes of the front.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    net: NetConfig = NetConfig()
    data: DataConfig = DataConfig()
    compressor: CompressorConfig = CompressorConfig()
    env: EnvConfig = EnvConfig()
    agent: AgentConfig = AgentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    loop: LoopConfig = LoopConfig()
    finetune: FinetuneConfig = FinetuneConfig()


def parse(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """Checks settings.

    Args:
        model: The settings' class.
        values: Plain values.
        where: Where they come from, for messages.

    Raises:
        UserError: A setting is unknown (names the nearest) or has a wrong value.
    """
    _require_finite(values, where)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        path = [str(part) for part in problem["loc"]]
        place = f" in {where}" if where else ""
        if problem["type"] == "extra_forbidden":
            known = _fields(model, path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"Unknown setting {'.'.join(path)!r}{place}.{hint} Choose one of: {', '.join(known)}."
            ) from None
        message = problem["msg"].removeprefix("Value error, ")
        given = f", but got {problem['input']!r}" if not isinstance(problem["input"], Mapping) else ""
        raise UserError(f"Setting {'.'.join(path) or model.__name__!r}{place}: {message}{given}.") from None


def _require_finite(values: Mapping[str, Any], where: str, path: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _require_finite(value, where, f"{path}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            place = f" in {where}" if where else ""
            raise UserError(f"Setting '{path}{name}'{place} must be a finite number, but got {value}.")


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            break
        options = (field.annotation, *getattr(field.annotation, "__args__", ()))
        model = next((item for item in options if isinstance(item, type) and issubclass(item, BaseModel)), model)
    return sorted(model.model_fields)


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file.

    Raises:
        UserError: The file cannot be read, or does not hold settings.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"Cannot read the configuration {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold settings as `name: value`, but holds {type(values).__name__}.")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `over` laid on those of `base`, section by section; None leaves the base."""
    merged = dict(base)
    for name, value in over.items():
        if isinstance(value, Mapping):
            below = merged.get(name)
            inner = merge(below if isinstance(below, Mapping) else {}, value)
            if inner or isinstance(below, Mapping):
                merged[name] = inner
        elif value is not None:
            merged[name] = value
    return merged
