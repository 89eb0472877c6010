"""How a compressed net is kept on disk."""

from compressors.storage.packed import load_packed, save_packed

__all__ = ["load_packed", "save_packed"]
