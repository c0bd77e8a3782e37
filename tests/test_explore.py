"""`explore`: the figures of latent spaces, what they show, what does not apply, the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import distrax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.commands import call, refusal, train_only
from tests.runs import SMALL
from tests.test_figures import image_split, looking_at, near, pictures, rows, size
from tests.test_latent_space import fabricated, one_hots
from vaeflow import figures, rng
from vaeflow.errors import UserError
from vaeflow.evaluation import latent_space
from vaeflow.evaluation.sampling import draw
from vaeflow.figures import FIGURES, Figure, Subject, curves, latents
from vaeflow.figures.canvas import canvas
from vaeflow.figures.of_paths import _pairs
from vaeflow.figures.of_samples import TEMPERATURES
from vaeflow.model import Latent
from vaeflow.run import load_run


@pytest.fixture
def drawn(monkeypatch) -> list[Any]:
    """The pictures that a figure draws."""
    found: list[Any] = []
    for name in ("picture_table", "picture_blocks"):
        monkeypatch.setattr(latents, name, lambda x, path, *_, **__: (found.append(x), path)[1])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("explore") / "run"
    train_only(*SMALL, "--config.train.steps=10", "--config.train.log_every=5", f"--workdir={workdir}")
    return workdir


def test_every_kind_of_space_is_drawn(tmp_path):
    """A hierarchy, more dimensions than have names, bits, one-hot vectors, codes."""
    z = np.random.default_rng(0).normal(size=(300, 60)) * np.geomspace(0.01, 2, 60)
    hierarchy = fabricated(z, sizes=(20, 40), kl_per_level=np.array([3.0, 1.0]))
    codes = fabricated(np.random.default_rng(0).integers(9, size=(300, 7)), variance=None, width=1, sizes=(1,) * 7)
    for name, space in {"levels": hierarchy, "hot": fabricated(one_hots(300, 4, 3), width=3), "codes": codes}.items():
        subject = looking_at(pictures(), image_split(), tmp_path / name)._replace(space=lambda space=space: space)
        found = [path for figure in ("kl", "prior") for path in figures.draw(figure, subject)]
        assert [path.stem for path in found] == [*["kl_levels"] * (name == "levels"), *["kl"] * (name != "codes"), "prior"]
        assert all(size(path)[0] > 600 for path in found)
    assert near(tmp_path / "levels" / "prior.png", 2.5 * 4 + 0.3, 2.0 * 3 + 0.7)


def test_the_plane_of_several_runs(tmp_path):
    odd = [{"step": 1, "split": "val", "recon": float("nan"), "kl": 1.0}, {"step": 2, "split": "val", "loss": 1.0}]
    runs = {f"run {i}": rows(val=i % 2 == 0) for i in range(9)} | {"without": rows(latent=False), "odd": odd}
    path = curves.recon_kl_runs(runs, tmp_path / "recon_kl.png")
    assert path is not None and near(path, 7.0, 5.0)
    assert curves.recon_kl_runs({"without": rows(latent=False), "odd": odd}, tmp_path / "none.png") is None
    assert curves.recon_kl_path(rows(), "val") is not None
    assert curves.recon_kl_path([*odd, *rows(3)], "val") is None  # one row of three has both


def shows_both(params, z, context):
    """p(x|z, c): the picture's first pixel is z_1 + 10 c, the others are z_2."""
    first = jnp.arange(64) == 0
    mean = jnp.where(first, z[..., :1] + 10 * context[..., :1], z[..., 1:])
    return distrax.Independent(distrax.Normal(mean.reshape(*z.shape[:-1], 8, 8, 1), 1.0), 3)


def shows_the_first(params, z, context):
    return shows_both(params, jnp.repeat(z[..., :1], 2, -1), context)


@pytest.fixture
def given(tmp_path) -> Subject:
    """A run that is asked about its examples 4 and 9, whose contexts these numbers are, with `shows_both` as the decoder."""
    base = pictures()
    assert base.latent is not None
    posterior = base.latent.posterior
    model = base._replace(latent=Latent(base.latent.prior, lambda params, x, context: posterior(params, x), shows_both))
    split = image_split()._replace(context=np.arange(30, dtype=np.float32)[:, None])
    return looking_at(model, split, tmp_path, examples=(4, 9))


