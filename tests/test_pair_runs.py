"""Runs on pairs: overrides, workdirs, what draws are given, and a model of pairs through the commands."""

from __future__ import annotations

import json
import re
import signal
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.commands import call, refusal, train_only
from tests.data_toys import section
from tests.runs import assert_same_run
from vaeflow import config, data
from vaeflow.build import Count
from vaeflow.data import densities
from vaeflow.errors import Stopped, UserError
from vaeflow.evaluation import sampling, two_sample
from vaeflow.evaluation.results import flat
from vaeflow.model import Model
from vaeflow.models import MODELS, ModelEntry
from vaeflow.override import override
from vaeflow.runs import overrides, workdir
from vaeflow.training import configure, loop

MOONS, EIGHT = dict(kind="density", name="moons"), dict(kind="density", name="8gaussians")


def test_overrides_of_a_group_have_the_types_of_the_section():
    c = configure.load("configs/densities.py")
    for word in ("x.kind=density", "x0.kind=csv", "x0.name=8", "x0.size=7", "x0.val_fraction=0", "x0.name=9"):
        override(c, *f"data.{word}".split("="))
    assert c.data.x0.to_dict() == dict(kind="csv", name="9", size=7, val_fraction=0.0) and c.data.x.to_dict() == dict(kind="density")
    assert isinstance(c.data.x0.val_fraction, float) and c.is_locked
    for key, text, message in (
        ("x0.bin", "1", r"config.data.x0: the key='bin' is unknown"),
        ("x0.x0", "1", r"config.data.x0: the key='x0' is unknown"),
        ("x0.size", "many", r"config.data.x0.size='many' has the wrong type; it must be int"),
        ("x0.a.b", "1", r"config.data.x0: the key='a' is unknown"),
    ):
        with pytest.raises(UserError, match=message):
            override(c, f"data.{key}", text)


def test_a_workdir_of_a_pair(tmp_path):
    """The places of both sources may change, what is learned may not."""

    def changed(**values: str) -> Any:
        other = configure.load("configs/densities.py")
        for key, text in (dict(x0__kind="csv", x0__path="a/b.csv") | values).items():
            override(other, f"data.{key.replace('__', '.')}", text)
        return other

    workdir.prepare(tmp_path / "run", changed())
    assert workdir.differences(tmp_path / "run", changed(x0__path="elsewhere/b.csv", x0__dir="c", x__cache_dir="d")) == []
    assert config.data_places(changed())["data.x0.path"] == "a/b.csv"
    (line,) = workdir.differences(tmp_path / "run", changed(x0__label="kind"))
    assert line == 'data.x0 was {"kind": "csv"}, is now {"kind": "csv", "label": "kind"}'
    assert "data.x0.path" in overrides.EVAL_OVERRIDABLE
    assert config.data_name(dict(kind="pair", x=MOONS, x0=dict(kind="csv", path="a/b.csv"))) == "pair of density moons and csv b.csv"
    inherited = dict(kind="pair", name="rings", x=dict(kind="density"), x0=EIGHT)
    assert config.data_name(inherited) == "pair of density rings and density 8gaussians"


def paired(paired: bool = True) -> Model:
    """x = 100 c + x0, where it is given x0, or else 100 c."""

    def sample(params, key, n, context=None, x0=None):
        assert (x0 is not None) is paired
        first = 0 if context is None else 100 * context.argmax(-1)[:, None]
        return {"x": jnp.zeros((n, 2)) + first + (0 if x0 is None else x0)}

    return toys.model(None, "none", sample=sample)._replace(paired=paired)


def test_what_draws_of_a_pair_are_given(tmp_path):
    """x0 of the test split in turn, of the drawn class where there are classes; a model that is not of pairs gets none."""
    values = dict(kind="pair", size=50, x=MOONS, x0=EIGHT)
    c: Any = SimpleNamespace(data=section(**values), seed=0)
    test = data.load(c.data, 0).split("test")

    def load():
        return data.load(c.data, 0)

    found = sampling.conditions(tmp_path, c, paired(), 1003, load=load)  # no data.json is read
    assert list(found) == ["x0"]
    np.testing.assert_array_equal(found["x0"], np.asarray(test.x0)[np.arange(1003) % 1000])
    np.testing.assert_array_equal(sampling.draw(paired(), {}, jax.random.key(0), 1003, found)["x"], found["x0"])
    assert sampling.conditions(tmp_path, c, paired(False), 5, load=lambda: pytest.fail("these draws need no data")) == {}
    np.testing.assert_array_equal(sampling.draw(paired(False), {}, jax.random.key(0), 3, sampling.given_of(test))["x"], np.zeros((3, 2)))
    c.data.context = "label"
    source = data.load(c.data, 0)
    workdir.write_json(tmp_path / "data.json", data.summary(source))
    of_class = [np.asarray(test.x0)[np.asarray(test.label) == k] for k in range(2)]
    both = sampling.conditions(tmp_path, c, paired(), 6, load=load)
    np.testing.assert_array_equal(both["label"], [0, 1, 0, 1, 0, 1])
    for k in range(2):
        np.testing.assert_array_equal(both["x0"][k::2], of_class[k][:3])
    one = sampling.conditions(tmp_path, c, paired(), 600, label=1, load=load)
    np.testing.assert_array_equal(one["x0"], np.resize(of_class[1], (600, 2)))
    given = {name: one[name] for name in ("context", "x0")}
    np.testing.assert_allclose(sampling.draw(paired(), {}, jax.random.key(0), 600, given)["x"], 100 + one["x0"], rtol=1e-6)


