"""A notebook's way in: the scripts of docs/notebook.md, fit and load, the same bits as the command, what a wrong argument says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax import monitoring

import vaeflow as vf
from tests.commands import call
from tests.runs import ROOT
from vaeflow.bijectors import affine_coupling, permutation
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.errors import UserError
from vaeflow.nets import mlp
from vaeflow.runs.metrics import read_metrics
from vaeflow.training.configure import load as load_config

X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32) @ np.array([[2.0, 1.0], [0.0, 0.5]], np.float32) + 7
SMALL = dict(event=(2,), layers=1, hidden=(8,))
# What makes a script quick: the same code, smaller.
QUICK = {
    r"steps=[\d_]+": "steps=20",
    r"make_moons\(5_000": "make_moons(400",
    r"nsf\(event=\(2,\)": "nsf(event=(2,), layers=1, bins=4, hidden=(8,)",
    r"maf\(event=\(2,\)": "maf(event=(2,), layers=1, hidden=(8,)",
    r"latent=8": "latent=2, hidden=(8,)",
    r"hidden=\(64, 64\)": "hidden=(8,)",
    r"range\(100\)": "range(2)",
}
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL)
LINES = (5, 8, 9, 9, 20, 3, 20)


@pytest.fixture(scope="module")
def flow():
    return vf.flows.realnvp(**SMALL)


@pytest.fixture(scope="module")
def run(flow):
    return vf.fit(flow, X, steps=20)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_the_scripts_of_the_page_run_and_are_short(block, tmp_path, monkeypatch):
    text = BLOCKS[block]
    assert sum(bool(line.strip()) for line in text.splitlines()) <= LINES[block]
    monkeypatch.chdir(tmp_path)
    if "runs/digits_vae" in text:
        config = f"--config={ROOT / 'configs' / 'digits_vae.py'}"
        call("train", config, "--config.train.steps=4", "--config.parts.encoder.hidden=8", f"--workdir={tmp_path / 'runs' / 'digits_vae'}")
    for pattern, quick in QUICK.items():
        text = re.sub(pattern, quick, text)
    exec(compile(text, f"docs/notebook.md, block {block}", "exec"), {})
    assert {path.name for path in tmp_path.iterdir()} <= {"runs"}


def test_a_second_fit_and_other_numbers_of_examples_compile_nothing(flow, run):
    run.log_prob(X[:20])
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        vf.fit(flow, X, steps=20, seed=3)
        run.log_prob(X[:30])
        assert not compiled
    finally:
        monitoring.unregister_event_duration_listener(listen)


def test_units_are_those_of_the_array(flow):
    """log p of a x + b is log p of x less D log a, as mean and standard deviation are a layer of the flow."""
    sgd = dict(name="sgd", learning_rate=1e-3)  # which does not amplify the rounding of the data
    run, other = vf.fit(flow, X, steps=20, optimizer=sgd), vf.fit(flow, 1000 * X - 3, steps=20, optimizer=sgd)
    np.testing.assert_allclose(other.log_prob(1000 * X - 3), run.log_prob(X) - 2 * np.log(1000), atol=2e-3)
    np.testing.assert_allclose(other.sample(5), 1000 * run.sample(5) - 3, rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(run.encode(X[:7]), run.encode(X)[:7], atol=1e-5)
    found = run.evaluate(X)
    assert found["nll"] == pytest.approx(-run.log_prob(X).mean(), abs=1e-4) and found["split"] == "test" and found["examples"] == 200


def test_a_run_is_saved_and_read_back_by_load_and_by_the_commands(run, tmp_path):
    where = run.save(tmp_path / "kept")
    again = vf.load(where)
    np.testing.assert_array_equal(again.log_prob(X), run.log_prob(X))
    np.testing.assert_array_equal(again.sample(3, seed=1), run.sample(3, seed=1))
    assert "4 samples" in call("sample", f"--workdir={where}", "--config.sample.n=4")
    assert repr(again.model.spec).startswith("standardized(model=realnvp(")
    with pytest.raises(UserError, match="exists already"):
        run.save(where)
    longer = vf.fit(again, X, steps=5, workdir=tmp_path / "longer")
    assert longer.config.init_from == str(where) and longer.metrics[-1]["step"] == 5


def test_a_fit_with_a_workdir_resumes(flow, tmp_path):
    whole = vf.fit(flow, X, steps=20, val=None, options={"train.checkpoint_every": 10}, workdir=tmp_path / "a")
    before = [row["loss"] for row in whole.metrics]
    assert vf.fit(flow, X, steps=20, val=None, options={"train.checkpoint_every": 10}, workdir=tmp_path / "a").metrics[-1]["step"] == 20
    assert [row["loss"] for row in read_metrics(tmp_path / "a")] == before
    with pytest.raises(UserError, match=r"holds a run with another config: .*train\.steps was 20"):
        vf.fit(flow, X, steps=30, val=None, options={"train.checkpoint_every": 10}, workdir=tmp_path / "a")


def test_the_same_bits_as_the_command_for_the_same_rows_and_seed(tmp_path):
    """A config with its data, and the rows of an npz given as an array."""
    np.savez(tmp_path / "x.npz", x=X)
    words = {"data.kind": "npz", "data.path": str(tmp_path / "x.npz"), "data.batch": "32", "data.test_fraction": "0", "train.steps": "20"}
    words |= {"parts.net.hidden": "8", "parts.steps.n": "1", "train.eval_every": "10", "train.checkpoint_every": "10", "eval.batch": "50"}
    words |= {"data.name": "x", "data.size": "0"}
    name = str(ROOT / "configs" / "densities.py:moons_realnvp")
    call("train", f"--config={name}", *(f"--config.{key}={value}" for key, value in words.items()), f"--workdir={tmp_path / 'command'}")
    config = load_config(name, list(words.items()))
    by_config = vf.fit(config, workdir=tmp_path / "config")
    arrays = vf.fit(config, X, workdir=tmp_path / "arrays")
    command = vf.load(tmp_path / "command")
    for own in (by_config, arrays):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), own.params, command.params))
        assert read_metrics(own.directory, clock=False) == read_metrics(tmp_path / "command", clock=False)


def test_a_model_made_by_hand_is_loaded_with_it(tmp_path):
    layer = Layer(lambda key, x, context=None: {"a": np.zeros(2, np.float32)}, lambda params, **_: shifted(params["a"]))
    hand = vf.flow(event=(2,), layer=vf.chain(layer, affine_coupling(net=mlp(hidden=(8,)), mask="half"), permutation()))
    run = vf.fit(hand, X, steps=5, optimizer=optax.adam(1e-2), workdir=tmp_path / "hand")
    np.testing.assert_array_equal(vf.load(tmp_path / "hand", model=hand).log_prob(X), run.log_prob(X))
    with pytest.raises(UserError, match=r"made by hand in a notebook; load it there"):
        vf.load(tmp_path / "hand")


def shifted(a):
    return Bijection(lambda z: (z + a, 0 * z), lambda x: (x - a, 0 * x), event_ndims_in=0)


def test_contexts_are_labels_or_numbers():
    labels = np.where(X[:, 0] > 7, "right", "left")
    run = vf.fit(vf.flows.maf(**SMALL), X, context=labels, steps=5)
    assert run.sample(3, context="left").shape == (3, 2) and run.log_prob(X, context=labels).shape == (200,)
    np.testing.assert_allclose(
        run.log_prob(X, context="left")[labels == "left"], run.log_prob(X, context=labels)[labels == "left"], atol=1e-5
    )
    for what, error in (
        (lambda: run.sample(3), "trained with one of width 2"),
        (lambda: run.sample(3, context="up"), "up"),
        (lambda: run.log_prob(X, context=labels[:5]), "context has 5 rows"),
        (lambda: run.log_prob(X[:, :1], context=labels), r"shape \(1,\)"),
    ):
        with pytest.raises(UserError, match=error) as found:
            what()
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (dict(model="flow"), "--config='flow'"),
        (dict(model=3), "model=3 is invalid; it must be a Model"),
        (dict(x=None), "x is missing"),
        (dict(x=X[:, :1]), "model.event"),
        (dict(steps=0), "train.steps=0"),
        (dict(optimizer={"lr": 1}), "did you mean 'learning_rate'"),
        (dict(options={"train.step": 3}), "train: the key='step' is unknown"),
        (dict(batch=1000), "data.batch=1000 is larger"),
        (dict(x=np.where(X > 7, np.nan, X)), "x has"),
    ],
)
def test_a_wrong_argument_is_one_line_before_anything_is_compiled(flow, arguments, error):
    given = dict(model=flow, x=X, steps=5) | arguments
    with pytest.raises(UserError, match=re.escape(error)) as found:
        vf.fit(given.pop("model"), given.pop("x"), **given)
    assert "\n" not in str(found.value)


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, vaeflow as vf; vf.fit; assert 'jax' in sys.modules"
    lazy = "import sys, vaeflow as vf; assert not {'jax', 'numpy', 'flax', 'ml_collections'} & {*sys.modules}; assert 'fit' in dir(vf)"
    for text in (lazy, code):
        subprocess.run([sys.executable, "-c", text], check=True, cwd=ROOT)
    assert {*vf.__all__} <= {*dir(vf)} and all(getattr(vf, name) is not None for name in vf.__all__)
    with pytest.raises(AttributeError, match="public names"):
        vf.fitt  # noqa: B018


def test_split_and_merge(flow):
    params = flow.init(jax.random.key(0), {"x": X})
    trained, rest = vf.split(params)
    assert jax.tree.structure(vf.merge(trained, rest)) == jax.tree.structure(params)
    assert not any(jax.numpy.issubdtype(leaf.dtype, jax.numpy.integer) for leaf in jax.tree.leaves(trained))


def test_the_version_is_that_of_the_package():
    assert f'version = "{vf.__version__}"' in (Path(ROOT) / "pyproject.toml").read_text()


def test_sampling_options_reach_the_model_in_a_standardised_one(tmp_path):
    """By `draw`, by `load` and by a command: they are keys of the section sample, not of the part."""
    run = vf.fit(vf.flows.flow_matching(event=(2,), net=mlp(hidden=(8,))), X, steps=5)
    assert run.draw(4, steps=3, sampler="euler")["nfe"].tolist() == [4] * 4
    assert run.config.sample.steps == 50 and "steps" not in run.config.parts.flow_matching
    where = run.save(tmp_path / "kept")
    quick = vf.load(where, {"sample.steps": 3, "sample.sampler": "euler"})
    assert quick.draw(4)["nfe"].tolist() == [4] * 4 and quick.draw(4, steps=5)["nfe"].tolist() == [6] * 4
    call("sample", f"--workdir={where}", "--config.sample.n=4", "--config.sample.steps=3", "--config.sample.sampler=euler")
    np.testing.assert_array_equal(np.load(where / "samples.npz")["nfe"], [4] * 4)
    for key, value, error in (("step", 3, "did you mean 'steps'"), ("steps", -3, "sample.steps=-3 is invalid")):
        with pytest.raises(UserError, match=error):
            vf.load(where, {f"sample.{key}": value})
    cold = vf.fit(vf.flows.maf(**SMALL), X, steps=5).sample(50, temperature=1e-3)
    assert np.all(cold.std(0) < 0.01 * X.std(0))
    with pytest.raises(UserError, match="the sampling option='step' is unknown"):
        run.sample(3, step=3)


def test_a_model_without_a_validation_number_is_fitted(run):
    maps = vf.fit(vf.flows.mean_flow(event=(2,), net=mlp(hidden=(8,))), X, steps=3)
    assert maps.sample(2).shape == (2, 2) and maps.config.train.patience == 0
    with pytest.raises(UserError, match=r"options: model\.model is an argument"):
        vf.fit(vf.flows.realnvp(**SMALL), X, options={"model.model": "x"})
    with pytest.raises(UserError, match="has its own model"):
        vf.load(run.directory, model=run.model)


def test_columns_of_any_two_scales_are_standardised():
    """Each by its own size; the second has a standard deviation of 1e-7 of the first one's."""
    run = vf.fit(vf.flows.realnvp(**SMALL), X * np.float32([1e6, 0.1]), steps=2)
    np.testing.assert_allclose(np.exp(run.params["fixed"]["log_scale"]), run.source.train.x.std(0), rtol=1e-4)


