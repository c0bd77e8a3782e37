"""Groups and turns in whole runs: configs and workdirs, a crash in the middle of a cycle, several devices, cells together, the dry run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import ROOT, SMALL, assert_same_run, environment, state
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate
from vaeflow.override import override
from vaeflow.runs import workdir
from vaeflow.training import configure, dry_run, loop, many_seeds, setup

TURNS = "encoder:2,decoder:1"
GROUPS = {"encoder": {"learning_rate": 0.01, "clip": 0.5}, "decoder": {"clip_weights": (-0.5, 0.5)}}


def made(groups: Any = None, **changes: Any) -> Any:
    """SMALL for 40 steps, with checkpoints in the middle of a cycle."""
    c = configure.load("configs/digits_vae.py")
    with c.unlocked():
        c.optim.groups = groups if groups is not None else GROUPS
    steps = ("train.steps=40", "train.log_every=10", "train.eval_every=20", "train.checkpoint_every=20", f"optim.turns={TURNS}")
    words = [word.removeprefix("--config.").split("=") for word in (*SMALL[1:], *steps)]
    for key, value in (*words, *((key.replace("__", "."), str(value)) for key, value in changes.items())):
        override(c, key, value)
    return c


def trained(directory: Path, c: Any, validator: Any = evaluate.validator) -> Path:
    workdir.prepare(directory, c)
    loop.fit(setup.make_experiment(c, directory), directory, validator)
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    return trained(tmp_path_factory.mktemp("groups") / "whole", made())


def test_a_crash_in_the_middle_of_a_cycle_changes_nothing(whole, tmp_path):
    def crashes(x: Any) -> Any:
        validate, calls = evaluate.validator(x), []

        def twice(*args: Any) -> Any:
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return validate(*args)

        return twice

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, made(), crashes)
    assert state(tmp_path)["['step']"] == 20
    trained(tmp_path, made())
    assert_same_run(whole, tmp_path)
    arrays = state(whole)
    for name, updates in (("encoder", 27), ("decoder", 13)):
        assert {int(leaf) for path, leaf in arrays.items() if name in path and path.endswith("['count']")} == {updates}
    for name, leaf in arrays.items():
        assert "trained" not in name or "decoder" not in name or np.abs(leaf).max() <= 0.5


def test_cells_together_are_the_runs_by_themselves(whole, tmp_path):
    """The rate of the section is a number of the vmapped step; turns in another order are another structure."""
    other = made(seed=3, optim__learning_rate=0.002)
    members = []
    for name, c in {"whole": made(), "other": other, "order": made(optim__turns="decoder:1,encoder:2")}.items():
        workdir.prepare(tmp_path / name, c)
        members.append(many_seeds.Member(setup.make_experiment(c, tmp_path / name), tmp_path / name))
    assert not any(end.failed for end in many_seeds.fit_together(members, evaluate.validator))
    for one, two in ((whole, tmp_path / "whole"), (trained(tmp_path / "alone", other), tmp_path / "other")):
        a, b = state(one), state(two)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-5, err_msg=name)
    assert np.any(
        state(whole)["['trained']['decoder']['head']['bias']"] != state(tmp_path / "order")["['trained']['decoder']['head']['bias']"]
    )


def test_a_run_with_other_groups_or_turns_is_another_run(tmp_path):
    plain = tmp_path / "plain"
    workdir.prepare(plain, made({}, optim__turns="", train__steps=20))
    with pytest.raises(
        UserError, match=r'optim.groups was \{\}, is now \{"decoder": \{"clip_weights".*optim.turns was \[\], is now \["encoder:2"'
    ):
        workdir.must_agree(plain, made(train__steps=20))
    workdir.prepare(tmp_path / "grouped", made())
    with pytest.raises(UserError, match=r'optim.turns was \["encoder:2", "decoder:1"\], is now \["decoder:1"'):
        workdir.must_agree(tmp_path / "grouped", made(optim__turns="decoder:1,encoder:2"))


def test_values_of_a_declared_group_are_overridden():
    c = made(optim__groups__encoder__clip=0.25)
    assert setup.make_experiment(c).optim.groups["encoder"].clip == 0.25
    with pytest.raises(
        UserError, match=r"config.optim.groups.encoder: the key='eps' is unknown .*'config.optim.eps'.*known: clip, learning_rate"
    ):
        made(optim__groups__encoder__eps=1e-4)
    with pytest.raises(UserError, match=r"optim.groups: the name='enc' is unknown.*known: decoder, encoder"):
        setup.make_experiment(made({"enc": {"clip": 1.0}}))


def test_the_dry_run_lists_the_groups():
    text = dry_run.report(setup.make_experiment(made()))
    rows = [line.split() for line in text.splitlines()]
    assert ["encoder", "encoder", "1,108", "adam", "0.01", "cosine", "0.5", "-", "2", "of", "3", "steps"] in rows
    assert any(row == ["decoder", "decoder", "2,224", "adam", "0.001", "cosine", "-", "-0.5,0.5", "1", "of", "3", "steps"] for row in rows)
    assert "updated in" not in dry_run.report(setup.make_experiment(made({}, optim__turns="")))


DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from tests.test_groups import params, section, toy
from vaeflow.training import optimizer
from vaeflow.training.devices import DevicesConfig, make_devices
from vaeflow.training.step import StepInputs, init_state, make_dispatch

c = section(groups={"critic": dict(clip=0.1, clip_weights=(-1.0, 1.0))}, turns=("critic:2", "generator:1", "scale:1"), learning_rate=0.02)
tx = optimizer.make_optimizer(c, 12)
x = np.random.default_rng(0).normal(size=(12, 8, 3)).astype(np.float32)
ends = {}
for mapping in ("jit", "pmap", "shard_map", "fsdp"):
    devices = make_devices(DevicesConfig(mapping))
    n = devices.count
    state, fixed = init_state(params(), tx, c.ema)
    run = make_dispatch(toy(), tx, c.ema, devices, lambda arrays, chunk, i, key: {"x": chunk[i]}, 12, 2 if mapping == "pmap" else 1)
    shared = devices.replicate(StepInputs(fixed, None, jax.random.key(0), jax.random.key(1), np.int32(12)))
    end, log = run(devices.place(state), shared, np.moveaxis(x.reshape(12, n, 8 // n, 3), 1, 0))
    ends[mapping] = jax.device_get((end, log["loss"]))
assert n == 4
for mapping, end in ends.items():
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), end, ends["jit"])
print(len(jax.tree.leaves(end)))
"""


def test_four_devices_are_one(tmp_path):
    (tmp_path / "devices.py").write_text(DEVICES)
    env = environment(4) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "devices.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
