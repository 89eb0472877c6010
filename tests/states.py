"""States of agents: through a checkpoint, and compared."""

from __future__ import annotations

import json

import numpy as np

from agents.protocol import AgentState


def through_disk(state: AgentState) -> AgentState:
    """What a checkpoint does to a state."""
    return AgentState({name: array.copy() for name, array in state.arrays.items()}, json.loads(json.dumps(state.meta)))


def assert_equal_states(left: AgentState, right: AgentState) -> None:
    """Fails where two states differ in a name, a type or a number."""
    assert left.meta == right.meta
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        assert array.dtype == right.arrays[name].dtype
        np.testing.assert_array_equal(array, right.arrays[name], err_msg=name)
