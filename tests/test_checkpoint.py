"""Checkpoints: damage is found, named and gone around; nothing is announced before its commit."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaeflow.errors import RunFailed, UserError
from vaeflow.runs import checksums
from vaeflow.runs.checkpoint_reader import all_steps, committed_steps
from vaeflow.runs.checkpoint_writer import Checkpoints, load_newest, restore_fixed, save_fixed
from vaeflow.training.warm_start import load_params


class State(NamedTuple):
    step: Any
    trained: Any
    stats: Any
    opt_state: Any
    ema: Any


def state_at(step: int, ema: bool = True) -> State:
    trained = {"net": {"kernel": jnp.arange(600.0).reshape(20, 30) + step, "bias": jnp.full(30, step, jnp.bfloat16)}, "flip": {}}
    opt = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(trained)
    average = jax.tree.map(lambda x: x - 1, trained) if ema else {}
    return State(jnp.int32(step), trained, {"bn": {"stats": jnp.ones(3)}}, opt, average)


def assert_equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def largest(path: Path) -> Path:
    return max(path.glob("**/d/*"), key=lambda p: p.stat().st_size)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Steps 10, 20 and 30; the tests copy it."""
    directory = tmp_path_factory.mktemp("run") / "last"
    checkpoints = Checkpoints(directory, keep=3)
    returned = [checkpoints.save(step, state_at(step), {"position": step * 7}) for step in (10, 20, 30)]
    assert (returned, checkpoints.close()) == ([None, 10, 20], 30)
    return directory


@pytest.fixture
def last(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "last"))


def test_round_trip_and_rotation(last: Path, capfd):
    checkpoints = Checkpoints(last, keep=2)
    checkpoints.save(40, state_at(40), {"best": 1.5, "done": ""})
    checkpoints.save(40, state_at(40), {})  # the same step again (a signal at a boundary): nothing to do
    assert checkpoints.latest() in (30, 40)
    with pytest.raises(ValueError, match="step 30 cannot be saved"):
        checkpoints.save(30, state_at(30), {})
    assert checkpoints.poll() is None  # `save` has returned it
    assert committed_steps(last) == [40, 30]
    step, state, progress = checkpoints.restore(state_at(0)) or pytest.fail()
    assert (step, progress) == (40, {"best": 1.5, "done": ""})
    assert_equal(state, state_at(40))
    checkpoints.close()
    assert capfd.readouterr() == ("", "")


def test_poll_says_saved_after_the_commit_only(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "last")
    assert checkpoints.restore(state_at(0)) is None and checkpoints.latest() is None
    checkpoints.save(1, state_at(1), {})
    end = time.monotonic() + 20
    while (step := checkpoints.poll()) is None and time.monotonic() < end:
        time.sleep(0.005)
    assert step == 1 and checksums.fault(tmp_path / "last" / "1") == ""
    assert checkpoints.poll() is None
    checkpoints.close()


def test_a_donated_state_is_saved_as_it_was(tmp_path: Path):
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "last")
    x = add(jax.random.normal(jax.random.key(0), (500, 1000)))
    before = np.array(x, copy=True)
    checkpoints.save(1, {"x": x}, {})
    for _ in range(4):
        x = add(x)
    checkpoints.wait()
    np.testing.assert_array_equal((checkpoints.restore({"x": x}) or pytest.fail())[1]["x"], before)
    checkpoints.close()


def _truncate(path: Path) -> str:
    file = largest(path)
    os.truncate(file, file.stat().st_size - 1)
    return f"{file.name} has"


def _flip(path: Path) -> str:
    flip(largest(path))
    return f"{largest(path).name} does not have its SHA-256"


def _remove(path: Path) -> str:
    file = largest(path)
    file.unlink()
    return f"{file.name} is missing"


def _flip_progress(path: Path) -> str:
    file = path / checksums.NAME
    file.write_text(file.read_text().replace('"position": 210', '"position": 211'))
    return f"{checksums.NAME} does not have its own SHA-256"


def _break_list(path: Path) -> str:
    os.truncate(path / checksums.NAME, 50)
    return f"{checksums.NAME} is unreadable"


def _remove_list(path: Path) -> str:
    (path / checksums.NAME).unlink()
    return f"was not committed ({checksums.NAME} is missing)"


