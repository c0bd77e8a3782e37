"""The whole train command on a full disk: one line that says what could not be written and where; nothing else is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, SMALL, TRAIN_ONLY, environment, run, state
from vaeflow.runs import files
from vaeflow.runs.files import append, write_json
from vaeflow.runs.metrics import read_metrics

STEPS = 700
# The kernel refuses to make a file longer than this, as a full disk does; a pipe is not a file. (Python ignores SIGXFSZ.)
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from experiments import main, train
main.run(train.main)
"""


def words(workdir: Path) -> list[str]:
    return [*SMALL, "--config.train.log_every=1", f"--config.train.steps={STEPS}", f"--workdir={workdir}"]


def limited(workdir: Path, limit: int) -> str:
    """What the command prints on standard error."""
    # Without jax's cache of programs: what it cannot write, it would leave cut off in the cache of the other tests.
    env = environment() | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-c", LIMITED, str(limit), *words(workdir)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_full_while_training(tmp_path):
    workdir = tmp_path / "run"
    said = limited(workdir, 80_000)
    kept = int(state(workdir)["['step']"])
    path = workdir / "metrics.jsonl"
    assert (
        said == f"error: could not write {path}: File too large; the checkpoints are intact, and the same command resumes from the newest\n"
    )
    assert path.stat().st_size == 80_000 and 0 < kept < len(read_metrics(workdir)) < STEPS
    code, out, err = run(*words(workdir), module=TRAIN_ONLY)  # there is room again
    assert code == 0, err
    assert f"resuming from step {kept}" in out and err == ""
    assert [row["step"] for row in read_metrics(workdir) if row["split"] == "train"] == list(range(1, STEPS + 1))


def test_full_from_the_start(tmp_path):
    workdir = tmp_path / "run"
    assert limited(workdir, 100) == f"error: File too large: {workdir / 'config.json'}\n"
    assert [path.name for path in workdir.iterdir()] == [".lock"]


def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_json(path, {"nll": 1.0})
    before = path.read_bytes()
    with monkeypatch.context() as patched, pytest.raises(OSError) as caught:
        patched.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        write_json(path, {"nll": 2.0})
    assert (caught.value.errno, caught.value.filename) == (28, str(path))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    full = Path("/dev/full")
    if full.exists():
        with full.open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
            append(file, full, b"row")
        assert (caught.value.errno, caught.value.filename) == (28, "/dev/full")
