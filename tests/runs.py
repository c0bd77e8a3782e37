"""Small runs of the commands, for the tests: in a subprocess, as a user starts them."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from vaeflow.runs.checkpoint_reader import committed_steps, load_newest
from vaeflow.runs.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent

TRAIN_ONLY = "tests.train_only"

# A VAE of 8x8 digits that trains at a few thousand steps a second.
SMALL = (
    *("--config=configs/digits_vae.py", "--config.model.latent=2", "--config.data.batch=16", "--config.parts.encoder.hidden=16"),
    *("--config.parts.decoder.hidden=16", "--config.train.log_every=20", "--config.train.eval_every=100"),
    *("--config.train.checkpoint_every=100", "--config.eval.k=4", "--config.eval.chunk=2", "--config.train.dispatch_seconds=0.02"),
)


def environment(devices: int = 1) -> dict[str, str]:
    """The child's environment: CPU, the suite's compilation cache, `devices` fake devices (with threads enough for them)."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if jax.config.jax_compilation_cache_dir:
        env["JAX_COMPILATION_CACHE_DIR"] = str(jax.config.jax_compilation_cache_dir)
    if devices > 1:
        flags = f"{env.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        env |= {"XLA_FLAGS": flags, "NPROC": "16"}
    return env


def start(*words: str, devices: int = 1, module: str = "experiments.train") -> subprocess.Popen[str]:
    """`python -m module *words`, running."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment(devices), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def start_together(
    *words: str, own: Sequence[Sequence[str]] = ((), ()), devices: int = 1, module: str = "experiments.train"
) -> list[subprocess.Popen[str]]:
    """One command in several processes that meet on the loopback interface; `own`: the further words of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (*words, f"--coordinator=127.0.0.1:{port}", f"--processes={len(own)}")
    return [start(*words, *more, f"--process={i}", devices=devices, module=module) for i, more in enumerate(own)]


def finish(process: subprocess.Popen[str], timeout: float = 180) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a started command."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def run(*words: str, devices: int = 1, module: str = "experiments.train") -> tuple[int, str, str]:
    """`start`, then `finish`."""
    return finish(start(*words, devices=devices, module=module))


def wait_for_rows(process: subprocess.Popen[str], workdir: Path, rows: int) -> None:
    """Until metrics.jsonl has so many rows: the run is somewhere in the middle."""
    path, until = workdir / "metrics.jsonl", time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") >= rows):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def state(workdir: Path, which: str = "last") -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint by its path."""
    found = load_newest(workdir / "checkpoints" / which)
    assert found is not None
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(found.state)}


def assert_same_run(one: Path, two: Path) -> None:
    """Bit-equal parameters, optimiser, moving average, of the last step and of the best one where runs select it; the same rows of
    metrics.jsonl but for the clock."""
    kept, other = ({which for which in ("last", "best") if committed_steps(run / "checkpoints" / which)} for run in (one, two))
    assert "last" in kept and kept == other
    for which in kept:
        a, b = state(one, which), state(two, which)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{which}: {name}")
    assert read_metrics(one, clock=False) == read_metrics(two, clock=False)


def on_a_terminal(script: str) -> str:
    """What a Python script shows on a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", script], stdout=theirs, env=env, check=True, cwd=ROOT)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    return text.decode()
