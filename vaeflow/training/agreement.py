"""Checks that all processes of a run have the same config, code, packages, data and workdir.

Each process posts its values through the coordination service of jax.distributed, reads those of all others and compares them with those
of process 0, so that all processes raise the same error. No collective of the devices is involved: shapes may differ, which would
block it. In a run of one process every check returns at once.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from vaeflow import data
from vaeflow.config import DATA_PLACES, imported, plain
from vaeflow.errors import RunFailed, Stopped, UserError
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.workdir import PACKAGES
from vaeflow.training import devices, setup

# All processes post their command right after they have joined. (jax aborts all others 100 s after a process has died.)
START_SECONDS = 60
# One host may decode images that another one has cached.
DATA_SECONDS = 3600
# A wait that lasts longer is announced.
SILENT_SECONDS = 20
# A network file system shows a new file to other hosts after so long at the latest.
FOLDER_SECONDS = 30
# Arrays up to this size are hashed whole, of larger ones evenly spaced rows of HASHED_ROWS_BYTES in all.
HASHED_WHOLE_BYTES = 1 << 30
HASHED_ROWS_BYTES = 1 << 26
# What the line of a disagreement shows: keys, and characters per value.
SHOWN_KEYS = 4
SHOWN_CHARACTERS = 60

_FAILURE = "failure"
Values = Mapping[str, str]  # key: the text of its value


@contextlib.contextmanager
def failures_shared() -> Iterator[None]:
    """An exception in the block is posted to the other processes, where the next check raises it."""
    try:
        yield
    except BaseException as error:
        if devices.member()[1] > 1:
            line = " ".join(f"{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}".split())
            with contextlib.suppress(RuntimeError):  # the service has ended
                devices.post(_FAILURE, json.dumps([devices.member()[0], _exit_code(error), line]))
        raise


def check_start(config: ConfigDict, directory: Path, name: str) -> None:
    """UserError: the processes have different configs (of which `name` is the file and row), code, packages or checkpoints."""
    if devices.member()[1] == 1:
        return
    newest = committed_steps(directory / "checkpoints" / "last")[:1]
    command = {"--config": Path(name).name, **config_values(config), "the last part of --workdir": directory.resolve().name}
    folder = {f"the newest checkpoint of workdir={directory.name}": str(newest[0]) if newest else "none"}
    found = _exchange("start", {"command": command, "code": code_values(), "folder": folder}, START_SECONDS)
    _compare([values["command"] for values in found], "start all with the same command")
    _compare([values["code"] for values in found], "all need the same code and packages")
    _compare([values["folder"] for values in found], "all need the same folder, on a file system that all of them see")
    setup.platform()  # jax waits for all processes here, so it comes before whatever may fail in one of them


def check_data(source: data.Source) -> None:
    """UserError: the processes have loaded different data."""
    if devices.member()[1] > 1:
        _compare(_exchange("data", data_values(source), DATA_SECONDS), "all need the same data; look at data.dir and data.path")


def check_models(identities: Mapping[str, str]) -> None:
    """UserError: the processes have other parameters of frozen models, {config key: hash}."""
    if devices.member()[1] > 1:
        _compare(_exchange("models", {"none": "", **identities}, DATA_SECONDS), "all need the same parameters of frozen models")


def check_folder(directory: Path) -> None:
    """UserError: the workdir, in which process 0 has just recorded this launch, is another folder in other processes."""
    process, processes = devices.member()
    if processes == 1:
        return
    mine = _stamp(directory)
    if process:
        wanted = _await("folder", 0, DATA_SECONDS)["env.json"]
        until = time.monotonic() + FOLDER_SECONDS
        while (mine := _stamp(directory)) != wanted and time.monotonic() < until:
            time.sleep(0.05)
    found = _exchange("folder", {"env.json": mine}, START_SECONDS + FOLDER_SECONDS)
    if others := [i for i, values in enumerate(found) if values != found[0]]:
        raise UserError(
            f"workdir={directory} is another folder in {_processes(others)} than in process 0; "
            "all need the same folder, on a file system that all of them see"
        )


def config_values(config: ConfigDict) -> dict[str, str]:
    """{"optim.learning_rate": "0.001"}: the values of a config as JSON, without DATA_PLACES."""
    flat = traverse_util.flatten_dict(plain(config), sep=".", keep_empty_nodes=True)
    return {key: json.dumps({} if value is traverse_util.empty_node else value) for key, value in flat.items() if key not in DATA_PLACES}


def code_values() -> dict[str, str]:
    """Versions of Python and of PACKAGES, jax's environment variables that change numbers, and hashes of every module of vaeflow and of
    the files of --import."""
    values = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            values[package] = metadata.version(package)
    for variable in ("JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_DEFAULT_PRNG_IMPL"):
        values[variable] = os.environ.get(variable, "") or "not set"
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        values[f"vaeflow/{path.relative_to(root).as_posix()}"] = _digest([path.read_bytes()])
    for i, file in enumerate(imported()):  # each host may have it in another folder
        values[f"file {i + 1} of --import"] = f"{Path(file['path']).name} sha256:{file['sha256'][:12]}"
    return values


def data_values(source: data.Source) -> dict[str, str]:
    """Type, shape and hash of every array of every split, and the number of levels and the names of the classes."""
    values = {"data.levels": str(source.levels), "data.labels": json.dumps(source.label_names)}
    for name, split in source.splits().items():
        for field, array in split._asdict().items():
            if array is not None:
                values[f"data.{name}.{field}"] = f"{array.dtype}{list(array.shape)} sha256:{_digest(_rows(array))}"
    return values


def differences(found: Sequence[Values], shown: int = SHOWN_KEYS) -> str:
    """ "optim.learning_rate is 0.001 in process 0, 0.01 in process 1": the keys with different values and who has which. "": there are
    none.

    Args:
        found: each process's values; a key may be missing.
        shown: number of keys with their values; further ones are counted.
    """
    keys = [key for key in dict.fromkeys(key for values in found for key in values) if len({values.get(key) for values in found}) > 1]
    words = []
    for key in keys[:shown]:
        who: dict[str | None, list[int]] = {}
        for process, values in enumerate(found):
            who.setdefault(values.get(key), []).append(process)
        words.append(f"{key} is " + ", ".join(f"{_short(value)} in {_processes(having)}" for value, having in list(who.items())[:shown]))
    if len(keys) > shown:
        words.append(f"and {len(keys) - shown} more")
    return "; ".join(words)


def _compare(found: Sequence[Values], advice: str) -> None:
    if words := differences(found):
        raise UserError(f"processes disagree: {words}; {advice}")


def _exchange(name: str, value: Any, seconds: float) -> list[Any]:
    """Every process's `value` (JSON), in the order of the processes."""
    process, processes = devices.member()
    devices.post(f"{name}/{process}", json.dumps(value))
    until = time.monotonic() + seconds
    return [_await(name, other, until - time.monotonic()) for other in range(processes)]


