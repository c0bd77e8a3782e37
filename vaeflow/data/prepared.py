"""Sets of TensorFlow Datasets on disk: finding them (without TensorFlow), and preparing one for the first time (with it)."""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
import shlex
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vaeflow.errors import UserError

# Seconds to wait for a host; TFDS itself tries for over three minutes.
PATIENCE = 5.0
# The keys of a class's name in features.json and dataset_info.json: protobuf's two spellings, and those of old versions.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")


def prepared(root: Path) -> dict[str, dict[str, Path]]:
    """{set or set/config: {version: folder}} under a TFDS data_dir."""
    found: dict[str, dict[str, Path]] = {}
    for depth in ("*/*", "*/*/*"):
        for info in root.glob(f"{depth}/dataset_info.json"):
            folder = info.parent
            if all(part.isdigit() for part in folder.name.split(".")):
                found.setdefault(folder.parent.relative_to(root).as_posix(), {})[folder.name] = folder
    return found


def newest(name: str, root: Path) -> Path | None:
    """The folder of the newest version of `set`, `set/config` or `set/version` (or with a colon before the version)."""
    name = name.replace(":", "/")
    versions = {v: folder for key, by_version in prepared(root).items() for v, folder in by_version.items() if name in (key, f"{key}/{v}")}
    return versions[max(versions, key=lambda v: tuple(map(int, v.split("."))))] if versions else None


def file_format(folder: Path) -> str:
    """array_record, or another one, which needs TensorFlow to read."""
    return json.loads((folder / "dataset_info.json").read_text()).get("fileFormat", "tfrecord")


def find(name: str, data_dir: str) -> Path:
    """The folder of a prepared set; a UserError says what there is and how to prepare it. Never touches the network."""
    root = Path(data_dir).expanduser()
    how = f"prepare it with: python -m experiments.prepare --dataset={shlex.quote(name)} --data_dir={shlex.quote(data_dir)}"
    if not root.is_dir():
        raise UserError(f"data.dir={data_dir!r} does not exist; {how}")
    folder = newest(name, root)
    if folder is None:
        known = ", ".join(sorted(prepared(root))) or "none"
        raise UserError(f"data.name={name!r} is not prepared in data.dir={data_dir!r}; prepared there: {known}; {how}")
    if file_format(folder) != "array_record":
        raise UserError(f"data.name={name!r} in data.dir={data_dir!r} is stored as {file_format(folder)}, which needs TensorFlow; {how}")
    return folder


def check_classes(folder: Path) -> None:
    """UserError: the set names a feature class outside TFDS, whose module TFDS would import, and so run, to read the set."""
    for path in filter(Path.is_file, (folder / "dataset_info.json", folder / "features.json")):
        try:
            names = list(_classes(json.loads(path.read_text())))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{str(path)!r} cannot be read: {' '.join(str(error).split())}; prepare the set again") from None
        if other := next((name for name in names if "." in name and not name.startswith("tensorflow_datasets.")), None):
            raise UserError(f"{str(path)!r} names the class {other!r}, which is not one of TensorFlow Datasets; it is not imported")


def _classes(value: Any) -> Iterator[str]:
    """Every class's name in a set's JSON."""
    if isinstance(value, dict):
        yield from (name for key in _CLASS_KEYS if isinstance(name := value.get(key), str))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _classes(inner)


def prepare(name: str, data_dir: str) -> tuple[Path, bool]:
    """Download the set `name` and store it as array_record; (its folder, whether it was there already).

    Everything that can be known beforehand is checked first, each with one line: TensorFlow, the name, the folder, the network.
    """
    root = Path(data_dir).expanduser()
    folder = newest(name, root)
    if folder is not None and file_format(folder) == "array_record":
        return folder, True
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError
    from tensorflow_datasets.core.download.util import DownloadError

    known = tfds.list_builders(with_community_datasets=False)
    base = name.replace(":", "/").split("/")[0]
    near = ", ".join(difflib.get_close_matches(base, known, n=5, cutoff=0.5)) or "none"
    missing = [package for package in ("tensorflow", "importlib_resources") if importlib.util.find_spec(package) is None]
    if missing:  # then TFDS does not list all names
        hint = "" if base in known else f"; --dataset={name!r} may be misspelt, near: {near}"
        raise UserError(f"preparing a set needs TensorFlow (reading it does not): pip install {' '.join(missing)}{hint}")
    if base not in known:
        raise UserError(f"--dataset={name!r} is unknown; near: {near}; all {len(known)}: https://www.tensorflow.org/datasets/catalog")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--data_dir={data_dir!r} cannot be made: {error.strerror}") from None
    urls = getattr(tfds.builder_cls(base), "url_infos", None) or ("https://storage.googleapis.com",)
    _check_network(urls, name)
    try:
        builder = tfds.builder(re.sub(r"/(?=[\d.]+$)", ":", name), data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except (OSError, ValueError, AssertionError, ImportError, DownloadError, ExtractError, NonMatchingChecksumError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"--dataset={name!r} could not be prepared: {first}") from None
    return Path(builder.data_path), False


def _check_network(urls: Iterable[str], name: str) -> None:
    """Every host that the set comes from answers, or the proxy before it."""
    hosts = {}
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        proxy = None if urllib.request.proxy_bypass(parts.hostname or "") else urllib.request.getproxies().get(parts.scheme)
        via = urllib.parse.urlsplit(proxy) if proxy else parts
        hosts[via.hostname] = via.port or (443 if via.scheme == "https" else 80)
    for host, port in hosts.items():
        trouble = _connect(host or "", port)
        if trouble:
            raise UserError(f"no network to download --dataset={name!r}: {host}:{port} does not answer ({trouble})")


def _connect(host: str, port: int) -> str:
    """ "" or what is wrong, after PATIENCE seconds at most. In a thread, because looking up a name has no time limit of its own."""
    trouble = [f"nothing within {PATIENCE:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            trouble[0] = ""
        except OSError as error:
            trouble[0] = str(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return trouble[0]
