"""Devices: 1 against 8 (fake ones), jit against pmap against shard_map, two processes, and checkpoints between them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runs import ROOT, SMALL, TRAIN_ONLY, environment, finish, run, start_together, state, wait_for_rows
from vaeflow.runs.metrics import read_metrics

# A flow on continuous data has no noise in its loss, so that the number of devices changes nothing but rounding.
FLOW = (
    *("--config=configs/densities.py", "--config.data.size=640", "--config.data.batch=64", "--config.parts.net.hidden=16"),
    *("--config.parts.steps.n=1", "--config.train.steps=40", "--config.train.log_every=10", "--config.train.eval_every=20"),
    *("--config.train.checkpoint_every=20", "--config.optim.learning_rate=0.001"),
)


def trained(workdir: Path) -> dict[str, np.ndarray]:
    return {name: leaf for name, leaf in state(workdir).items() if "trained" in name or "ema" in name}


def assert_close(one: Path, two: Path, rtol: float = 2e-4, atol: float = 2e-5) -> None:
    a, b = trained(one), trained(two)
    assert a.keys() == b.keys() and len(a) > 4
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=atol, err_msg=name)
    for x, y in zip(read_metrics(one, clock=False), read_metrics(two, clock=False), strict=True):
        assert x["step"] == y["step"]
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The flow on one device."""
    workdir = tmp_path_factory.mktemp("devices") / "one"
    code, _, err = run(*FLOW, f"--workdir={workdir}", module=TRAIN_ONLY)
    assert code == 0, err
    return workdir


@pytest.mark.parametrize("mapping", ["pmap", "shard_map", "fsdp"])
def test_eight_devices_are_one(one, tmp_path, mapping):
    code, _, err = run(*FLOW, f"--workdir={tmp_path / 'eight'}", f"--config.devices.mapping={mapping}", devices=8, module=TRAIN_ONLY)
    assert code == 0, err
    assert_close(one, tmp_path / "eight")


SHARDED = """
import sys, tempfile
from pathlib import Path
import jax, numpy as np
from vaeflow.training import configure
from vaeflow.override import override
from vaeflow import config
from vaeflow.training import loop, setup, warm_start
from vaeflow.training.step import init_state

c = configure.load("configs/densities.py")
for key, text in zip(sys.argv[1::2], sys.argv[2::2]):
    override(c, key, text)
x = setup.make_experiment(c)
params, frozen, _ = setup.init_params(x)
state, fixed = init_state(params, x.tx, x.optim.ema, frozen, x.devices.homes)
whole = sum(a.nbytes for a in jax.tree.leaves(state))
first = jax.devices()[0]

def share(tree):  # what the first device holds
    return sum(s.data.nbytes for a in jax.tree.leaves(tree) for s in a.addressable_shards if s.device == first) / whole

at_init = share(params) + share(state)
given = jax.tree.map(np.asarray, params)
warm_start.given = lambda *_: (given, frozenset(), [])
again = setup.init_params(x)[0]  # parameters of another run are divided too
assert all(a.sharding == b.sharding for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True))
with tempfile.TemporaryDirectory() as folder:
    feed, shared, dispatch = loop._Loop(x, Path(folder)).program(fixed)
    state = x.devices.place(state)
    where = [a.sharding for a in jax.tree.leaves(state)]
    for step in range(0, 4, 2):
        state, log = dispatch(state, shared._replace(count=x.devices.replicate(np.int32(2))), feed.chunk(step, 2))
assert where == [a.sharding for a in jax.tree.leaves(state)]
assert np.isfinite(np.asarray(log["loss"])[:2]).all()
print(x.devices.count, share(state), at_init)
"""


def test_fsdp_divides_parameters_averages_and_the_optimisers_state(tmp_path):
    words = ("data.size", "640", "data.batch", "64", "parts.net.hidden", "128,128", "parts.steps.n", "1", "devices.mapping", "fsdp")
    (tmp_path / "sharded.py").write_text(SHARDED)
    command = [sys.executable, str(tmp_path / "sharded.py"), *words]
    env = environment(8) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    count, *shares = done.stdout.split()
    assert count == "8" and 0.125 <= float(shares[0]) < 0.16
    assert float(shares[1]) < 0.2  # with the parameters from which the state is made: no leaf was ever whole on one device