def bridge(*, width: Count) -> Model:
    """dx/dt = v(x, t), regressed on x - x0 at (1 - t) x0 + t x."""

    def init(key, batch, given=None):
        first, second = jax.random.split(key)
        d = batch["x"].shape[-1]
        one = {"kernel": jax.random.normal(first, (d + 1, width)), "bias": jnp.zeros(width)}
        return {"one": one, "two": {"kernel": 0.1 * jax.random.normal(second, (width, d)), "bias": jnp.zeros(d)}}

    def velocity(params, x, t):
        h = jnp.concatenate([x, jnp.broadcast_to(t, (len(x), 1))], -1) @ params["one"]["kernel"] + params["one"]["bias"]
        return jax.nn.silu(h) @ params["two"]["kernel"] + params["two"]["bias"]

    def loss(params, key, batch, step):
        x0, x, t = batch["x0"], batch["x"], jax.random.uniform(key, (len(batch["x"]), 1))
        total = jnp.mean((velocity(params, (1 - t) * x0 + t * x, t) - (x - x0)) ** 2)
        return total, {"loss": total}

    def sample(params, key, n, context=None, x0=None):
        x = jax.lax.fori_loop(0, 20, lambda i, x: x + velocity(params, x, i / 20) / 20, x0)
        return {"x": x, "x0": x0}

    return Model(init, loss, sample, None, "none", paired=True)


CONFIG = '''"""Eight Gaussians to moons."""
from configs.base import base

ROWS = {"": "as it is"}


def get_config(row=""):
    c = base()
    c.model = dict(kind="bridge", width=64)
    c.sample = dict(n=300)
    c.data.update(kind="pair", size=1000, batch=128, x=dict(kind="density", name="moons"), x0=dict(kind="density", name="8gaussians"))
    c.data.pairing = "shuffle"
    c.optim.learning_rate = 1e-2
    c.train.update(steps=600, log_every=50, eval_every=300, checkpoint_every=100)
    c.eval.select = "sample_quality.energy"
    c.eval.settings = dict(sample_quality=dict(names=("energy",), examples=500))
    c.eval.validate = dict(names=("energy",), examples=200)
    return c
'''


def test_a_model_of_pairs_is_trained_resumed_sampled_and_evaluated(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "bridge", ModelEntry(bridge, (), context=False))
    (tmp_path / "moons.py").write_text(CONFIG)
    command, run = f"--config={tmp_path / 'moons.py'}", tmp_path / "run"
    (tmp_path / "alone.py").write_text(
        re.sub(r"kind=.pair.(.*), x=.*", r'kind="density", name="moons"\1)', CONFIG).replace("shuffle", "rows")
    )
    line = refusal("train", f"--config={tmp_path / 'alone.py'}", f"--workdir={tmp_path / 'no'}")
    assert line == "this model maps x0 to x, and data.kind='density' has no x0 here; see data.kind='pair'"
    text = call("train", command, f"--workdir={run}")
    assert "pair of density moons and density 8gaussians: 1,000 train" in text and "finished all 600 steps" in text
    update = loop.Progress.update

    def stop(self, step, loss, rate):
        update(self, step, loss, rate)
        if step >= 140:
            signal.raise_signal(signal.SIGTERM)

    short = "--config.train.dispatch_seconds=1e-9"
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped at step 140"):
        patch.setattr(loop.Progress, "update", stop)
        train_only(command, short, "--config.data.place=stream", f"--workdir={tmp_path / 'again'}")
    train_only(command, f"--workdir={tmp_path / 'again'}")
    assert_same_run(run, tmp_path / "again")

    about = json.loads((run / "data.json").read_text())
    assert about["pairs"] is True and "test x0" in about["moments"]
    found = flat(json.loads((run / "results.json").read_text()))
    call("sample", f"--workdir={run}")
    drawn = np.load(run / "samples.npz")
    test = data.load(workdir.read_config(run).data, 0).split("test")
    np.testing.assert_array_equal(drawn["x0"], np.asarray(test.x0)[:300])
    log_p = densities.log_prob(densities.DENSITIES["moons"](), drawn["x"])
    assert np.median(log_p) > -6 > np.median(densities.log_prob(densities.DENSITIES["moons"](), drawn["x0"]))
    settings = two_sample.TwoSampleSettings(names=("energy",), floor=False)
    before = two_sample.compare(jax.random.key(0), np.asarray(test.x0)[:500], test.x[:500], test.x[:500], settings)["energy"][0]
    assert found["sample_quality.energy"] < 0.25 * before
    assert "sample_quality" in call("evaluate", f"--workdir={run}", "--split=val")
