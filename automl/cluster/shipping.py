"""What travels with a job: the user's working folder, the net's weights, the job's request, and Secateur itself."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from automl.files import storage_errors
from compressors.errors import UserError

LIMIT_BYTES = 100 * 1024**2
"""The dashboard of a cluster takes no larger package."""

_ROOMS = ("compressors", "envs", "agents", "automl", "dashboards")
_LEFT_OUT = ("__pycache__", "node_modules", "mlruns", "mlartifacts")
_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
_IGNORE_FILES = (".gitignore", ".rayignore")
_MOST_FILES = 20_000
_MOST_BYTES = 1024**3
# Equal content must give an equal package, which the cluster then need not be sent again.
_WHEN = (2020, 1, 1, 0, 0, 0)

Ignored = Callable[[str], bool]


@dataclass
class Shipment:
    """The files of a working folder that travel.

    Attributes:
        root: The folder.
        files: Paths below it, with `/`, sorted.
        left_out: What stays, by path below it: folders end in `/`.
        size_bytes: Of the files.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def has(self, path: str) -> bool:
        """Whether a file, or anything below a folder, travels."""
        plain = os.path.normpath(path).replace(os.sep, "/")
        return plain == "." or any(name == plain or name.startswith(f"{plain}/") for name in self.files)

    def has_module(self, name: str) -> bool:
        """Whether a top-level module travels."""
        return f"{name}.py" in self.files or self.has(name)

    def line(self) -> str:
        """The shipment in a few words."""
        stays = f"; stays here: {_few(self.left_out)}" if self.left_out else ""
        return f"{len(self.files):,} file(s) of {self.root}, {self.size_bytes / 1e6:.1f} MB{stays}"


def collect(root: Path, secrets: Iterable[Path] = ()) -> Shipment:
    """Looks for what travels.

    Not hidden files and folders (`.git`, `.venv`, `.env`, ...), virtual environments, caches, run folders, nor what
    `.gitignore` and `.rayignore` name.

    Args:
        root: The working folder.
        secrets: Files that must not travel, nor what links to them: the cluster's token.

    Raises:
        UserError: There is no such folder, it cannot be read, or it is far too large.
    """
    if not root.is_dir():
        raise UserError(f"--working-dir must be a folder, but {str(root)!r} is none.")
    shipment = Shipment(root.resolve())
    hidden = {path.resolve() for path in secrets}
    with storage_errors(f"read the working folder {root}"):
        for path, size in _walk(shipment.root, "", [], shipment.left_out):
            if (shipment.root / path).resolve() in hidden:
                shipment.left_out.append(path)
                continue
            shipment.files.append(path)
            shipment.size_bytes += size
            if len(shipment.files) > _MOST_FILES or shipment.size_bytes > _MOST_BYTES:
                raise UserError(
                    f"{root} holds more than a job can carry ({len(shipment.files):,} files, "
                    f"{shipment.size_bytes / 1e6:,.0f} MB so far; largest: {_largest(shipment)}). Name the folder of "
                    "your net with --working-dir, and what stays here in .rayignore; data lies on the nodes or at a "
                    "URL."
                )
    shipment.files.sort()
    return shipment


def _walk(root: Path, below: str, ignored: list[tuple[str, Ignored]], left_out: list[str]) -> Iterator[tuple[str, int]]:
    ignored = [*ignored, *_ignored_by(root, below)]
    for entry in sorted(os.scandir(root / below), key=lambda entry: entry.name):
        path = f"{below}{entry.name}"
        folder = entry.is_dir(follow_symlinks=False)
        shown = f"{path}/" if folder else path
        if entry.name in _IGNORE_FILES:
            continue
        if _stays(entry, folder) or any(match(shown.removeprefix(base)) for base, match in ignored):
            left_out.append(shown)
        elif folder:
            yield from _walk(root, shown, ignored, left_out)
        elif entry.is_file():
            yield path, entry.stat().st_size
        else:
            left_out.append(path)  # links to folders, pipes


