"""The Gymnasium environment `secateur/Compression-v0`: observation, budget, reward."""

from __future__ import annotations

import gymnasium

ENV_ID = "secateur/Compression-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(id=ENV_ID, entry_point="envs.compression:CompressionEnv")
