"""Configs: a Python file with plain values, overridden key by key from the command line.

A config module has a docstring (first line: what it is), `ROWS = {row: one line}` and `get_config(row="") -> ConfigDict`.
`load("configs/mnist_vae.py:16")` runs it; `override(config, "optim.learning_rate", "3e-4")` sets a value of the type that is
there. A config FILE is code and is executed, and so is a file of --import, which registers kinds; a workdir's config.json and env.json
are data.
"""

from __future__ import annotations

import ast
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
_OPEN = ("eval.settings", "eval.validate")
# Options of a Frozen argument beside its workdir, with their defaults.
OF_FROZEN = {"which": "auto", "ema": True, "train": False}
# Groups laid over another one: the command line may add the keys of that one.
_OVER = {"data.x": "data", "data.x0": "data"}
# Where the data are stored: each host may have its own.
DATA_PLACES = tuple(f"{group}.{key}" for group in ("data", *_OVER) for key in ("dir", "path", "cache_dir"))
GROUPS = ("model", "parts", "data", "optim", "train", "eval", "sample", "devices")


def check_sections(config: Any, where: str = "config") -> None:
    """UserError: the config has another section than those of configs/base.py, or lacks one."""
    for key in config:
        if key not in VALUES + GROUPS:
            raise unknown(f"{where}: the key", key, VALUES + GROUPS)
    for key in VALUES + GROUPS:
        if key not in config:
            raise UserError(f"{where}: {key} is missing; see configs/base.py")
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
    return sorted(path for path in directory.glob("*.py") if path.name not in ("__init__.py", "base.py", "vaes.py"))


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


def load(path_and_row: str) -> ConfigDict:
    """The locked config of `path.py` or `path.py:row`."""
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


def override(config: ConfigDict, key: str, text: str, where: str = "config") -> None:
    """config.<key> = text, read as the type of the value that is there. `where` is what errors call the config."""
    *parents, last = key.split(".")
    node: Any = config
    parent: ConfigDict = config
    done = where
    if any(key.startswith(f"{group}.") for group in _OPEN) and where == "config":
        return _add(config, key, _literal(text))
    group, _, name = key.rpartition(".")
    if group in _OVER and where == "config":
        known = [name for name in config[_OVER[group]] if f"{_OVER[group]}.{name}" not in _OVER]
        if name not in known:
            raise unknown(f"{where}.{group}: the key", name, known)
        return _add(config, key, _parse(text, config[_OVER[group]][name], f"{where}.{key}"))
    for name in [*parents, last]:
        model = key.startswith(("model.", "sample.")) and not key.startswith("model.kind.")
        if model and isinstance(node, str) and name == last and name in OF_FROZEN:  # a model that was named by its workdir alone
            node = ConfigDict({"from": node, **OF_FROZEN})
            with parent.ignore_type():
                parent[done.rpartition(".")[2]] = node
        if not isinstance(node, ConfigDict):
            raise UserError(f"{done} is one value ({node!r}), not a group of values: it has no key {name!r}")
        if name not in node:
            raise unknown(f"{done}: the key", name, node, [f"{where}.{key}" for key in keys_named(list(keys(config)), name)])
        done = f"{done}.{name}"
        parent, node = node, node[name]
    if is_frozen(node):
        kept = {name: node[name] for name in OF_FROZEN if name in node}
        parent[last] = ConfigDict({"from": text, **kept})
        return
    if isinstance(node, ConfigDict):
        raise UserError(f"{done} is a group of values ({', '.join(node)}); name one of them")
    parent[last] = _parse(text, node, done)
    if is_frozen(parent) and last in OF_FROZEN:  # other parameters, which are not known yet
        for name in ("sha256", "config"):
            if name in parent:
                delattr(parent, name)


def _add(config: ConfigDict, key: str, value: Any) -> None:
    """config.<key> = value below one of _OPEN or _OVER, where groups and keys are added; who reads them checks name and type."""
    *parents, last = key.split(".")
    if not all((*parents, last)):
        raise UserError(f"config.{key}: a key has no name")
    node: Any = config
    with config.unlocked():
        for name in parents:
            if name not in node:
                node[name] = ConfigDict()
            node = node[name]
            if not isinstance(node, ConfigDict):
                raise UserError(f"config.{key}: {name} is one value ({node!r}), not a group of values")
        if isinstance(node.get(last), ConfigDict):
            raise UserError(f"config.{key} is a group of values ({', '.join(node[last])}); name one of them")
        if last in node:
            delattr(node, last)  # the new value may have another type
        node[last] = value


def _parse(text: str, old: Any, key: str) -> Any:
    if isinstance(old, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise UserError(f"{key}={text!r} has the wrong type; it must be true or false")
        return text.lower() in ("true", "1")
    if isinstance(old, (int, float)):
        kind = type(old)
        try:
            return kind(text)
        except ValueError:
            raise UserError(f"{key}={text!r} has the wrong type; it must be {kind.__name__} (now {old!r})") from None
    if isinstance(old, (tuple, list)):
        items = [t.strip() for t in text.strip().strip("()[]").split(",") if t.strip()]
        return tuple(_literal(item) for item in items)
    return text


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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
    groups = {"data": config.data} | {group: config.data.get(group.removeprefix("data.")) or {} for group in _OVER}
    return {key: groups[group][name] for key in DATA_PLACES for group, _, name in [key.rpartition(".")] if name in groups[group]}


def plain(value: Any) -> Any:
    """A ConfigDict as JSON has it: nested dicts and lists, so that two configs compare equal after a round trip."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value
