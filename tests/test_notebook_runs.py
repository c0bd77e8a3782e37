"""Runs of a notebook after training: their arrays are stored with them, runs that continue them, labels, pairs, masks, constant columns."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

import vaeflow as vf
from tests.commands import call
from vaeflow.data import kept
from vaeflow.errors import UserError
from vaeflow.models.diffusion import diffusion
from vaeflow.nets import mlp

X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32) @ np.array([[2.0, 1.0], [0.0, 0.5]], np.float32) + 7
SMALL = dict(event=(2,), layers=1, hidden=(8,))
LABELS = np.where(X[:, 0] > 7, "right", "left")


@pytest.fixture(scope="module")
def flow():
    return vf.flows.maf(**SMALL)


@pytest.fixture(scope="module")
def run(flow):
    return vf.fit(flow, X, LABELS, steps=5)


def same(one, other) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), one, other))


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    return run.save(tmp_path_factory.mktemp("saved") / "run")


def test_small_arrays_are_stored_with_a_saved_run(run, saved):
    assert not (run.directory / kept.NAME).exists()  # of a temporary run
    again, names = vf.load(saved), ("train", "val")
    assert again.source.label_names == ("left", "right") and again.source.levels == 0 and {*again.source.splits()} == {*names}
    for name in names:
        own, other = again.source.split(name).arrays(), run.source.split(name).arrays()
        assert own.keys() == other.keys() == {"x", "context", "label"}
        for leaf in own:
            np.testing.assert_array_equal(own[leaf], other[leaf])
    assert again.evaluate(measures="likelihood")["nll"] == run.evaluate(measures="likelihood")["nll"]
    assert "nats per example" in call("evaluate", f"--workdir={saved}", "--config.eval.measures=likelihood")


def test_arrays_that_were_changed_are_not_read(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    np.savez(tmp_path / "run" / kept.NAME, **{"train.x": X, "levels": 0})
    with pytest.raises(UserError, match=r"arrays\.npz does not have the SHA-256 in data\.json"):
        vf.load(tmp_path / "run").evaluate()


def test_a_run_without_its_arrays_is_drawn_as_far_as_it_can_be(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 100)
    again = vf.load(run.save(tmp_path / "run"))
    assert "larger than" in capsys.readouterr().err and not (tmp_path / "run" / kept.NAME).exists()
    assert [path.name for path in again.plot().paths] == ["curves.png", "samples.png"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not drawn")]
    assert line.startswith("not drawn: text, marginals, density, ") and "which are not stored with it" in line
    with pytest.raises(UserError, match="which are not stored with it"):
        again.evaluate()


def test_a_run_continues_with_the_parameters_that_it_holds(run, saved, flow, tmp_path):
    def start(of, **how):
        return vf.fit(
            of, steps=1, optimizer=dict(name="sgd", learning_rate=1e-9), workdir=tmp_path / str(len([*tmp_path.iterdir()])), **how
        )

    temporary = start(run)
    name = temporary.config.init_from
    assert name.startswith("sha256:") and str(run.directory) not in json.dumps(temporary.config.to_dict())
    for leaf, own in zip(jax.tree.leaves(temporary.params), jax.tree.leaves(run.params), strict=True):
        np.testing.assert_allclose(leaf, own, atol=1e-6)
    assert start(vf.load(saved)).config.init_from == str(saved)
    away = vf.fit(flow, X, LABELS, val=(X + 9, LABELS), steps=5, optimizer=0.05, workdir=tmp_path / "away")  # training only makes it worse
    last = vf.load(away.directory, {"eval.params": "last"})
    assert not same(away.params, last.params)
    continued = start(last, options={"eval.params": "last", "train.patience": 0})
    assert continued.config.init_from.startswith("sha256:") and continued.config.init_from != name
    for leaf, own in zip(jax.tree.leaves(continued.params), jax.tree.leaves(last.params), strict=True):
        np.testing.assert_allclose(leaf, own, atol=1e-6)
    again = vf.fit(
        last,
        steps=1,
        optimizer=dict(name="sgd", learning_rate=1e-9),
        workdir=continued.directory,
        options={"eval.params": "last", "train.patience": 0},
    )
    assert same(again.params, continued.params)  # the same call resumes
    with pytest.raises(UserError, match=r"config\.init_from='sha256:ab' are parameters of a run in a notebook"):
        vf.fit(flow, X, LABELS, steps=1, init_from="sha256:ab")


def test_parameters_that_a_temporary_run_keeps_stay_kept(tmp_path):
    grey = np.random.default_rng(0).integers(0, 17, (60, 4, 4, 1)).astype(np.uint8)
    small = dict(event=(4, 4, 1), levels=17, latent=2, hidden=(4,))
    vae = vf.fit(vf.flows.vae(**small), grey, levels=17, steps=2)
    prior = vf.fit(vf.flows.vae(**small, prior="maf"), grey, levels=17, steps=2, fixed_from=vae)
    assert prior.config.fixed_from.startswith("sha256:")
    del vae
    again = vf.fit(prior, steps=2)
    for part in ("encoder", "decoder"):
        assert same(again.params[part], prior.params[part])
    assert not same(again.params["prior"], prior.params["prior"])


def test_labels_of_test_examples():
    grey, label = np.random.default_rng(0).integers(0, 17, (90, 4, 4, 1)).astype(np.uint8), np.arange(90) % 3
    run = vf.fit(vf.flows.vae(event=(4, 4, 1), levels=17, latent=2, hidden=(4,)), grey, label=label, levels=17, steps=2)
    found = run.evaluate(grey[:30], label=label[:30], measures="probes")
    assert found["largest_class"] == pytest.approx(1 / 3)
    for what, error in (
        (lambda: run.evaluate(grey[:30], measures="probes"), "probes"),
        (lambda: run.evaluate(grey[:30], label=label[:30] + 1), "label has classes that the training data do not have: '3'"),
        (lambda: run.evaluate(grey[:30], label=label[:29]), "label has 29 rows for 30 examples"),
        (lambda: run.evaluate(label=label), "label, x0 and mask belong to x, which is missing"),
    ):
        with pytest.raises(UserError, match=error):
            what()


def test_pairs():
    model = diffusion(event=(2,), net=mlp(hidden=(8,)), paired=True)
    run = vf.fit(model, X, x0=X + 1, steps=2, val={"x": X[:9], "x0": X[:9] + 1})
    assert run.source.split("val").x0 is not None and run.sample(3, x0=X[:2]).shape == (3, 2)
    straight = run.evaluate(X, x0=X + 1, measures="transport")
    assert straight["transport_cost"] > 0 and straight["examples"] == 200
    for what, error in (
        (lambda: vf.fit(model, X, steps=2), r"this model maps x0 to x, .* has no x0 here"),
        (lambda: run.evaluate(X), "x0: this model needs one"),
        (lambda: vf.fit(vf.flows.realnvp(**SMALL), X, x0=X, steps=2), "x0: this model does not map x0 to x; leave it out"),
    ):
        with pytest.raises(UserError, match=error):
            what()


def test_masks_reach_a_model_that_reads_them():
    flow = vf.flows.realnvp(**SMALL)
    seen = X > 6.9

    def loss(params, key, batch, step):
        value, _ = flow.loss(params, key, batch, step)
        return 0 * value + batch["mask"].mean(), {"loss": batch["mask"].mean()}

    hand = flow._replace(loss=loss, masked=True, spec=None)
    run = vf.fit(hand, np.where(seen, X, np.nan), mask=seen, steps=1, val=None, batch=200)
    assert run.metrics[-1]["loss"] == pytest.approx(seen.mean())
    np.testing.assert_array_equal(run.source.train.x, np.where(seen, X, 0))
    with pytest.raises(UserError, match="the data have a mask of missing entries, and this model does not read it"):
        vf.fit(flow, X, mask=seen, steps=1)


def test_a_constant_column_is_an_error_for_a_flow_alone(capsys):
    flat = np.concatenate([X, np.full((200, 2), 3.0, np.float32)], 1)
    with pytest.raises(UserError, match=r"x has one value .* in column 2, column 3, where a density is infinite"):
        vf.fit(vf.flows.realnvp(event=(4,), layers=1, hidden=(8,)), flat, steps=1)
    run = vf.fit(vf.flows.flow_matching(event=(4,), net=mlp(hidden=(8,))), flat, steps=1)
    assert "x has one value (in float32) in column 2, column 3: not rescaled" in capsys.readouterr().err
    np.testing.assert_array_equal(run.params["fixed"]["log_scale"][2:], [0, 0])
    np.testing.assert_array_equal(run.params["fixed"]["shift"][2:], [3, 3])
