"""What the commands do: train (or go on, or show what is there), then evaluate, draw and print."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow import workdir
from vaeflow.config import plain
from vaeflow.errors import UserError

Overrides = Sequence[tuple[str, str]]  # ("eval.k", "5000"): config keys and their text on the command line


def launch(
    config: ConfigDict, directory: Path, dry_run: bool = False, processes: tuple[str, int, int] | None = None, name: str = ""
) -> None:
    """experiments.train: the whole of a run, from its checked config (called `name`) to its table and figures."""
    _check_processes(*processes or ("", 0, -1))
    if processes is None or (not dry_run and _is_over(directory, config)):
        return _run(config, directory, dry_run, name)
    from vaeflow import agreement, parallel

    parallel.distributed(*processes)
    with agreement.failures_shared():
        agreement.check_start(config, directory, name)
        _run(config, directory, dry_run, name)


def _run(config: ConfigDict, directory: Path, dry_run: bool, name: str) -> None:
    """`launch`, after the processes have joined."""
    if not dry_run and workdir.is_finished(directory, config):
        print(f"{directory} is finished; its results:\n")
        show(directory)
        if plain(workdir.read_config(directory).eval) != plain(config.eval):
            print("\nconfig.eval is another one now; its numbers come from experiments.evaluate with the same values")
        return
    from vaeflow import agreement, dryrun, experiment, fit, parallel  # jax, Orbax and the rest take seconds to import

    x = experiment.make(config, directory)
    agreement.check_data(x.source)
    if dry_run:
        print(dryrun.report(x))
        return
    with workdir.lock(directory) if x.devices.primary else workdir.no_lock():
        if x.devices.primary:
            workdir.prepare(directory, config, name)
            workdir.write_json(directory / "data.json", summary(x.source))
        agreement.check_folder(directory)
        finished = fit.fit(x, directory)
        if x.devices.primary:
            print(f"{finished.reason}\n")
            conclude(directory, x.source)
    parallel.barrier("concluded")


def _is_over(directory: Path, config: ConfigDict) -> bool:
    """True if the run is finished, and its processes need not join. For another run's directory: False, so that all processes join before
    `_run` raises the error and none waits for this one, unless that run is finished, where the others do not join."""
    try:
        return workdir.is_finished(directory, config)
    except UserError:
        if workdir.is_finished(directory, workdir.read_config(directory)):
            raise
        return False


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
        raise UserError(f"--processes={processes} --process={process} is impossible; it must be 0 <= process < processes")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise UserError(f"--coordinator={coordinator!r}: the host {host!r} is not found ({error.strerror})") from None


def conclude(directory: Path, source: Any = None, split: str = "", overrides: Overrides = ()) -> None:
    """experiments.evaluate: the table of a split from the run's checkpoint, results.json and the figures."""
    from vaeflow import figures
    from vaeflow.report import read_metrics

    model, params, config, source, path = measure(directory, source, split, overrides)
    drawn = figures.draw_all(model, params, source, config, read_metrics(directory), directory / "figures")
    results = workdir.read_json(path) | {"figures": [str(figure.relative_to(directory)) for figure in drawn]}
    workdir.write_json(path, results)
    show(directory, path.name)


def measure(directory: Path, source: Any = None, split: str = "", overrides: Overrides = ()) -> tuple[Any, Any, Any, Any, Path]:
    """The numbers of a split, without figures: (model, params, config, source, the file that has them).

    The split that `named_split` gives for "" is the run's own: its numbers are in results.json, others' in results_SPLIT.json, the
    log-densities of its examples beside them as npz.
    """
    from vaeflow import data, evaluate, parallel
    from vaeflow.files import write_npz

    loaded: tuple[Any, Any, Any] = workdir.load(directory, overrides, allowed=workdir.AFTER)
    model, params, config = loaded
    source = data.load(config.data, config.seed) if source is None else source
    split, own = named_split(source, split), named_split(source)
    results, examples = evaluate.measured(model, params, source, split, config, parallel.for_evaluation(config.devices.mapping))
    path = directory / ("results.json" if split == own else f"results_{split}.json")
    write_npz(path.with_suffix(".npz"), examples)
    # The numbers are there, whatever becomes of the pictures.
    workdir.write_json(path, results | workdir.provenance(directory, config) | {"figures": []})
    return model, params, config, source, path


def named_split(source: Any, split: str = "") -> str:
    """`split`, or "": the test split, without one the validation split, else the training split. UserError: there is none."""
    known = source.splits()
    if split and split not in known:
        raise UserError(f"--split={split!r}: this run has no such split; known: {', '.join(known)}")
    return split or next(name for name in ("test", "val", "train") if name in known)


def summary(source: Any) -> dict[str, Any]:
    """data.json: what a run's data were, for commands that do not read them again."""
    context = source.train.context
    return {
        "examples": {name: len(split.x) for name, split in source.splits().items()},
        "event": list(source.train.x.shape[1:]),
        "levels": source.levels,
        "labels": list(source.label_names or ()),
        "context": 0 if context is None else context.shape[-1],
    }


def show(directory: Path, name: str = "results.json") -> None:
    """Print the table of a results file and the figures' paths."""
    from vaeflow.results import format_results

    results = workdir.read_json(directory / name)
    print(format_results(results))
    print("\nfigures:")
    for figure in results["figures"]:
        print(f"  {directory / figure}")
