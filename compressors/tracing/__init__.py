"""Follows channels through one forward pass, operator by operator.

Each tensor carries an *id tensor* of its own shape that says for every element which channel it holds, -1 for none.
Weighted layers make new ids; operators that move data are run on the id tensor itself; element-wise operators unite
the ids that meet; whatever is unknown pins its ids, so that those channels are left whole. Axes along which ids do
not change are held with stride 0, which keeps the id tensors as small as the number of channels.
"""

from compressors.tracing.records import Call, Trace, components_of
from compressors.tracing.tracer import trace

__all__ = ["Call", "Trace", "components_of", "trace"]
