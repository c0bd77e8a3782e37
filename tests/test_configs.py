"""Every config and row builds; one row of each distinct structure takes a real step."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest

from configs import table_miniboone, table_tabular
from tests.bijector_laws import quick_jit
from vaeflow import data
from vaeflow.config import data_name, plain, rows
from vaeflow.data.source import Source, Split
from vaeflow.training import setup
from vaeflow.training.configure import load
from vaeflow.training.step import all_finite, init_state, make_step

ALL = [name for name, _ in rows()]


def shrunk(name: str):
    """The config of a row with small networks, small data where size is a choice, and little of everything."""
    config = load(name)
    with config.unlocked():
        config.data.update(batch=8, size=min(config.data.size, 80))
        config.train.update(steps=2, log_every=1, eval_every=2, checkpoint_every=2)
        config.optim.warmup = 0
        config.optim.turns = tuple(f"{turn.partition(':')[0]}:1" for turn in config.optim.turns)
        config.eval.update(k=2, chunk=1, batch=8)
        if config.model.kind == "ladder":
            config.model.width = 4
        for part in config.parts.values():
            if "hidden" in part:
                part["hidden"] = (8,) * len(part["hidden"])
            if "channels" in part and part["kind"] != "beside":  # whose channels are those of an image that it is given
                part["channels"] = 4 if isinstance(part["channels"], int) else (4,) * len(part["channels"])
            if part["kind"] == "resnet":
                part.update(width=4, blocks=1)
            if part["kind"] == "gated_deconv":
                part["width"] = 4
            if part["kind"] == "repeat":
                part["n"] = min(part["n"], 2)
    return config


# Shape of an example and grey values of data that are not at hand (TFDS, a user's own).
IMAGE = ((28, 28, 1), 256)
SHAPES = {
    **{"tfds cifar10": ((32, 32, 3), 256), "tfds mnist": IMAGE, "tfds binarized_mnist": ((28, 28, 1), 2), "omniglot": IMAGE},
    **{"image_folder": IMAGE, "csv": ((6,), 0), "npz": ((43,), 0), "text": ((16,), 27)},
    **{f"maf {name}": ((facts.columns,), 0) for name, facts in table_tabular.DATA.items()},
}


def fake(config) -> Source:
    """Data of the shape of those that a config names."""
    rng = np.random.default_rng(0)
    event, levels = SHAPES[data_name(config.data).partition(" ")[0] if config.data.kind == "npz" else data_name(config.data)]
    x = rng.integers(0, max(levels, 1), (16, *event)).astype(np.uint8) if levels else rng.normal(size=(16, *event)).astype(np.float32)
    label = np.arange(16, dtype=np.int32) % 10
    split = Split(x, np.eye(10, dtype=np.float32)[label] if config.data.context == "label" else None, label)
    return Source(split, split, split, levels, tuple(map(str, range(10))))


def built(name: str, monkeypatch) -> setup.Experiment:
    config = shrunk(name)
    if config.data.kind not in ("digits", "density", "pair"):
        monkeypatch.setattr(data, "load", lambda *_: fake(config))
    return setup.make_experiment(config)


def full(name: str, long: bool):
    return pytest.param(name, marks=pytest.mark.full) if long else name


# Rows that differ by the density or by sizes alone are built in the long matrix.
SAME = re.compile(
    r"densities\.py:(?!moons_)|transfer\.py:(?!moons_8gaussians|digits_1_7_rectified_flow)|,paper|digits_objectives\.py:(?!adversarial|beta_tc)|digits_discrete\.py:(?!bernoulli_vimco|categorical_gumbel)"
    r"|mnist_iwae\.py:(?!iwae_2_5)|mnist_vae\.py:.+_|,cpu|premade\.py:.|digits_gan\.py:."
    r"|text_d3pm\.py:text8_(?!uniform)|cifar10_d3pm\.py:(?!gaussian$)"
    # Of the tables, whose rows are mostly other configs' or differ in sizes, one of each that has parts of its own.
    r"|table_(?!tabular\.py:miniboone_nsf_ar$|flow_posteriors\.py:sylvester$|flow_priors\.py:nsf_c$|vae_flow\.py:mnist_maf$).*\.py:."
)


def structure(name: str) -> str:
    """What makes two rows the same program but for sizes: kinds and switches, not names and numbers."""
    config = plain(load(name))
    numbers = {k: bool(config["model"].get(k)) for k in ("posterior_context", "pseudo_inputs")}
    switches = {k: v for k, v in config["model"].items() if isinstance(v, str | bool)} | numbers
    if "teacher" in switches:  # a row of the same name but for its density
        switches["teacher"] = switches["teacher"].rpartition("_")[2]
    sizes = ("hidden", "n", "channels", "kernels", "strides", "width", "blocks", "columns", "reflections", "k", "weight", "nats", "steps")
    kinds = {
        name: {k: v for k, v in part.items() if k not in (*sizes, "beta") or isinstance(v, str)} for name, part in config["parts"].items()
    }
    return json.dumps([switches, kinds, config["data"]["kind"], config["data"]["binarize"], config["data"]["context"]], sort_keys=True)


# What compiles for long, or differs from a row that steps here by a layer or a net that has tests of its own.
LONG = re.compile(
    r"mnist_(flow|iwae|ladder|discrete|vq)|digits_hierarchy\.py:ladder|digits_vq\.py|densities\.py:moons_(residual|iaf|gaussianization|interpolant|rectified_flow|reflow|learned_interpolant|flow_matching_vp|score_vp|score_subvp)|cifar10_flow|miniboone|mnist_vae\.py:|digits_hierarchy\.py:(one_layer|iwae)"
    r"|(mnist|cifar10)_diffusion|transfer\.py:(?!moons_8gaussians_interpolant)|digits_diffusion|digits_flow\.py:(?!conditional)|digits_vae\.py:(radial|planar|sylvester|bfloat16|gaussian|mixture|realnvp|spline|maf|autoregressive|full)"
    r"|digits_objectives\.py:(?!adversarial|beta_tc)|digits_discrete\.py:(?!bernoulli_vimco|categorical_gumbel)|collapse\.py:"
    r"|table_|premade\.py:.|densities\.py:moons_gan_(?!wgan_gp|magan)|digits_gan\.py:"
    r"|cifar10_d3pm|digits_d3pm|text_d3pm\.py:(?!uniform)"
    r"|(digits|mnist)_latent|digits_tarflow\.py:."
)
STEPS = {structure(name): name for name in reversed(ALL)}.values()


# A row that steps builds as well.
STEPPING = [name for name in STEPS if not LONG.search(name)]
DISTINCT = {json.dumps(plain(load(name)), sort_keys=True): name for name in reversed(ALL)}.values()


def test_no_batch_of_a_tabular_row_is_larger_than_its_training_split():
    known = {data: facts.examples for data, facts in table_tabular.DATA.items()}
    rows = [(table_tabular, row, known[row.partition("_")[0]]) for row in table_tabular.ROWS if row]
    rows += [(table_miniboone, row, table_miniboone.TRAIN) for row in table_miniboone.ROWS if row]
    for module, row, examples in rows:
        c = module.get_config(row)
        assert c.data.batch <= examples, row
        assert c.train.eval_every <= c.train.steps and c.train.steps * c.data.batch >= examples, row


@pytest.mark.parametrize("row", ["table_continuous.py:moons_consistency_training", "table_one_step.py:digits_consistency_training"])
@pytest.mark.parametrize("budget", ["cpu", "paper"])
def test_the_number_of_points_rises_over_the_whole_training(row, budget):
    c = load(f"configs/{row},{budget}")
    assert c.parts["count"].steps == c.train.steps


@pytest.mark.parametrize("name", [full(name, bool(SAME.search(name))) for name in DISTINCT if name not in STEPPING])
def test_every_row_builds(name, monkeypatch):
    x = built(name, monkeypatch)  # make() evaluates the shapes of init
    params = jax.eval_shape(x.model.init, jax.random.key(0), setup.first_batch(x))
    loss, metrics = jax.eval_shape(x.model.loss, params, jax.random.key(0), setup.first_batch(x), 0)
    assert loss.shape == () and "loss" in metrics


@pytest.mark.parametrize("name", [full(name, bool(LONG.search(name))) for name in STEPS])
def test_one_row_of_each_structure_takes_a_step(name, monkeypatch):
    x = built(name, monkeypatch)
    params, frozen, _ = setup.init_params(x)
    state, fixed = init_state(params, x.tx, x.optim.ema, frozen)
    before = jax.tree.map(np.asarray, state.trained)
    step = quick_jit(make_step(x.model, x.tx, x.optim.ema))
    for _ in range(2):  # the networks below a head of zeros have no gradient in the first step
        state, metrics = step(state, fixed, setup.first_batch(x), jax.random.key(0))
        assert all(np.isfinite(value) for value in metrics.values())
    assert bool(all_finite(state))
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: np.asarray(a) != b, state.trained, before)):
        where = jax.tree_util.keystr(path)
        # A Wasserstein game compares differences of scores, in which the bias of the critic's head cancels.
        assert leaf.any() or (where == "['critic']['net']['head']['bias']" and "wgan" in name), f"{where} was not trained"
