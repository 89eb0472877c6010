"""Which channels go first: one file for each criterion, all registered in `SELECTORS`."""

from compressors.select import norms, surgeon  # noqa: F401  (registers)
from compressors.select.base import SELECTORS, Problem, Selector

__all__ = ["SELECTORS", "Problem", "Selector"]