def _await(name: str, process: int, seconds: float) -> Any:
    """What `process` has posted under `name`. UserError: any process has failed, or this one posts nothing in that time."""
    began, announced = time.monotonic(), False
    while (found := devices.read(f"{name}/{process}", 1.0)) is None:
        if failure := devices.read(_FAILURE, 0.001):
            failed, code, line = json.loads(failure)
            raise (RunFailed if code == 1 else UserError)(f"process {failed} could not start: {line}")
        waited = time.monotonic() - began
        if waited > seconds:
            _exit_alone()
            raise UserError(f"process {process} has joined, but did not report within {seconds:.0f} s ({name}); see its output")
        if waited > SILENT_SECONDS and not announced:
            print(f"process {devices.member()[0]}: waiting for process {process} ({name})", file=sys.stderr, flush=True)
            announced = True
    return json.loads(found)


def _exit_alone() -> None:
    """Let this process end without waiting for the others, one of which is gone: jax would wait for minutes and abort with a stack trace.
    Process 0 stays a little longer, because the coordination service ends with it."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0 if devices.member()[0] else 3)
        os._exit(2)

    atexit.register(leave)  # runs before jax's own, which was registered earlier


def _exit_code(error: BaseException) -> int:
    """The exit code of experiments/main.py."""
    return 2 if isinstance(error, UserError) and not isinstance(error, RunFailed | Stopped) else 1


def _stamp(directory: Path) -> str:
    """A hash of env.json, which has the time of the newest launch; "": it is not there."""
    try:
        os.listdir(directory)  # a network file system looks for new files now
        return _digest([(directory / "env.json").read_bytes()])
    except OSError:
        return ""


def _rows(array: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of consecutive rows, all of a small array; single rows of a large one, the first and the last among them."""
    per_row = max(1, array.nbytes // max(1, len(array)))
    block = max(1, HASHED_ROWS_BYTES // per_row)
    if array.nbytes <= HASHED_WHOLE_BYTES:
        yield from (array[start : start + block] for start in range(0, len(array), block))
    else:
        yield from (array[i : i + 1] for i in np.unique(np.linspace(0, len(array) - 1, max(2, block)).astype(np.int64)))


def _digest(blocks: Iterable[bytes | np.ndarray]) -> str:
    """The first digits of a SHA-256."""
    sha = hashlib.sha256()
    for block in blocks:
        sha.update(block if isinstance(block, bytes) else np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()[:12]


def _short(value: str | None) -> str:
    """The beginning and the end of a long value."""
    if value is None:
        return "missing"
    half = SHOWN_CHARACTERS // 2
    return value if len(value) <= SHOWN_CHARACTERS else f"{value[:half]}...{value[-half:]}"


def _processes(numbers: Sequence[int]) -> str:
    """ "process 1", "processes 1, 2", "processes 1, 2, 3 and 60 more"."""
    more = f" and {len(numbers) - 3} more" if len(numbers) > 4 else ""
    listed = numbers[:3] if more else numbers
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, listed))}{more}"
