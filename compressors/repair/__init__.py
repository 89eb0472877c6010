"""How what is left makes up for what went: one file for each repair, all registered in `REPAIRS`."""

from compressors.repair import least_squares, mean, none, sequential  # noqa: F401  (registers)
from compressors.repair.base import REPAIRS, Repair

__all__ = ["REPAIRS", "Repair"]
