"""Settings of the environment."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Mode = Literal["sparsity", "bits", "both"]


class EnvConfig(BaseModel):
    """What an episode may decide, what it must reach, and what it is rewarded for.

    Attributes:
        mode: `sparsity` decides preserve ratios, `bits` bit widths, `both` both.
        targets: What every episode must meet, see `envs.target.parse_targets`.
        min_preserve_ratio: Smallest fraction of a group's units that may be kept, in (0, 1].
        channel_multiple: Kept units are a multiple of this, or all of them.
        residual: Whether to cut groups tied by a sum of two branches too.
        activation_bits: Whether to decide the bits of each layer's input as well (modes `bits` and `both`).
        min_bits: Fewest bits, 2..8.
        max_bits: Most bits, 2..8.
        first_last_bits: Fixed width of the first and the last layer in modes `bits` and `both`: these two suffer most
            and cost least. None lets the agent decide them like any other.
        reward: Form of the reward at the end, one of `envs.reward.REWARDS`.
        l2_weight: Factor of each step's relative squared L2 error in the reward, at least 0.
        profile_in_observation: Whether the agent sees the profile's errors; without them these columns are 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "sparsity"
    targets: tuple[str, ...] = ("macs=0.5",)
    min_preserve_ratio: float = Field(default=0.1, gt=0, le=1)
    channel_multiple: int = Field(default=1, ge=1)
    residual: bool = False
    activation_bits: bool = False
    min_bits: int = Field(default=2, ge=2, le=8)
    max_bits: int = Field(default=8, ge=2, le=8)
    first_last_bits: int | None = Field(default=8, ge=2, le=8)
    reward: str = "accuracy"
    l2_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    profile_in_observation: bool = True

    @field_validator("targets", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> EnvConfig:
        if self.min_bits > self.max_bits:
            raise ValueError(f"min_bits must be at most max_bits, but got {self.min_bits} > {self.max_bits}")
        if self.activation_bits and self.mode == "sparsity":
            raise ValueError("activation_bits needs mode 'bits' or 'both', but got mode='sparsity'")
        return self

    @property
    def decides_ratio(self) -> bool:
        """Whether preserve ratios are decided."""
        return self.mode != "bits"

    @property
    def decides_bits(self) -> bool:
        """Whether bit widths are decided."""
        return self.mode != "sparsity"

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the action's numbers, in their order."""
        ratio = ("preserve_ratio",) if self.decides_ratio else ()
        bits = ("weight_bits",) if self.decides_bits else ()
        return (*ratio, *bits, *(("activation_bits",) if self.activation_bits else ()))