def test_a_config_keeps_how_its_examples_are_drawn():
    grey = np.random.default_rng(0).integers(0, 17, (60, 8, 8, 1)).astype(np.uint8)
    config = load_config(str(ROOT / "configs" / "digits_objectives.py"), [("train.steps", "2"), ("parts.encoder.hidden", "4")])
    run = vf.fit(config, grey, levels=17)
    assert config.data.binarize == run.config.data.binarize == "dynamic" and run.model.levels == 2
    again = vf.fit(run, grey, levels=17, steps=2, optimizer=optax.sgd(1e-3))
    assert again.config.data.binarize == "dynamic" and again.config.optim.name == "custom"
    assert vf.fit(again, grey, levels=17, steps=2, optimizer=1e-3).config.optim.name == "adam"


def test_integers_are_not_standardised():
    hand = vf.flows.realnvp(**SMALL)._replace(levels=None, spec=None)
    grey = np.random.default_rng(0).integers(0, 4, (60, 2))
    assert vf.fit(hand, grey, levels=4, steps=2).config.model.kind == "by_hand"
    assert vf.fit(hand._replace(event=[2]), X, steps=2).config.model.kind == "by_hand_standardized"


def test_float_contexts_beside_labels_are_numbers():
    run = vf.fit(vf.flows.maf(**SMALL), X, context=X[:, :1], label=np.arange(200) % 3, steps=2)
    assert run.config.data.context == "array" and run.sample(2, context=0.5).shape == (2, 2)
    assert run.evaluate(X, X[:, :1], measures="likelihood")["nll"] > -100