def _stays(entry: os.DirEntry[str], folder: bool) -> bool:
    name = entry.name
    if name.startswith(".") or name.startswith("mlflow.db"):
        return True
    if not folder:
        return name.endswith(".pyc")
    there = Path(entry.path)
    return (
        name in _LEFT_OUT
        or name.endswith(".egg-info")
        or any((there / mark).exists() for mark in _ENVIRONMENTS)
        or ((there / "config.json").is_file() and (there / "policies").is_dir())
    )


def _ignored_by(root: Path, below: str) -> list[tuple[str, Ignored]]:
    found: list[tuple[str, Ignored]] = []
    for name in _IGNORE_FILES:
        file = root / below / name
        if file.is_file():
            found.append((below, _pathspec(file.read_text(errors="replace").splitlines()).match_file))
    return found


def _pathspec(lines: Iterable[str]) -> Any:
    """Ray's own reading of such files."""
    from automl.cluster.connect import import_ray

    import_ray()
    from ray._private.thirdparty.pathspec import PathSpec

    return PathSpec.from_lines("gitwildmatch", lines)


def pack_working_folder(shipment: Shipment, more: Mapping[str, bytes | Path], target: Path) -> Path:
    """Writes the package that the job's processes have as their working folder.

    Args:
        shipment: The user's files.
        more: Content or files by path in the package; they win over the user's.
        target: The .zip file.

    Raises:
        UserError: A file cannot be read, or the package is too large for the cluster.
    """
    content: dict[str, bytes | Path] = {name: shipment.root / name for name in shipment.files}
    with storage_errors(f"pack {shipment.root}"):
        _zip(target, {**content, **more})
    size = target.stat().st_size
    if size > LIMIT_BYTES:
        raise UserError(
            f"A job can carry {LIMIT_BYTES / 1e6:.0f} MB, but {shipment.root} and the weights are {size / 1e6:,.0f} MB "
            f"packed (largest: {_largest(shipment, more)}). Name what stays here in .rayignore, and put large weights "
            "and data on the nodes or at a URL."
        )
    return target


def pack_code(target: Path) -> Path:
    """Writes the package with Secateur's own code as it is installed here, with the facts of its installation.

    Raises:
        UserError: A file cannot be read.
    """
    root = Path(__file__).resolve().parents[2]
    content: dict[str, bytes | Path] = {}
    with storage_errors(f"pack Secateur's code in {root}"):
        for room in _ROOMS:
            for path in (root / room).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    content[path.relative_to(root).as_posix()] = path
        _zip(target, content | _installation())
    return target


def _installation() -> dict[str, bytes | Path]:
    """Without these the nodes would know neither the version nor the writers of reports."""
    try:
        found = distribution("secateur")
    except PackageNotFoundError:
        return {}
    folder = f"secateur-{found.version}.dist-info"
    # In a checkout setuptools' own folder may be found first, where the same text has another name.
    metadata = found.read_text("METADATA") or found.read_text("PKG-INFO")
    texts = {"METADATA": metadata, "entry_points.txt": found.read_text("entry_points.txt")}
    return {f"{folder}/{name}": text.encode() for name, text in texts.items() if text}


def _zip(target: Path, content: Mapping[str, bytes | Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as package:
        for name in sorted(content):
            value = content[name]
            info = zipfile.ZipInfo(name, _WHEN)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            if isinstance(value, Path):
                with value.open("rb") as source, package.open(info, "w", force_zip64=True) as copy:
                    while block := source.read(1 << 20):
                        copy.write(block)
            else:
                package.writestr(info, value)


def _largest(shipment: Shipment, more: Mapping[str, bytes | Path] | None = None) -> str:
    sizes: dict[str, int] = {}
    for name in shipment.files:
        top = name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + (shipment.root / name).stat().st_size
    for name, value in (more or {}).items():
        sizes[name] = value.stat().st_size if isinstance(value, Path) else len(value)
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return ", ".join(f"{name} {sizes[name] / 1e6:,.0f} MB" for name in largest)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
