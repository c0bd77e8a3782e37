"""experiments.train and experiments.evaluate: train (resume, or show a finished run), then evaluate, draw and print."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow.config import Overrides, check_sections, data_name, data_places, plain
from vaeflow.errors import UserError
from vaeflow.runs import config_values, progress, workdir
from vaeflow.runs.files import with_values
from vaeflow.runs.overrides import SECTIONS, artifact_name, changed, sampled_with


def launch(
    config: ConfigDict, directory: Path, dry_run: bool = False, processes: tuple[str, int, int] | None = None, name: str = ""
) -> None:
    """experiments.train: the whole of a run, from its config (called `name`) to its table and figures.

    The config's values are checked before they are compared with those of a run in the directory.
    """
    _check_processes(*processes or ("", 0, -1))
    check_sections(config)
    if processes is None or (not dry_run and _is_over(directory, config)):
        return _run(config, directory, dry_run, name)
    from vaeflow.training import agreement, devices

    devices.distributed(*processes)
    with agreement.failures_shared():
        agreement.check_start(config, directory, name)
        _run(config, directory, dry_run, name)


def _run(config: ConfigDict, directory: Path, dry_run: bool, name: str) -> None:
    """`launch`, after the processes have joined."""
    same = not workdir.differences(directory, config)
    if not dry_run and same and workdir.is_finished(directory, config) and has_figures(directory) and _same_place(directory, config):
        print(f"{directory} is finished; its results:\n")
        show(directory)
        own: Any = workdir.read_config(directory)
        if other := [f"config.{name}" for name in SECTIONS if plain(own[name]) != plain(config[name])]:
            from vaeflow.training import setup

            setup.after_training(config)
            differ = "differs" if len(other) == 1 else "differ"
            print(f"\n{' and '.join(other)} {differ} from this run's: run experiments.evaluate with the same values for its numbers")
        return
    if not dry_run and workdir.is_older(directory):
        workdir.must_agree(directory, config)
    with progress.phase("importing jax"):
        from vaeflow import data
        from vaeflow.evaluation import evaluate, store
        from vaeflow.training import (
            agreement,  # jax, Orbax and the rest take seconds to import
            devices,
            frozen,
            loop,
        )
        from vaeflow.training.dry_run import report
        from vaeflow.training.setup import headline, make_experiment

    with workdir.import_hint(directory):
        config = frozen.resolved(config, directory)  # a frozen model's workdir may have moved since the first launch
        same = not workdir.is_older(directory) and not workdir.differences(directory, config)
        x = make_experiment(config, directory if same else None)
    agreement.check_models(frozen.identities(x.config))
    evaluate.check_eval(x)
    agreement.check_data(x.source)
    if dry_run:
        print(report(x, directory if same else None))
        return
    workdir.must_agree(directory, config)
    if not x.devices.primary:
        progress.mute()
    with workdir.lock(directory) if x.devices.primary else workdir.no_lock():
        if x.devices.primary:
            store.check_data(directory, x.source)
            workdir.prepare(directory, x.config, name)
            workdir.write_json(directory / "data.json", data.summary(x.source))
        agreement.check_folder(directory)
        if x.devices.primary:
            print(headline(x), flush=True)
        finished = loop.fit(x, directory, evaluate.validator)
        if x.devices.primary:
            print(f"{finished.reason}\n", flush=True)
            conclude(directory, x.source)
    devices.barrier("concluded")


def default_workdir(name: str, config: ConfigDict, file: ConfigDict) -> Path:
    """runs/NAME_ROW of a config called `name`, with +KEY=VALUE for every value that differs from its `file` and changes what is learned."""
    path, _, row = name.partition(":")
    changed = config_values.changed(file, config)
    before = data_places(file)
    changed += [
        f"{key}={Path(text).name}" for key, text in data_places(config).items() if key.endswith(".path") and before.get(key) != text
    ]
    return Path("runs") / with_values("_".join(filter(None, (Path(path).stem, row))), changed)


def _is_over(directory: Path, config: ConfigDict) -> bool:
    """True if the run is finished, and its processes need not join. For another run's directory: False, so that all processes join before
    `_run` raises the error and none waits for this one, unless that run is finished, where the others do not join."""
    try:
        return workdir.is_finished(directory, config) and has_figures(directory) and _same_place(directory, config)
    except UserError:
        own = workdir.read_config(directory)
        if workdir.is_finished(directory, own) and not config_values.has_frozen(own):  # a frozen model may have moved
            raise
        return False


def _same_place(directory: Path, config: ConfigDict) -> bool:
    """True if the run in the directory read its data where `config` says; elsewhere they may be other data."""
    found: Any = workdir.read_config(directory)
    here, there = ({key: text for key, text in data_places(c).items() if not key.endswith(".cache_dir")} for c in (config, found))
    return here == there


def _check_processes(coordinator: str, processes: int, process: int) -> None:
    """The flags that start several processes by hand belong together; jax would wait for minutes, or print a stack trace."""
    if not coordinator:
        if processes or process != -1:
            raise UserError(f"--processes={processes} --process={process} need --coordinator=HOST:PORT, the address of process 0")
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(f"--coordinator={coordinator!r} has the wrong form; it must be HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise UserError(f"--processes={processes} --process={process} is invalid; it must be 0 <= process < processes")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise UserError(f"--coordinator={coordinator!r}: the host {host!r} is not found ({error.strerror})") from None


def conclude(directory: Path, source: Any = None) -> None:
    """What is still missing after training: results.json, then the figures; and the table."""
    from vaeflow.evaluation.store import measure, restore

    config: Any = workdir.read_config(directory)
    measured = workdir.is_finished(directory, config)
    if measured:
        found = workdir.read_json(directory / "results.json")
        measured = not changed({name: found.get(name, config[name]) for name in SECTIONS}, config)
    if not measured:
        _draw(directory, measure(directory, source))
    elif not has_figures(directory):
        _draw(directory, restore(directory, source)._replace(path=directory / "results.json"))
    show(directory)


def evaluate_run(directory: Path, split: str = "", overrides: Overrides = ()) -> None:
    """experiments.evaluate: the table of a split from the run's checkpoint; its results file and the figures of these parameters."""
    from vaeflow.evaluation.store import measure

    found = measure(directory, None, split, overrides)
    _draw(directory, found)
    show(directory, found.path.name)


