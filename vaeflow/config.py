"""Configs: a Python file with plain values, overridden key by key from the command line.

A config module has a docstring (first line: what it is), `ROWS = {row: one line}` and `get_config(row="") -> ConfigDict`.
`read_file("configs/mnist_vae.py:16")` runs it. What the file leaves out is filled in, and values are overridden, by vaeflow/schema.py.
A config FILE is code and is executed, and so is a file of --import, which registers kinds; a workdir's config.json and env.json
are data.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from vaeflow.errors import UserError, nearest, unknown

Overrides = Sequence[tuple[str, str]]  # ("eval.k", "5000"): config keys and their text on the command line

VALUES = ("seed", "profile", "init_from", "fixed_from")
# Groups to which the command line may add keys.
OPEN = ("eval.settings", "eval.validate")
# Options of a Frozen argument beside its workdir, with their defaults.
OF_FROZEN = {"which": "auto", "ema": True, "train": False}
# Groups laid over another one: the command line may add the keys of that one.
OVER = {"data.x": "data", "data.x0": "data"}
# Where the data are stored: each host may have its own.
DATA_PLACES = tuple(f"{group}.{key}" for group in ("data", *OVER) for key in ("dir", "path", "cache_dir"))
GROUPS = ("model", "parts", "data", "optim", "train", "eval", "sample", "devices")


def check_sections(config: Any, where: str = "config") -> None:
    """UserError: the config has another section than those of vaeflow/training/configure.py, or lacks one."""
    for key in config:
        if key not in VALUES + GROUPS:
            raise unknown(f"{where}: the key", key, VALUES + GROUPS)
    for key in VALUES + GROUPS:
        if key not in config:
            raise UserError(f"{where}: {key} is missing; see vaeflow/training/configure.py")
        if (key in GROUPS) != isinstance(config[key], Mapping | ConfigDict):
            raise UserError(f"{where}: {key}={config[key]!r} must be {'a group of values' if key in GROUPS else 'one value'}")


def module(path: str | Path) -> ModuleType:
    """The config module in the file `path`."""
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        folders = (path if path.is_dir() else path.parent, Path("configs"))
        raise unknown("--config", str(path), next(filter(None, map(_files, folders)), ()))
    loaded = _execute(path, f"config_{path.stem}", "--config")
    for name in ("ROWS", "get_config"):
        if not hasattr(loaded, name):
            raise UserError(f"--config={path} has no {name}; see configs/digits_vae.py for what a config module exports")
    return loaded


def _files(directory: Path) -> list[Path]:
    """The config modules in a folder."""
    return sorted(path for path in directory.glob("*.py") if path.name not in ("__init__.py", "base.py", "gans.py", "vaes.py"))


def _execute(path: Path, name: str, flag: str, keep: bool = False) -> ModuleType:
    """The module `name` of the file `path`, which `flag` names.

    keep: enter it in sys.modules, where dataclasses and annotations as text look up the names of their module.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    if keep:
        sys.modules[name] = loaded
    with _executing(path, flag):
        spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def _executing(path: Path, flag: str) -> Iterator[None]:
    """Turns an exception in the file `path` into one line: the flag with the file, the line, the exception."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            places.append((error.filename or "", error.lineno))
        lines = [line for name, line in places if line and name and Path(name).resolve() == path.resolve()]
        where = f"{flag}={path}" + (f", line {lines[-1]}" if lines else "")
        raise UserError(f"{where}: {type(error).__name__}: {' '.join(str(error).split())}") from error


# {absolute path: SHA-256} of the files that `import_files` executed last.
_IMPORTED: dict[Path, str] = {}


def import_files(paths: Sequence[str | Path]) -> None:
    """Execute Python files that register kinds, in this order, each of them once: --import of the commands.

    Args:
        paths: files that add to a registry when they are executed; a file that is named twice is executed once.

    Raises:
        UserError: a file does not exist, is not Python, or raises an exception; the line names the file and the line in it.

    Example:
        import_files(["own_kinds.py"])  # own_kinds.py: from vaeflow.models import MODELS; MODELS["mine"] = ...
    """
    _IMPORTED.clear()
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"--import={path} {'is not a file' if path.exists() else 'does not exist'}; it must be a Python file of yours")
        if path.suffix != ".py":
            raise UserError(f"--import={path} must be a Python file, NAME.py")
        where = path.resolve()
        if where in _IMPORTED:
            continue
        with _executing(path, "--import"):
            _IMPORTED[where] = hashlib.sha256(path.read_bytes()).hexdigest()
        place = hashlib.sha256(str(where).encode()).hexdigest()[:8]  # files of one name in two folders are two modules
        _execute(path, f"imported_{place}_{path.stem}", "--import", keep=True)


def imported() -> list[dict[str, str]]:
    """[{"path": absolute path, "sha256": hash of the file}] of the files that `import_files` executed last, in order."""
    return [{"path": str(path), "sha256": digest} for path, digest in _IMPORTED.items()]


def read_file(path_and_row: str) -> ConfigDict:
    """The locked config of `path.py` or `path.py:row`, with the values that the file names."""
    path, _, row = path_and_row.partition(":")
    loaded = module(path)
    if row not in loaded.ROWS:
        raise unknown(f"--config={path}: the row", row, (name or "(none)" for name in loaded.ROWS))
    with _executing(Path(path), "--config"):
        return loaded.get_config(row).lock()


def rows(directory: str | Path = "configs") -> Iterator[tuple[str, str]]:
    """("configs/x.py:row", its first line) of every config and row."""
    for path in _files(Path(directory)):
        for row, line in module(path).ROWS.items():
            yield f"{path}:{row}" if row else str(path), line


def keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Every key of a config that has one value: "seed", "optim.learning_rate", ..."""
    for name, value in config.items():
        if isinstance(value, ConfigDict) and not is_frozen(value):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def keys_named(known: Sequence[str], name: str) -> list[str]:
    """Those of the known keys that end with `name`, or else with the name that it probably stands for; `parts` come last.

    Example:
        keys_named(["data.batch", "eval.batch", "train.steps"], "batch")  # ["data.batch", "eval.batch"]
    """
    ends = (name, nearest(name, dict.fromkeys(key.rpartition(".")[2] for key in known), cutoff=0.75))
    found = next(filter(None, ([key for key in known if f".{key}".endswith(f".{end}")] for end in ends if end)), [])
    return sorted(found, key=lambda key: key.startswith("parts."))


def is_frozen(value: Any) -> bool:
    """True for the group of a Frozen argument, see vaeflow/training/frozen.py."""
    return isinstance(value, Mapping | ConfigDict) and "from" in value


def data_name(section: Mapping[str, Any]) -> str:
    """The kind of a config's data and which they are: `tfds mnist`, `csv table.csv`, `pair of density moons and density 8gaussians`."""
    common = {key: section.get(key) for key in ("name", "path")}
    halves = [data_name({**common, **group}) for name in ("x", "x0") if (group := section.get(name))]
    which = f"of {' and '.join(halves)}" if halves else section.get("name") or Path(section.get("path") or "").name
    return " ".join(filter(None, (str(section.get("kind", "")), which)))


def data_places(config: Any) -> dict[str, str]:
    """{key: value} of DATA_PLACES, as far as a config has them."""
    groups = {"data": config.data} | {group: config.data.get(group.removeprefix("data.")) or {} for group in OVER}
    return {key: groups[group][name] for key in DATA_PLACES for group, _, name in [key.rpartition(".")] if name in groups[group]}


def plain(value: Any) -> Any:
    """A ConfigDict as JSON has it: nested dicts and lists, so that two configs compare equal after a round trip."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value