def test_paths_show_the_example_and_its_context(given, drawn):
    """Rows, columns, what is held and the contexts can be read off the pictures."""
    assert [path.name for path in figures.draw("traversals", given)] == ["traversals_4.png", "traversals_9.png"]
    picked = latent_space.most_active(given.space(), 2).tolist()
    z = np.asarray(given.run.model.latent.posterior({}, given.run.split.x[[4, 9]], None).mean())
    deviations = np.linspace(-3, 3, 13)
    for x, i, own in zip(drawn, (4, 9), z, strict=True):
        one, two = x[picked.index(0), ..., 0], x[picked.index(1), ..., 0]
        np.testing.assert_allclose(one[:, 0, 0], deviations + 10 * i, rtol=1e-5)
        np.testing.assert_allclose(one[:, 7, 7], own[1], rtol=1e-5)
        np.testing.assert_allclose(two[:, 0, 0], own[0] + 10 * i, rtol=1e-5)
        np.testing.assert_allclose(two[:, 7, 7], deviations, rtol=1e-5)
    drawn.clear()
    figures.draw("interpolation", given)
    (table,) = drawn[0]
    for row in (0, 1):
        np.testing.assert_array_equal(table[row, [0, -1]], given.run.split.x[[4, 9]])
        np.testing.assert_allclose(table[row, [1, -2], 0, 0, 0], z[:, 0] + [40, 90], rtol=1e-5)
    np.testing.assert_allclose(table[0, 6, 0, 0, 0], z[:, 0].mean() + 65, rtol=1e-5)


def test_latents_that_the_decoder_does_not_read_are_left_out(given, drawn):
    model = given.run.model
    blind = given._replace(run=given.run._replace(model=model._replace(latent=model.latent._replace(likelihood=shows_the_first))))
    figures.draw("traversals", blind)
    assert [x.shape for x in drawn] == [(1, 13, 8, 8, 1)] * 2


def test_pairs_are_of_different_classes(tmp_path):
    subject = looking_at(pictures(), image_split(), tmp_path)
    label, pairs = subject.run.split.label, _pairs(subject)
    assert label is not None and len(pairs) == 4 and len({i for pair in pairs for i in pair}) == 8
    assert all(label[i] != label[j] for i, j in pairs) and _pairs(subject._replace(seed=1)) != pairs == _pairs(subject)


def test_what_does_not_apply_is_one_line(tmp_path):
    base, split = pictures(), image_split()
    assert base.latent is not None

    def codes(params, x, context=None):
        return distrax.Independent(distrax.Categorical(jnp.zeros((len(x), 4, 3))), 1)

    coded = looking_at(base._replace(latent=base.latent._replace(posterior=codes, discrete=True)), split, tmp_path)
    wide = base.latent._replace(prior=lambda params, context=None: distrax.MultivariateNormalDiag(jnp.zeros(3), jnp.ones(3)))
    mixed = base.latent._replace(prior=lambda params, context=None: distrax.Independent(distrax.Laplace(jnp.zeros(2), 1.0), 1))
    subjects = dict(
        flow=looking_at(toys.gaussian_flow(), toys.split(30, (2,)), tmp_path),
        vector=looking_at(toys.linear_gaussian(), toys.split(30), tmp_path),
        codes=coded,
        odd=looking_at(base, split, tmp_path, examples=(3, 4, 5)),
        conditional=looking_at(base, split._replace(context=np.ones((30, 1))), tmp_path),
        wide=looking_at(base._replace(latent=wide), split, tmp_path),
        laplace=looking_at(base._replace(latent=mixed), split, tmp_path),
    )
    of_latents = "reconstructions", "latents", "manifold", "kl", "prior", "prior_hole", "traversals", "interpolation"
    for kind, names, held in (
        ("flow", of_latents, "no latent variable"),
        ("flow", ("samples",), "density shows these samples"),
        ("flow", ("marginals",), "(2,)"),
        ("vector", ("reconstructions", "manifold", "traversals", "interpolation"), "pictures, and these examples have the shape (3,)"),
        ("vector", ("samples", "temperatures", "density"), "(3,)"),
        ("vector", ("prior_hole",), "second stage"),
        ("codes", ("latents", "kl"), "codes"),
        ("codes", ("interpolation",), "discrete"),
        ("odd", ("interpolation",), "even number of --examples (each two are a pair), not 3"),
        ("conditional", ("manifold",), "without a context"),
        ("wide", ("manifold",), "two latents, and this model has 3"),
        ("laplace", ("manifold",), "Gaussian prior"),
    ):
        for name in names:
            why = figures.lacking(name, subjects[kind])
            assert held in why and "\n" not in why, (kind, name, why)
    assert not list(tmp_path.iterdir())


