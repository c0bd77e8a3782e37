"""A run's directory: config.json, env.json, the lock, and reading a finished run back.

    config.json       `version` (upgrade.py) and the whole resolved config: data, never code; reading a run needs nothing else
    env.json          one entry a launch: config's name, the step it went on from, commit, diff, versions, devices, command line,
                      files of --import with their hashes (recorded, never executed from here)
    data.json         what the data were: examples, shape, grey values, classes
    metrics.jsonl, tensorboard/, checkpoints/, results.json, figures/

Neither jax nor Orbax is imported here before it is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow.config import imported, is_frozen, plain
from vaeflow.errors import UnknownKind, UserError
from vaeflow.runs import checksums, config_values, guard, upgrade
from vaeflow.runs.files import no_follow, with_values, write_json
from vaeflow.runs.provenance import processor, source_state
from vaeflow.schema import FROM_DATA, REQUIRED, aligned, complete, of_section

PACKAGES = (
    *("vaeflow", "jax", "jaxlib", "flax", "optax", "distrax", "tfp-nightly", "orbax-checkpoint"),
    *("ml_collections", "numpy", "scikit-learn", "tensorflow-datasets", "grain"),
)


def prepare(directory: str | Path, config: ConfigDict, name: str = "") -> None:
    """Make the directory ready for a run with `config` (called `name`): new, or the same run going on (values that do not
    change what is learned are updated). UserError: see `must_agree` and guard.make_workdir; or the config names a config row where training
    needs another run's parameters."""
    directory = Path(directory)
    for key, value in config_values.flat(plain(config)).items():
        if is_frozen(value) and not value.get("sha256"):
            first = f"runs/{Path(value['from'].partition(':')[0]).stem}"
            raise UserError(
                f"config.{key}={value['from']!r} is a config row, and training needs the run of one. Train it first: python -m "
                f"experiments.train --config={value['from']} --workdir={first}; then add --config.{key}={first}"
            )
    guard.make_workdir(directory)
    must_agree(directory, config)
    write_config(directory, config)
    write_json(directory / "env.json", [*_launches(directory), {"config": name, "step": _newest(directory)[0], **environment()}])


def write_config(directory: Path, config: ConfigDict) -> None:
    """config.json of a run with this config. The version is in the file alone: `read_config` returns the config without it."""
    write_json(directory / "config.json", {"version": upgrade.VERSION, **plain(config)})


def is_finished(directory: str | Path, config: ConfigDict) -> bool:
    """True if this run is trained and results.json has the numbers of its last step, whatever version trained it. UserError: the directory
    holds a run with another config."""
    directory = Path(directory)
    if not (directory / "config.json").exists():
        return False
    if differences(directory, config):
        must_agree(directory, config)
    step, newest = _newest(directory)
    if not step or checksums.fault(newest) or not checksums.progress(newest).get("done"):
        return False
    # An evaluation before the end of training leaves results of an earlier step.
    return (directory / "results.json").is_file() and read_json(directory / "results.json").get("steps", step) == step


def _newest(directory: Path) -> tuple[int, Path]:
    """(step, folder) of the newest checkpoint that is whole; step 0: there is none."""
    last = directory / "checkpoints" / "last"
    steps = [int(p.name) for p in last.glob("*") if p.name.isdecimal() and checksums.exists(p)]
    return max(steps, default=0), last / str(max(steps, default=0))


def trained_by(directory: Path) -> list[dict[str, Any]]:
    """Of the launches of a run, those whose steps it holds: one that found it at its end, or died before its first checkpoint, has none.
    (Launches of before the step was written down count.)"""
    launches = _launches(directory)
    ends = [launch.get("step", 1) for launch in launches[1:]] + [_newest(directory)[0]]
    return [launch for launch, end in zip(launches, ends, strict=True) if launch.get("step", 0) < end]


def name_of(directory: Path) -> str:
    """The config that a run was last launched with, configs/NAME.py:ROW; "" where it is not known."""
    launches = _launches(Path(directory))
    return launches[-1].get("config", "") if launches else ""


def read_config(directory: str | Path) -> ConfigDict:
    """The locked config of a run, with the keys of today whatever version trained it. UserError: this is no workdir, or a newer version
    trained it."""
    path = Path(directory) / "config.json"
    if not Path(directory).is_dir():
        raise UserError(f"workdir={directory} {'is not a folder' if Path(directory).exists() else 'does not exist'}")
    if not path.is_file():
        raise UserError(f"workdir={directory} has no config.json: is it the workdir of a run?")
    return complete(ConfigDict(_upgraded(path)))


def _stored(path: Path) -> dict[str, Any]:
    """The values of a config.json as they are stored. UserError: it cannot be read, or a newer version wrote it."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} cannot be read: it holds no config")
    try:
        upgrade.version_of(found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return found


def _upgraded(path: Path) -> dict[str, Any]:
    """The values of a config.json with the keys of today, without the version. UserError: see `_stored`."""
    return {key: value for key, value in upgrade.upgrade(_stored(path)).items() if key != "version"}


def upgraded_params(directory: Path, params: Any) -> Any:
    """Stored parameters of a run at the paths of today's model; as they are where the directory has no config.json."""
    path = directory / "config.json"
    return upgrade.upgrade_params(_stored(path), params) if path.is_file() else params


def is_older(directory: str | Path) -> bool:
    """True if the directory holds a run of an older version, which cannot be trained further."""
    path = Path(directory) / "config.json"
    return path.is_file() and upgrade.version_of(_stored(path)) < upgrade.VERSION


