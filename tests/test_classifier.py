"""The classifier from the model to the commands: its loss, its labels, what it refuses, and its features in Frechet distances."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow
from tests.commands import FLOW, call, refusal
from tests.model_cases import MLP, case
from tests.runs import SMALL
from tests.toys import sections
from vaeflow import data
from vaeflow.commands import compare
from vaeflow.errors import UserError
from vaeflow.evaluation import trained_features
from vaeflow.evaluation.results import flat
from vaeflow.models.classifier import classifier, standardization
from vaeflow.nets import mlp
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.metrics import read_metrics
from vaeflow.training import setup

STEPS = ("--config.train.steps=40", "--config.train.log_every=20", "--config.train.eval_every=20", "--config.train.checkpoint_every=20")
DIGITS = ("--config=configs/digits_classifier.py:mlp", "--config.parts.net.hidden=16", "--config.model.features=12")
DIGITS += ("--config.optim.learning_rate=0.02", "--config.optim.ema=0.8", *STEPS)
QUALITY = ("--measures=sample_quality", "--sample_quality.names=frechet", "--examples=60")
EVENT, LEVELS = (8, 8, 1), 17
NET = mlp(hidden=(), activation="relu", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Workdirs `digits`, a classifier, and `vae`."""
    made = tmp_path_factory.mktemp("classifier")
    call("train", *DIGITS, f"--workdir={made / 'digits'}")
    call("train", *SMALL, *STEPS, f"--workdir={made / 'vae'}")
    return made


def results(workdir: Path, name: str = "results.json") -> dict:
    return flat(json.loads((workdir / name).read_text()))


def test_the_loss_is_the_cross_entropy_of_the_label_and_of_all_classes():
    for i, smoothing in ((0, 0.0), (1, 0.1)):
        c = case("classifier", i)
        network, own = c.params["network"], c.params["standardize"]["fixed"]
        h = c.model.encode(c.params, jax.random.key(0), c.batch)  # type: ignore[misc]
        log_p = np.asarray(jax.nn.log_softmax(h @ network["classes"]["kernel"] + network["classes"]["bias"]), np.float64)
        label = np.asarray(c.batch["label"])
        each = -log_p[np.arange(len(label)), label]
        assert h.shape == (len(label), 6) and h.min() == 0 and own["shift"].shape == (() if i else (4,))
        assert c.out["loss"] == pytest.approx((1 - smoothing) * each.mean() - smoothing * log_p.mean(), rel=1e-5)
        np.testing.assert_allclose(c.out["terms"]["loss"], each, rtol=2e-4)
        np.testing.assert_array_equal(c.out["terms"]["accuracy"], log_p.argmax(1) == label)


def test_x_is_standardized_by_the_first_batch_and_a_constant_entry_only_shifted():
    x = np.random.default_rng(0).normal(3, 2, (50, 3)) * [1, 10, 0] + 5
    found = standardization(x)
    np.testing.assert_allclose((x - found["shift"]) / found["scale"], (x - x.mean(0)) / [*x[:, :2].std(0), 1], atol=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1)).astype(np.uint8)
    model = classifier(event=(4, 4, 1), levels=256, classes=2, features=3, net=NET, smoothing=0.0)
    own = model.init(jax.random.key(0), {"x": images, "label": jnp.zeros(6, jnp.int32)})["standardize"]["fixed"]
    assert own["shift"] == pytest.approx(images.mean() / 255, rel=1e-5) and own["scale"] == pytest.approx(images.std() / 255, rel=1e-5)


def test_a_batch_without_labels_or_of_another_shape_is_one_line():
    c = case("classifier", 0)
    unlabelled = {"x": c.batch["x"]}
    for call_it in (
        lambda: c.model.init(jax.random.key(0), unlabelled),
        lambda: c.model.loss(c.params, jax.random.key(0), unlabelled, 0),
        lambda: c.model.terms(c.params, jax.random.key(0), unlabelled),  # type: ignore[misc]
    ):
        with pytest.raises(UserError, match="this batch has no label"):
            call_it()
    with pytest.raises(UserError, match="does not fit the data"):
        c.model.init(jax.random.key(0), {"x": jnp.zeros((2, 5)), "label": jnp.zeros(2, jnp.int32)})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda source: source.map(lambda _, split: split._replace(label=None)), "data.kind='digits' has none in the split 'train'"),
        (lambda source: source._replace(test=source.test._replace(label=None)), "has none in the split 'test'"),
        (lambda source: source._replace(label_names=("a", "b")), "model.classes=10 does not fit the data, which have 2 classes"),
        (lambda source: source._replace(val=source.val._replace(label=source.val.label - 1)), "'val' has examples without one"),
    ],
)
def test_data_without_these_labels_are_refused_before_anything_is_compiled(change, line):
    config = sections()
    config.data.kind = "digits"
    config.model = dict(kind="classifier", event=EVENT, levels=LEVELS, classes=10, features=4, net="net", smoothing=0.0)
    config.parts, config.sample = dict(net=MLP), dict(n=4)
    with pytest.raises(UserError, match=line):
        setup.make_experiment(config.lock(), source=change(data.load(config.data, 0)))


