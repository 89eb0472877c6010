"""Nets: our own, torchvision's, timm's and the user's."""

from automl.zoo.config import LoadedNet, NetConfig
from automl.zoo.load import load_net
from automl.zoo.registry import NETS

__all__ = ["NETS", "LoadedNet", "NetConfig", "load_net"]
