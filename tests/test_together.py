"""Cells together: each is the run by itself; who fails or stops does not disturb the others; where groups begin."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.runs import SMALL, state
from vaeflow.errors import Stopped, UserError
from vaeflow.evaluation import evaluate
from vaeflow.override import override
from vaeflow.runs import workdir
from vaeflow.runs.metrics import read_metrics
from vaeflow.training import loop, many_seeds, setup
from vaeflow.training.configure import load

STEPS = ("--config.train.steps=40", "--config.train.log_every=10", "--config.train.eval_every=20", "--config.train.checkpoint_every=20")


def config(**changes: object):
    """SMALL for 40 steps; seed=1, optim__learning_rate=0.01, ..."""
    c = load("configs/digits_vae.py")
    words = [word.removeprefix("--config.").split("=") for word in (*SMALL[1:], *STEPS)]
    for key, value in (*words, *((key.replace("__", "."), str(value)) for key, value in changes.items())):
        override(c, key, value)
    return c


def cell(directory: Path, c) -> many_seeds.Member:
    workdir.prepare(directory, c)
    return many_seeds.Member(setup.make_experiment(c, directory), directory)


def assert_same(one: Path, other: Path) -> None:
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for x, y in zip(read_metrics(one, clock=False), read_metrics(other, clock=False), strict=True):
        assert x.pop("split") == y.pop("split") and x == pytest.approx(y, rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Seed 0 by itself."""
    directory = tmp_path_factory.mktemp("together") / "alone"
    loop.fit(*cell(directory, config()), evaluate.validator)
    return directory


def test_cells_are_the_runs_by_themselves(alone, tmp_path):
    """Numbers of the step (rate, beta), a seed, and another structure (draws) in one group."""
    changed = {"rate": {"optim__learning_rate": 0.01, "seed": 3}, "beta": {"parts__elbo__beta": 0.3}, "draws": {"parts__elbo__k": 2}}
    configs = {"alone": config()} | {name: config(**changes) for name, changes in changed.items()}
    ended = many_seeds.fit_together([cell(tmp_path / "group" / name, c) for name, c in configs.items()], evaluate.validator)
    assert [end.reason for end in ended] == ["finished all 40 steps"] * 4 and not any(end.failed for end in ended)
    assert_same(tmp_path / "group" / "alone", alone)
    for name in changed:
        loop.fit(*cell(tmp_path / name, configs[name]), evaluate.validator)
        assert_same(tmp_path / "group" / name, tmp_path / name)


def test_what_cells_have_in_common_is_compiled_once(tmp_path, caplog):
    """One program that draws parameters and one that makes the state, for three cells; dispatch and validation are the two `run`."""
    cells = [cell(tmp_path / str(seed), config(seed=seed, optim__learning_rate=10.0**-seed)) for seed in (2, 3, 4)]
    jax.clear_caches()  # of tests before this one
    with caplog.at_level("WARNING"), jax.log_compiles():
        many_seeds.fit_together(cells, evaluate.validator)
    names = [found[1] for record in caplog.records if (found := re.match(r"Finished XLA compilation of jit\((\w+)\)", record.getMessage()))]
    assert (names.count("init"), names.count("run")) == (2, 2)


def test_groups_are_bounded(tmp_path):
    sizes = [len(group) for group in many_seeds.groups([config()] * 20, [tmp_path / str(i) for i in range(20)])]
    assert sizes == [16, 4]


def test_a_cell_that_fails_is_held_and_the_others_go_on(alone, tmp_path):
    c = config(optim__learning_rate=1e30)
    bad, good = many_seeds.fit_together([cell(tmp_path / "bad", c), cell(tmp_path / "good", config())], evaluate.validator)
    assert bad.failed and "non-finite at step" in bad.reason and "Lower optim.learning_rate" in bad.reason
    assert not good.failed
    assert_same(tmp_path / "good", alone)
    assert not list((tmp_path / "bad" / "checkpoints" / "last").glob("[0-9]*"))


def test_a_group_that_a_signal_stops_goes_on(alone, tmp_path, monkeypatch):
    configs = [config(seed=seed, train__dispatch_seconds=1e-9) for seed in range(2)]
    directories = [tmp_path / str(seed) for seed in range(2)]
    update = many_seeds.Progress.update

    def stop(self, step, loss, rate):
        update(self, step, loss, rate)
        if step == 25:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(many_seeds.Progress, "update", stop)
    with pytest.raises(Stopped, match="stopped at step 25"):
        many_seeds.fit_together([cell(d, c) for d, c in zip(directories, configs, strict=True)], evaluate.validator)
    assert many_seeds.groups(configs, directories) == [[0, 1]]
    monkeypatch.undo()
    many_seeds.fit_together([cell(d, c) for d, c in zip(directories, configs, strict=True)], evaluate.validator)
    assert_same(directories[0], alone)


def test_groups_have_one_loop_and_one_step(alone, tmp_path):
    configs = [config(), config(seed=1), config(train__eval_every=10), config(seed=2)]
    assert many_seeds.groups(configs, [tmp_path / str(i) for i in range(4)]) == [[0, 1, 3], [2]]
    assert many_seeds.groups(configs, [alone, *(tmp_path / str(i) for i in range(3))]) == [[0], [1, 3], [2]]
    with pytest.raises(UserError, match=r"train together where train\.steps"):
        many_seeds.fit_together([cell(tmp_path / "a", configs[0]), cell(tmp_path / "b", configs[2])], evaluate.validator)
    c = config(devices__mapping="pmap")
    with pytest.raises(UserError, match=r"devices\.mapping='pmap'"):
        many_seeds.fit_together([cell(tmp_path / "c", c)], evaluate.validator)