@contextlib.contextmanager
def import_hint(directory: str | Path) -> Iterator[None]:
    """Adds to an UnknownKind that is raised in the block the files that the run in the directory was launched with (--import), by name
    alone: a workdir is data."""
    try:
        yield
    except UnknownKind as error:
        files = " ".join(f"--import={shlex.quote(file)}" for file in _imports(Path(directory)))
        raise UserError(f"{error} (this run was launched with {files})" if files else str(error)) from None


def _imports(directory: Path) -> list[str]:
    """Paths that env.json has of the newest launch with --import, each as one line; none where it cannot be read."""
    with contextlib.suppress(UserError, AttributeError, KeyError, TypeError):
        for launch in reversed(_launches(directory)):
            if files := launch.get("imports"):
                return ["".join(c for c in str(file["path"]) if c.isprintable()) for file in files]
    return []


def with_defaults(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored section of a config, with the keys that were added after it was stored."""
    known = {name: plain(argument.default) for name, argument in of_section({}, section).items() if argument.default is not REQUIRED}
    return known | upgrade.ADDED[section] | dict(values)


def which_params(directory: Path, config: Any) -> str:
    """Whose checkpoint evaluation reads, "best" or "last"."""
    from vaeflow.runs.checkpoint_reader import committed_steps

    auto = "best" if committed_steps(directory / "checkpoints" / "best") else "last"
    return auto if config.eval.params == "auto" else config.eval.params


def provenance(directory: Path, config: Any) -> dict[str, Any]:
    """What a number of this run stands on: config, seed, budget, which checkpoint, hardware, commit."""
    from vaeflow.runs.checkpoint_reader import committed_steps
    from vaeflow.runs.metrics import read_metrics

    params = which_params(directory, config)
    trained, state, rows = [{}, *trained_by(directory)][-1], source_state(), read_metrics(directory)
    return {
        **{"config": trained.get("config", ""), "seed": config.seed, "steps": rows[-1]["step"], "seconds_trained": rows[-1]["seconds"]},
        **{"params": params, "params_step": committed_steps(directory / "checkpoints" / params)[0], "ema": config.optim.ema},
        **{
            "trained_on": trained.get("devices", []),
            "trained_commit": trained.get("commit", ""),
            "trained_changed": bool(trained.get("diff")),
        },
        **{"commit": state["commit"], "changed": bool(state["diff"])},
        **({"imports": imported()} if imported() else {}),
    }


@contextlib.contextmanager
def lock(directory: str | Path) -> Iterator[None]:
    """Hold the directory for this process. UserError: another one trains in it, or see guard.make_workdir. The system lets go when a
    process dies.

    A POSIX record lock, not flock: that one would live on in the forked children of a killed run.
    """
    directory = Path(directory)
    guard.make_workdir(directory)
    with open(directory / ".lock", "a+", opener=no_follow) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise UserError(f"workdir={directory} is in use by process {file.read().strip() or '(unknown)'}, which trains in it") from None
        except OSError:  # a file system without locks
            pass
        with contextlib.suppress(OSError):  # a full disk: `prepare` says it, with a file's name
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        yield


def no_lock() -> contextlib.nullcontext[None]:
    """What processes other than the first one hold."""
    return contextlib.nullcontext()


def environment() -> dict[str, Any]:
    """What a number depends on beside the config."""
    import jax

    settings: Any = jax.config  # its attributes are made at run time
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **source_state(),
        "imports": imported(),
        "python": platform.python_version(),
        "versions": versions,
        "platform": jax.default_backend(),
        "devices": [d.device_kind for d in jax.devices()],
        "processes": jax.process_count(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "matmul_precision": settings.jax_default_matmul_precision or "",
        "x64": bool(settings.jax_enable_x64),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def differences(directory: str | Path, config: ConfigDict) -> list[str]:
    """How the run in a directory differs from `config` in what is learned: one phrase per key. Empty: the same run, or no run."""
    path = Path(directory) / "config.json"
    if not path.exists():
        return []
    stored = bool(_newest(Path(directory))[0])  # before the first checkpoint, frozen models are not stored with the run
    from_data = [f"model.{name}" for name in FROM_DATA if name not in config.model]  # they are stored once the data are loaded
    new = complete(config)
    return config_values.differences(aligned(complete(ConfigDict(_upgraded(path))), new), new, by_hash=stored, without=from_data)


def must_agree(directory: str | Path, config: ConfigDict) -> None:
    """UserError: the directory holds a run of an older version, or one with another config. The line proposes how to start a new run."""
    directory = Path(directory)
    if is_older(directory):
        version = upgrade.version_of(_stored(directory / "config.json"))
        raise UserError(
            f"workdir={directory} was trained by an older version (config version {version}, now {upgrade.VERSION}): it can be evaluated, "
            f"sampled and loaded, not trained further; start from its parameters with --config.init_from={directory}"
        )
    if words := differences(directory, config):
        own = with_values(directory.name, config_values.changed(read_config(directory), config))
        raise UserError(
            f"workdir={directory} holds a run with another config: {'; '.join(words)}. Use --workdir={directory.with_name(own)} for a new "
            "run (config.init_from starts one from these parameters), or the old values"
        )


def _launches(directory: Path) -> list[Any]:
    path = directory / "env.json"
    return read_json(path) if path.is_file() else []


def read_json(path: Path) -> Any:
    """The value in a JSON file. UserError: it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
