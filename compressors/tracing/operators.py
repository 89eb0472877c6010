"""All rules, gathered."""

from compressors.tracing import computing, moving  # noqa: F401  (register)
from compressors.tracing.rules import POINTWISE, RULES, SUMS

__all__ = ["POINTWISE", "RULES", "SUMS"]