def test_everything_of_a_run(run, tmp_path):
    """All figures of a VAE of two latents, each a picture of a sensible size; a single example is no pair."""
    text = call("explore", f"--workdir={run}", "--examples=3")
    shown = [Path(line) for line in text.splitlines() if line.endswith(".png")]
    names = ["curves", "recon_kl", "samples", "reconstructions", "latents", "manifold", "kl"]
    names += ["prior", "prior_plane", "traversals_3", "temperatures"]
    assert [path.stem for path in shown] == names and {path.parent for path in shown} == {run / "explore"}
    first, *left = [line for line in text.splitlines() if not line.endswith(".png")]
    assert first.startswith(f"exploring {run}: configs/digits_vae.py")
    assert [line.split(": ")[:2] for line in left] == [
        ["not drawn", n]
        for n in ("text", "marginals", "density", "pairs", "trajectories, round_trips", "edits", "prior_hole", "interpolation")
    ]
    assert left[-1] == "not drawn: interpolation: needs an even number of --examples (each two are a pair), not 1"
    assert all(min(size(path)) > 200 and 500 < max(size(path)) < 2000 for path in shown)
    text = call("explore", run, "--show=interpolation,latents", "--split=val", "--seed=1", f"--output={tmp_path}")
    assert text.splitlines()[1:] == [f"{tmp_path / name}.png" for name in ("interpolation", "latents")]
    assert near(tmp_path / "interpolation.png", 0.5 * 13 + 0.07 * len("spherical") + 0.2, 4 * 1.3 + 0.42)


def test_samples_at_temperatures_have_the_same_noise(run, drawn):
    call("explore", f"--workdir={run}", "--show=temperatures", "--seed=5")
    (x,) = drawn
    assert x.shape == (len(TEMPERATURES), 12, 8, 8, 1)
    np.testing.assert_allclose(x[0], np.broadcast_to(x[0, :1], x[0].shape), atol=1e-5)  # the middle of the prior
    model, params, _ = load_run(run)
    np.testing.assert_allclose(x[TEMPERATURES.index(1.0)], draw(model, params, rng.figure_key(5), 12)["x"], atol=1e-3)


def test_several_runs_and_what_is_refused(run, tmp_path):
    words = ("--show=recon_kl", f"--workdir={run}", run.parent / "run", f"--output={tmp_path}")
    assert call("explore", *words).splitlines()[2:] == [f"{tmp_path / 'recon_kl.png'}"]
    size(tmp_path / "recon_kl.png")
    for words, held in (
        ([], ["there is no run", "--workdir"]),
        ([run, run.parent, "--show=kl"], ["--show=kl", "2 are named", "recon_kl"]),
        ([run, "--show=traversal"], ["--show='traversal' is unknown", "did you mean 'traversals'", "manifold", "recon_kl", "temperatures"]),
        ([run, "--examples=3,x"], ["'3,x' is no list of numbers"]),
        ([run, "--examples=3,300"], ["--examples=300", "test split", "0 to 299"]),
        ([run, "--seed=-1"], ["--seed=-1", ">= 0"]),
        ([run, "--label=3"], ["--label=3", "data.context='none'"]),
        ([run, "--show=interpolation", "--examples=3"], ["--show=interpolation does not apply to", "an even number"]),
        ([run, "--config.model.latent=3"], ["config.model.latent", "config.eval.*"]),
        ([tmp_path], [f"workdir={tmp_path}", "no config.json"]),
    ):
        line = refusal("explore", *words)
        assert all(part in line for part in held), line


def test_a_registered_figure_is_drawn_and_listed(run, monkeypatch):
    def draw_toy(subject: Subject) -> list[Path]:
        with canvas(subject.path("toy"), 2, 2) as figure:
            figure.subplots().plot(subject.rows[0]["loss"], 0, "o")
        return [subject.path("toy")]

    def needs_test(subject: Subject) -> None:
        if subject.run.name != "test":
            raise UserError("needs the test split")

    monkeypatch.setitem(FIGURES, "toy", Figure(draw_toy, needs_test, "a toy"))
    assert call("explore", run, "--show=toy").splitlines()[1:] == [str(run / "explore" / "toy.png")]
    assert near(run / "explore" / "toy.png", 2, 2)
    assert "needs the test split" in refusal("explore", run, "--show=toy", "--split=val")
    lines = call("explore", "--list").splitlines()
    assert [line.split()[0] for line in lines] == [*FIGURES] and lines[-1].endswith("a toy")