@pytest.mark.parametrize("damage", [_truncate, _flip, _remove, _flip_progress, _break_list, _remove_list])
def test_damage_is_named_and_the_step_before_used(last: Path, damage):
    expected = damage(last / "30")
    assert (load_newest(last, warn=lambda _: None) or pytest.fail()).step == 20  # a reader goes around it, too
    lines: list[str] = []
    checkpoints = Checkpoints(last, keep=3)
    step, state, progress = checkpoints.restore(state_at(0), lines.append) or pytest.fail()
    assert step == 20 and progress == {"position": 140}
    assert_equal(state, state_at(20))
    assert len(lines) == 1 and str(last / "30") in lines[0] and expected in lines[0]
    assert checkpoints.save(30, state_at(30), {}) is None  # the same step can be saved again
    assert checkpoints.close() == 30 and committed_steps(last) == [30, 20, 10]


def test_all_damaged_is_an_error_and_nothing_is_removed(last: Path):
    for step in (10, 20, 30):
        _flip(last / str(step))
    lines: list[str] = []
    with pytest.raises(UserError, match=r"no checkpoint in .* verifies"):
        Checkpoints(last).restore(state_at(0), lines.append)
    assert len(lines) == 3 and all_steps(last) == [30, 20, 10]


def test_another_model_is_named(last: Path):
    like = state_at(0)
    like.trained["net"]["kernel"] = jnp.zeros((20, 31))
    with pytest.raises(UserError, match=r"float32\[20, 30\] at trained/net/kernel, the model has float32\[20, 31\]"):
        Checkpoints(last).restore(like)
    with pytest.raises(UserError, match=r"at ema/\S+, the model has nothing"):
        Checkpoints(last).restore(state_at(0, ema=False))


def test_delete_after(last: Path):
    checkpoints = Checkpoints(last)
    checkpoints.delete_after(15)
    assert all_steps(last) == [10]
    checkpoints.save(20, state_at(20), {})
    assert checkpoints.close() == 20
    checkpoints = Checkpoints(last)
    checkpoints.delete_after(-1)
    assert all_steps(last) == []


def test_a_full_disk_while_the_list_is_written(tmp_path: Path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "last")
    monkeypatch.setattr(checksums, "write", lambda *_: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
    checkpoints.save(1, state_at(1), {})
    with pytest.raises(RunFailed, match=r"step 1 in .*: No space left on device; there is none before it"):
        checkpoints.wait()
    assert list((tmp_path / "last").iterdir()) == []


def test_fixed_leaves_and_the_parameters_of_a_run(tmp_path: Path):
    fixed = {"flow": {"fixed": {"permutation": jnp.array([2, 0, 1])}}}
    save_fixed(tmp_path, fixed)
    save_fixed(tmp_path, fixed)  # a run killed before its first checkpoint starts again
    assert_equal(restore_fixed(tmp_path, fixed), jax.tree.map(np.asarray, fixed))
    assert restore_fixed(tmp_path / "none", {}) == {}
    with pytest.raises(UserError, match="fixed leaves of this run cannot be read"):
        restore_fixed(tmp_path / "none", fixed)
    with pytest.raises(UserError, match=r"eval.params='auto'; there is none yet"):
        load_params(tmp_path)
    for name, step, ema in (("last", 30, True), ("best", 20, False)):
        checkpoints = Checkpoints(tmp_path / "checkpoints" / name)
        checkpoints.save(step, state_at(step, ema), {})
        checkpoints.close()
    params = load_params(tmp_path)  # best, without a moving average
    assert params["net"]["kernel"][0, 0] == 20 and params["flow"]["fixed"]["permutation"].tolist() == [2, 0, 1]
    assert load_params(tmp_path, "last")["net"]["kernel"][0, 0] == 29 and params["bn"]["stats"].shape == (3,)
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    assert load_params(tmp_path)["net"]["kernel"][0, 0] == 29
    with pytest.raises(UserError, match=r"eval.params='best'; there is last"):
        load_params(tmp_path, "best")
    flip(largest(tmp_path / "checkpoints" / "fixed" / "0"))
    with pytest.raises(UserError, match="fixed leaves of this run are damaged"):
        load_params(tmp_path, "last")


def test_the_list_is_json_with_sizes_and_hashes(last: Path):
    content = json.loads((last / "10" / checksums.NAME).read_text())
    assert content["progress"] == {"position": 70} and all(len(digest) == 64 for _, digest in content["files"].values())
