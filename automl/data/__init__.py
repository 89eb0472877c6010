"""Images for training, calibrating, searching and testing, kept apart from one another."""

from automl.data.config import DataConfig
from automl.data.imageset import ImageSet
from automl.data.load import load_splits
from automl.data.splits import Splits

__all__ = ["DataConfig", "ImageSet", "Splits", "load_splits"]