def _draw(directory: Path, found: Any) -> None:
    """The figures of a run, whose names are then added to its results file. Other parameters or sampling options than the run's own have a
    folder of their own."""
    from vaeflow import figures
    from vaeflow.runs.metrics import read_metrics

    folder = artifact_name("figures", workdir.read_config(directory), found.config)
    run = (found.model, found.params, found.config, found.source, read_metrics(directory))
    drawn = figures.draw_all(figures.look_at(directory, directory / folder, *run, density=found.grid))
    names = {"figures": [str(figure.relative_to(directory)) for figure in drawn]}
    workdir.write_json(found.path, workdir.read_json(found.path) | names)


def has_figures(directory: Path) -> bool:
    """True if the figures of results.json are drawn: it names them after the last one."""
    return bool(workdir.read_json(directory / "results.json").get("figures"))


def introduce(command: str, *directories: Path, overrides: Overrides = ()) -> None:
    """Print what a command works on, one line per run, before anything slow is imported. The command itself raises the UserError for a
    directory that is not a workdir."""
    changed = "".join(f", {key}={text}" for key, text in overrides)
    for directory in directories:
        with contextlib.suppress(UserError, AttributeError, KeyError, TypeError):  # a damaged config.json or env.json
            config: Any = workdir.read_config(directory)
            named = workdir.name_of(directory) or "a run"
            print(f"{command} {directory}: {named}, seed {config.get('seed')}, data {data_name(config.data)}{changed}", flush=True)


def show(directory: Path, name: str = "results.json") -> None:
    """Print the table of a results file and the figures' paths."""
    from vaeflow.evaluation.results import format_results

    results = workdir.read_json(directory / name)
    print(format_results(results, sampled_with(workdir.read_config(directory), results.get("sample"))))
    if results.get("figures"):
        print("\nfigures:")
    for figure in results.get("figures", ()):
        print(f"  {directory / figure}")
    others = sorted(path.name for path in directory.glob("results*.json") if path.name != name)
    if others:
        print(f"\nthese numbers are in {name}; others: {', '.join(others)}")