def test_fsdp_accumulates_and_goes_on(tmp_path):
    words = (*FLOW, "--config.devices.mapping=fsdp", "--config.train.accumulate=2")
    code, _, err = run(*words, f"--workdir={tmp_path / 'whole'}", devices=4, module=TRAIN_ONLY)
    assert code == 0, err
    shutil.copytree(tmp_path / "whole", tmp_path / "halted")
    (tmp_path / "halted" / "checkpoints" / "last" / "40").rename(tmp_path / "40")
    code, out, err = run(*words, f"--workdir={tmp_path / 'halted'}", devices=4, module=TRAIN_ONLY)
    assert code == 0 and "resuming from step 20 of 40" in out, err
    assert_close(tmp_path / "whole", tmp_path / "halted", rtol=1e-6, atol=1e-7)


def test_pmap_and_shard_map_agree_on_a_stochastic_model(tmp_path):
    for mapping in ("pmap", "shard_map"):
        words = (*SMALL, "--config.train.steps=40", f"--workdir={tmp_path / mapping}", f"--config.devices.mapping={mapping}")
        code, _, err = run(*words, devices=4, module=TRAIN_ONLY)
        assert code == 0, err
    assert_close(tmp_path / "pmap", tmp_path / "shard_map")


def test_eight_devices_go_on_as_one_and_back(one, tmp_path):
    """20 of 40 steps on eight devices (kill: the second checkpoint is taken away), the rest on one; then the reverse."""
    for name, first, second in (("down", 8, 1), ("up", 1, 8)):
        workdir = tmp_path / name
        if first == 1:
            shutil.copytree(one, workdir)
        else:
            assert run(*FLOW, f"--workdir={workdir}", devices=first, module=TRAIN_ONLY)[0] == 0
        (workdir / "checkpoints" / "last" / "40").rename(tmp_path / f"{name}-40")
        code, out, err = run(*FLOW, f"--workdir={workdir}", devices=second, module=TRAIN_ONLY)
        assert code == 0, err
        assert "resuming from step 20 of 40" in out
        assert_close(one, workdir)


def two(workdir: Path, *more: str, module: str = TRAIN_ONLY) -> list[subprocess.Popen[str]]:
    """The flow in two processes of two devices each, which meet on the loopback interface."""
    return start_together(*FLOW, *more, f"--workdir={workdir}", devices=2, module=module)


def test_two_processes_train_save_and_restore(one, tmp_path):
    workdir = tmp_path / "two"
    for code, _, err in map(finish, two(workdir, module="experiments.train")):
        assert code == 0, err
    assert_close(one, workdir)
    assert json.loads((workdir / "env.json").read_text())[-1]["processes"] == 2
    (workdir / "results.json").unlink()
    (workdir / "checkpoints" / "last" / "40").rename(tmp_path / "40")
    results = [finish(process) for process in two(workdir, module="experiments.train")]
    assert all(code == 0 for code, _, _ in results), results
    assert "resuming from step 20 of 40" in results[0][1]
    # Only the first process speaks: nothing that it says is said twice. (Gloo's threads write to both, at times into each other's lines.)
    said = {line for line in results[0][1].splitlines() if line and "peer ranks" not in line and "Gloo" not in line}
    assert len(said) > 5 and not said & set(results[1][1].splitlines())
    assert_close(one, workdir)


def test_sigterm_to_one_of_two_processes_saves_and_stops_both(tmp_path):
    started = two(tmp_path / "stopped", "--config.train.steps=1000000", "--config.train.dispatch_seconds=0.05")
    wait_for_rows(started[0], tmp_path / "stopped", 3)
    started[1].send_signal(signal.SIGTERM)
    results = [finish(process) for process in started]
    assert [code for code, _, _ in results] == [143, 143], results
    assert "stopped at step" in results[0][2]
    assert 0 < state(tmp_path / "stopped")["['step']"] < 1_000_000


@pytest.mark.parametrize(
    "words, held",
    [
        ((*FLOW, "--config.data.batch=60"), ("data.batch=60", "8 devices")),
        (("--config=configs/digits_vq.py",), ("trains on one device: model.restart=0.1", "set it to 0")),
    ],
)
def test_what_several_devices_cannot_do_is_refused(words, held, tmp_path):
    code, _, err = run(*words, f"--workdir={tmp_path / 'no'}", devices=8)
    assert code == 2
    assert all(word in err for word in held) and "Traceback" not in err
