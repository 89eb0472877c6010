"""Images in parquet files, as the Hugging Face hub lays them out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from automl.data.cache import Allocate, Array, cached, files_key
from automl.data.config import DataConfig
from automl.data.decode import Fit, Item, decode
from automl.data.folder import from_arrays
from automl.data.imageset import Ints
from automl.data.raw import RawData
from compressors.errors import UserError

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_ROWS_AT_ONCE = 2048


def load_parquet(config: DataConfig) -> RawData:
    """Images in `train-*.parquet` and `test-*.parquet` (or `validation-*`, `val-*`), also below `data/`.

    An image is a struct with `bytes`, or bytes alone; class names come from the metadata where they are given.

    Raises:
        UserError: Files or columns are missing or damaged, or an image or label is unusable.
    """
    root = Path(config.name.partition(":")[2]).expanduser()
    files = _parts(root)
    fit = Fit(config.image_size, config.channels, config.skip_corrupt)

    def produce(allocate: Allocate) -> tuple[dict[str, Array], dict[str, Any]]:
        arrays: dict[str, Array] = {}
        names: list[str] = []
        for part, paths in files.items():
            opened = [_Opened(path) for path in paths]
            names = names or next((file.class_names for file in opened if file.class_names), [])
            arrays[f"{part}_labels"] = np.concatenate([file.labels() for file in opened])
            name, count = f"{part}_images", len(arrays[f"{part}_labels"])
            items = (item for file in opened for item in file.items())
            arrays[name], arrays[f"{part}_readable"] = decode(items, count, fit, name, allocate)
        return arrays, {"class_names": names}

    settings = {"image_size": fit.image_size, "channels": fit.channels, "skip_corrupt": fit.skip_corrupt}
    key = files_key([path for paths in files.values() for path in paths], settings)
    arrays, facts = cached("parquet", key, produce)
    classes = facts["class_names"] or [str(n) for n in range(int(arrays["train_labels"].max(initial=-1)) + 1)]
    return from_arrays(arrays, tuple(classes))


class _Opened:
    """One parquet file, looked through once for labels and once for images."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} must be a parquet file, but: {str(error).splitlines()[0]}") from error
        schema = self._file.schema_arrow
        self._image = self._column(schema.names, _IMAGE_COLUMNS)
        self._label = self._column(schema.names, _LABEL_COLUMNS)
        if not pa.types.is_integer(schema.field(self._label).type):
            raise UserError(
                f"Column {self._label!r} of {path} must hold integers, but it holds {schema.field(self._label).type}."
            )
        self.class_names = _class_names(schema.metadata or {}, self._label)

    def labels(self) -> Ints:
        column = self._read([self._label])[0].column(self._label)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"Every image needs a label, but row {row} of {self.path} has none.")
        return np.asarray(column.to_numpy(), dtype=np.int64)

    def items(self) -> Iterator[Item]:
        row = 0
        for block in self._blocks():
            for value in block.column(0).to_pylist():
                data = value.get("bytes") if isinstance(value, dict) else value
                yield Item(f"row {row} of {self.path}", partial(_open, data))
                row += 1

    def _blocks(self) -> Iterator[Any]:
        import pyarrow as pa

        try:
            yield from self._file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[self._image])
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.path} is damaged: {str(error).splitlines()[0]}") from error

    def _read(self, columns: list[str]) -> list[Any]:
        import pyarrow as pa

        try:
            return [self._file.read(columns=columns)]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.path} is damaged: {str(error).splitlines()[0]}") from error

    def _column(self, there: list[str], wanted: tuple[str, ...]) -> str:
        for name in wanted:
            if name in there:
                return name
        raise UserError(
            f"{self.path} must have a column named {' or '.join(wanted)}, but it has {', '.join(there) or 'none'}."
        )


def _open(data: bytes | None) -> Image.Image:
    if not isinstance(data, bytes):
        raise ValueError("no image bytes")
    return Image.open(io.BytesIO(data))


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _parts(root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        raise UserError(f"The data folder {str(root)!r} must exist, but it does not.")
    for folder in (root, root / "data"):
        train = sorted(folder.glob("train*.parquet"))
        tests = (sorted(folder.glob(f"{name}*.parquet")) for name in ("test", "val"))
        test = next((files for files in tests if files), [])
        if train and test:
            return {"train": train, "test": test}
    raise UserError(
        f"The data folder {str(root)!r} must hold train-*.parquet and test-*.parquet (or validation-*.parquet), "
        "but it does not."
    )
