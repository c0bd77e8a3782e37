"""A run loses nothing: kill -9, SIGTERM, Ctrl-C, a damaged checkpoint, a non-finite loss."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.runs import SMALL, TRAIN_ONLY, assert_same_run, finish, run, start, state, wait_for_rows
from vaeflow.evaluation.results import flat
from vaeflow.runs.metrics import read_metrics

STEPS = 1500


def words(workdir: Path, *more: str) -> list[str]:
    return [*SMALL, f"--config.train.steps={STEPS}", f"--workdir={workdir}", *more]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """The run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    code, out, err = run(*words(workdir))
    assert code == 0, err
    assert "finished all" in out and "-ELBO" in out and "active units" in out and "figures" in out
    return workdir


def test_kill_9_at_a_random_step_changes_nothing(uninterrupted, tmp_path):
    rng = np.random.default_rng()
    for _ in range(2):
        process = start(*words(tmp_path / "killed"), module=TRAIN_ONLY)
        wait_for_rows(process, tmp_path / "killed", int(rng.integers(2, 40)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, _, err = run(*words(tmp_path / "killed"), module=TRAIN_ONLY)
    assert code == 0, err
    assert_same_run(uninterrupted, tmp_path / "killed")
    steps = [row["step"] for row in read_metrics(tmp_path / "killed") if row["split"] == "train"]
    assert steps == list(range(20, STEPS + 1, 20))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits(uninterrupted, tmp_path, number, code):
    process = start(*words(tmp_path / "stopped"), module=TRAIN_ONLY)
    wait_for_rows(process, tmp_path / "stopped", 5)
    process.send_signal(number)
    got, _, err = finish(process, timeout=60)
    assert got == code, err
    assert "stopped at step" in err and "Traceback" not in err
    assert 0 < state(tmp_path / "stopped")["['step']"] < STEPS
    assert run(*words(tmp_path / "stopped"), module=TRAIN_ONLY)[0] == 0
    assert_same_run(uninterrupted, tmp_path / "stopped")


def test_the_same_command_again_shows_the_results_at_once(uninterrupted):
    code, out, _ = run(*words(uninterrupted))
    assert code == 0
    assert "is finished" in out and "-ELBO" in out
    assert "compil" not in out


def test_another_config_in_an_old_workdir_is_refused(uninterrupted):
    code, _, err = run(*words(uninterrupted, "--config.optim.learning_rate=0.002"))
    assert code == 2
    assert "optim.learning_rate was 0.001, is now 0.002" in err


def test_a_flipped_bit_is_named_and_the_checkpoint_before_is_used(uninterrupted, tmp_path):
    process = start(*words(tmp_path / "damaged"), module=TRAIN_ONLY)
    wait_for_rows(process, tmp_path / "damaged", 30)
    process.send_signal(signal.SIGTERM)
    finish(process)
    newest = max((tmp_path / "damaged" / "checkpoints" / "last").glob("[0-9]*"), key=lambda p: int(p.name))
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    code, out, err = run(*words(tmp_path / "damaged"), module=TRAIN_ONLY)
    assert code == 0, err
    assert f"{newest} is damaged" in out + err and "resuming from step" in out + err
    assert_same_run(uninterrupted, tmp_path / "damaged")


def test_a_non_finite_loss_stops_the_run_and_is_never_saved(tmp_path):
    code, _, err = run(*words(tmp_path / "nan", "--config.optim.learning_rate=1e30", "--config.optim.name=sgd", "--config.optim.ema=0"))
    assert code == 1
    assert "non-finite at step" in err and "loss=" in err and "checkpoint" in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line]) == 1
    last = tmp_path / "nan" / "checkpoints" / "last"
    if last.exists() and any(last.iterdir()):
        assert all(np.isfinite(leaf).all() for leaf in state(tmp_path / "nan").values())


def results(workdir: Path) -> dict:
    """results.json without the times of the clock."""
    found = flat(json.loads((workdir / "results.json").read_text()))
    return {key: value for key, value in found.items() if key not in ("seconds", "seconds_trained")}


@pytest.mark.parametrize("at", ["results.json", "figures/samples.png"])
def test_kill_9_after_training_leaves_nothing_out(uninterrupted, tmp_path, at):
    """Before and while the figures are drawn: the same command makes what is missing."""
    killed = tmp_path / "killed"
    process = start(*words(killed))
    until = time.monotonic() + 120
    while not (killed / at).exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, out, err = run(*words(killed))
    assert code == 0, err
    assert results(killed) == results(uninterrupted)
    assert results(killed)["figures"] and all((killed / name).stat().st_size > 1000 for name in results(killed)["figures"])
    assert "figures:" in out
    assert_same_run(uninterrupted, killed)