def test_a_run_learns_the_digits_and_selects_by_the_cross_entropy(folder):
    run = folder / "digits"
    found = results(run)
    assert found["accuracy"] > 0.6
    assert set(json.loads((run / "results.json").read_text())["measures"]) == {"terms"}
    rows = {row["step"]: row for row in read_metrics(run) if row["split"] == "val"}
    assert committed_steps(run / "checkpoints" / "best")[0] == min(rows, key=lambda step: rows[step]["loss"])
    assert all(0 <= row["accuracy"] <= 1 for row in rows.values())
    text = call("evaluate", f"--workdir={run}", "--split=val")
    assert "accuracy" in text and "label_cross_entropy" in text and "no density" in text
    best = rows[found["params_step"]]
    assert results(run, "results_val.json")["label_cross_entropy"] == pytest.approx(best["loss"], rel=1e-4)


def test_every_other_command_works_or_says_why_not(folder):
    run = folder / "digits"
    assert "network/classes/kernel" in call("train", *DIGITS, "--dry_run")
    assert "draws no samples" in refusal("sample", f"--workdir={run}")
    assert "draws no samples" in refusal("diagnose", f"--workdir={run}", "--measures=sample_quality")
    assert "accuracy" in call("diagnose", f"--workdir={run}", "--measures=terms")
    call("encode", f"--workdir={run}")
    assert np.load(run / "encoded_test.npz")["z"].shape == (300, 12)
    text = call("explore", f"--workdir={run}")
    assert "explore/latents.png" in text and re.search(r"not drawn: .*temperatures.*: model.kind='classifier' draws no samples", text)
    assert "terms.accuracy" in call("compare", run, folder / "vae", f"--output={folder / 'curves.png'}")
    line = refusal("train", *DIGITS, "--config.eval.measures=sample_quality", f"--workdir={folder / 'other'}")
    assert "eval.measures: 'sample_quality' does not apply: this model draws no samples" in line


def test_a_run_is_the_extractor_of_a_frechet_distance(folder):
    run, vae = folder / "digits", folder / "vae"
    text = call("diagnose", f"--workdir={vae}", *QUALITY, f"--sample_quality.classifier={run}")
    numbers = json.loads((vae / "diagnostics.json").read_text())["sample_quality"]
    step = committed_steps(run / "checkpoints" / "best")[0]
    own = trained_features.of_run(run, EVENT, LEVELS)
    assert f"12 features of configs/digits_classifier.py:mlp in digits, best parameters of step {step}" in text
    assert own.sha256[:12] == numbers["numbers"]["frechet_extractor"]["value"] and own.sha256[:12] in numbers["numbers"]["frechet"]["what"]
    assert numbers["settings"]["classifier"] == str(run)

    loaded = vaeflow.load(run)
    model, params = loaded.model, loaded.params
    x = data.load({"kind": "digits"}, 0).test.x[:7]
    np.testing.assert_allclose(own.features(x / 16), model.encode(params, jax.random.key(0), {"x": x}), rtol=1e-4, atol=1e-5)
    assert own.count == 12


def test_a_comparison_shows_which_extractor_each_run_has():
    runs = {name: {"sample_quality.frechet": 3.0, "sample_quality.frechet_extractor": own} for name, own in (("a", "81c7"), ("b", "b0ee"))}
    assert ["sample_quality.frechet_extractor", "81c7", "b0ee"] in compare._numbers(runs)


def test_the_sha256_is_of_the_parameters_and_of_what_they_mean(folder):
    params = vaeflow.load(folder / "digits").params
    first = trained_features.digest({"a": 1}, params)
    assert first == trained_features.digest({"a": 1}, jax.tree.map(np.asarray, params)) != trained_features.digest({"a": 2}, params)
    changed = jax.tree.map(np.array, params)
    changed["network"]["classes"]["bias"][3] += 1e-6
    assert trained_features.digest({"a": 1}, changed) != first


def test_what_is_not_an_extractor_of_these_data_is_one_line(folder):
    run, vae = folder / "digits", folder / "vae"

    def line(workdir: object, *words: str) -> str:
        return refusal("diagnose", f"--workdir={vae}", *QUALITY, f"--sample_quality.classifier={workdir}", *words)

    assert f"sample_quality.classifier='{vae}': its model has no `encode`" in line(vae)
    assert "does not exist" in line(folder / "no")
    assert "not used with sample_quality.extractor='efficientnet'" in line(run, "--sample_quality.extractor=efficientnet")
    for event, levels, words in (((8, 8), LEVELS, "have the shape (8, 8, 1)"), (EVENT, 256, "have 17 grey values")):
        with pytest.raises(UserError) as error:
            trained_features.of_run(run, event, levels)
        assert words in str(error.value)


def test_a_flow_of_two_dimensions_is_an_extractor_too(folder):
    call("train", *FLOW, "--config.train.steps=10", f"--workdir={folder / 'flow'}")
    own = trained_features.of_run(folder / "flow", (2,), 0)
    loaded = vaeflow.load(folder / "flow")
    model, params = loaded.model, loaded.params
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_allclose(own.features(x), model.encode(params, jax.random.key(0), {"x": x}), rtol=1e-4, atol=1e-5)


def test_the_features_of_a_run_select_checkpoints_and_are_checked_before_training(folder):
    select = ("--config.eval.select=sample_quality.frechet", "--config.eval.settings.sample_quality.classifier")
    assert f"classifier={folder / 'digits'}" in call("train", *SMALL, select[0], f"{select[1]}={folder / 'digits'}", "--dry_run")
    line = refusal("train", *SMALL, select[0], f"{select[1]}={folder / 'no'}", f"--workdir={folder / 'other'}")
    assert "eval.select='sample_quality.frechet' does not apply: sample_quality.classifier=" in line and "does not exist" in line
