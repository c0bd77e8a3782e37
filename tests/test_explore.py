"""What a person sees of a run: paths through its latent space, what its dimensions carry, the views of the command."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.commands import call, refusal
from tests.runs import SMALL
from tests.test_figures import image_split, near, rows, size
from vaeflow import elbo, figures, latent_paths, latent_space, views, workdir
from vaeflow.data import Split
from vaeflow.figures import curves, latents
from vaeflow.latent_space import Space
from vaeflow.model import Latent, Model

T = np.linspace(0, 1, 7)
KEY = jax.random.key(0)


def fabricated(z: np.ndarray, **changes: Any) -> Space:
    """The space of draws z [M, D] whose prior is the same."""
    size = z.shape[1]
    fields = dict(z=z, prior=z, normal=None, variance=z.var(0), kl=1.0, kl_per_dim=None, kl_per_level=None, sizes=(size,), width=0)
    return Space(**(fields | dict(shape=(size,)) | changes))


def one_hots(m: int, variables: int, categories: int) -> np.ndarray:
    return np.eye(categories)[np.random.default_rng(0).integers(categories, size=(m, variables))].reshape(m, -1)


def looking_at(model: Model, split: Split, folder: Path, **changes: Any) -> views.Run:
    """A view's Run of a toy model."""
    source, config = toys.source(split, 17), toys.config(levels=17)
    space = cache(lambda: figures.find_space(model, {}, split, source, config))
    run = views.Run(folder, folder, model, {}, config, source, "test", split, (), 0, -1, space)
    return run._replace(**changes)


@pytest.fixture
def drawn(monkeypatch) -> list[Any]:
    """The pictures that a view draws."""
    found: list[Any] = []
    for name in ("picture_table", "picture_blocks"):
        monkeypatch.setattr(latents, name, lambda x, path, *_, **__: (found.append(x), path)[1])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("explore") / "run"
    call("train", *SMALL, "--config.train.steps=10", "--config.train.log_every=5", f"--workdir={workdir}")
    return workdir


def test_slerp_is_the_great_circle():
    """In the plane of a and b, at the angle t w from a, with the norm between theirs; from a to b."""
    a, b = np.random.default_rng(1).normal(size=(2, 5))
    first = a / np.linalg.norm(a)
    second = b - first * (first @ b)
    second /= np.linalg.norm(second)
    angle = T * np.arctan2(second @ b, first @ b)
    norm = np.linalg.norm(a) + T * (np.linalg.norm(b) - np.linalg.norm(a))
    expected = norm[:, None] * (np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second)
    np.testing.assert_allclose(latent_paths.slerp(a, b, T), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(latent_paths.slerp(a, b, T)[[0, -1]], [a, b], rtol=1e-12)
    np.testing.assert_allclose(latent_paths.lerp(a, b, T)[[0, 3, -1]], [a, (a + b) / 2, b], rtol=1e-12)
    assert (np.linalg.norm(latent_paths.lerp(a, b, T), axis=1)[1:-1] < norm[1:-1]).all()


@pytest.mark.parametrize("b", [2.0, -2.0, 0.0, 1 + 1e-9])
def test_slerp_between_parallel_vectors_is_the_straight_line(b):
    a = np.random.default_rng(2).normal(size=4)
    np.testing.assert_array_equal(latent_paths.slerp(a, b * a, T), latent_paths.lerp(a, b * a, T))


def test_slerp_of_a_small_angle_is_exact():
    """1e-4: the arc cosine of the vectors' product in float32 would give 0 or 3.5e-4."""
    middle = latent_paths.slerp(np.float32([1, 0]), np.float32([1, 1e-4]), np.array([0.5]))[0]
    assert middle[1] / middle[0] == pytest.approx(0.5e-4, rel=1e-6)


def test_a_sweep_holds_the_other_coordinates():
    space = fabricated(np.random.default_rng(0).normal(2, 3, size=(500, 4)))
    z, deviations = space.z[7], np.linspace(-3, 3, 13)
    found = latent_paths.sweep(space, z, np.array([2, 0]), deviations)
    for row, d in enumerate((2, 0)):
        np.testing.assert_array_equal(np.delete(found.z[row], d, -1), np.broadcast_to(np.delete(z, d), (13, 3)))
        np.testing.assert_allclose(found.z[row, :, d], space.z[:, d].mean() + deviations * space.z[:, d].std())
        assert found.own[row] == np.abs(found.z[row, :, d] - z[d]).argmin()
    assert found.names[:2] == ["-3", "-2.5"]
    exact = space._replace(normal=(np.ones(4), np.full(4, 2.0)))
    np.testing.assert_allclose(latent_paths.sweep(exact, z, np.array([1]), deviations).z[0, [0, -1], 1], [-5, 7])


@pytest.mark.parametrize("kind", ["bits", "one-hots", "codes"])
def test_a_discrete_variable_is_set_to_each_category(kind):
    random = np.random.default_rng(0)
    bits, codes = random.integers(2, size=(300, 6)).astype(float), random.geometric(0.2, (300, 5))
    z, width, count = {"bits": (bits, 1, 2), "one-hots": (one_hots(300, 4, 3), 3, 3), "codes": (codes, 1, 13)}[kind]
    assert latent_space._width(z) == width
    space = fabricated(z, width=width)
    found = latent_paths.sweep(space, z[0], np.array([1, 3]), np.zeros(13))
    same = found.z.reshape(2, len(found.names), -1, width)
    for row, v in enumerate((1, 3)):
        held = np.delete(z[0].reshape(-1, width), v, 0)
        np.testing.assert_array_equal(np.delete(same[row], v, 1), np.broadcast_to(held, (len(found.names), *held.shape)))
        flipped = latent_space.categories(space, found.z[row])[:, v]
        assert list(map(str, flipped)) == found.names
        assert found.own[row] == (list(flipped).index(c) if (c := latent_space.categories(space, z[:1])[0, v]) in flipped else -1)
    assert len(found.names) == count and found.z.dtype == z.dtype


def test_the_space_of_a_linear_gaussian_vae():
    """KL and variance by their formulas; the second unit carries nothing; the prior is N(0, I)."""
    model, split = toys.linear_gaussian(), toys.split(40)
    space = latent_space.space(model, {}, split, KEY, batch=16)
    q = model.latent.posterior({}, split.x)
    mean, std = np.asarray(q.mean()), np.asarray(q.stddev())
    np.testing.assert_allclose(space.kl_per_dim, (0.5 * (mean**2 + std**2 - 1) - np.log(std)).mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(space.variance, mean.var(0, ddof=1), rtol=1e-5, atol=1e-12)
    assert space.z.shape == space.prior.shape == (40 * 125, 2) and space.width == 0 and space.sizes == space.shape == (2,)
    np.testing.assert_array_equal(space.normal, [[0, 0], [1, 1]])
    np.testing.assert_allclose(space.z.var(0), mean.var(0) + (std**2).mean(0), rtol=0.1)
    assert latent_space.most_active(space, 5).tolist() == [0, 1] and space.variance[1] < elbo.ACTIVE < space.variance[0]
    gap = latent_space.mismatch(space.prior, space.z)
    assert gap[1] < 0.06 < gap[0]
    np.testing.assert_allclose(latent_space.mismatch(space.z, space.z + [0.5, -2]), [0.5, 2], rtol=1e-5)


def test_levels_have_names_and_rows_of_their_own():
    z = np.random.default_rng(0).normal(size=(200, 5)) * [1, 3, 1, 5, 2]
    space = fabricated(z, sizes=(2, 3))
    assert latent_space.most_active(space, 4).tolist() == [1, 0, 3, 4]
    assert latent_space.names(space, np.array([1, 3])) == ["$z_{1,2}$", "$z_{2,2}$"]
    assert latent_space.names(space._replace(sizes=(5,)), np.array([1, 3])) == ["$z_{2}$", "$z_{4}$"]
    codes = fabricated(np.stack([np.zeros(8), np.arange(8)], 1).astype(int), variance=None, width=1)
    np.testing.assert_allclose(latent_space.activity(codes)[0], [0, np.log(8)])


def test_every_kind_of_space_is_drawn(tmp_path):
    """A hierarchy, more dimensions than have names, bits, one-hot vectors, codes."""
    z = np.random.default_rng(0).normal(size=(300, 60)) * np.geomspace(0.01, 2, 60)
    hierarchy = fabricated(z, sizes=(20, 40), kl_per_level=np.array([3.0, 1.0]))
    codes = fabricated(np.random.default_rng(0).integers(9, size=(300, 7)), variance=None, width=1, kl_per_level=np.ones(7), sizes=(1,) * 7)
    for name, space in {"levels": hierarchy, "hot": fabricated(one_hots(300, 4, 3), width=3), "codes": codes}.items():
        found = [*figures.draw_kl(space, tmp_path / name), *figures.draw_prior(space, tmp_path / name)]
        assert [path.stem for path in found] == [*["kl_levels"] * (name != "hot"), *["kl"] * (name != "codes"), "prior"]
        assert all(size(path)[0] > 600 for path in found)
    assert near(tmp_path / "levels" / "prior.png", 2.5 * 4 + 0.3, 2.0 * 3 + 0.7)


def test_the_plane_of_several_runs(tmp_path):
    odd = [{"step": 1, "split": "val", "recon": float("nan"), "kl": 1.0}, {"step": 2, "split": "val", "loss": 1.0}]
    runs = {f"run {i}": rows(val=i % 2 == 0) for i in range(9)} | {"without": rows(latent=False), "odd": odd}
    path = figures.draw_planes(runs, tmp_path / "plane.png")
    assert path is not None and near(path, 7.0, 5.0)
    assert figures.draw_planes({"without": rows(latent=False), "odd": odd}, tmp_path / "none.png") is None
    assert curves._path(rows(), "val") is not None and curves._path([*odd, *rows(3)], "val") is None  # one row of three has both


def test_views_show_the_example_and_its_context(tmp_path, drawn):
    """A decoder that adds the context to its first latent: rows, columns, held latents and contexts can be read off the pictures."""
    base = toys.linear_gaussian(event=(8, 8, 1))
    assert base.latent is not None

    def likelihood(params, z, context):
        mean = z[..., :1] + 10 * context[..., :1]
        return distrax.Independent(distrax.Normal(jnp.broadcast_to(mean[..., None, None], (*z.shape[:-1], 8, 8, 1)), 1.0), 3)

    model = base._replace(latent=Latent(base.latent.prior, lambda params, x, context: base.latent.posterior(params, x), likelihood))
    split = image_split()
    split = split._replace(context=np.arange(30, dtype=np.float32)[:, None])
    run = looking_at(model, split, tmp_path, examples=(4, 9))
    assert [path.name for path in views.VIEWS["traversals"](run)] == ["traversals_4.png", "traversals_9.png"]
    first = latent_space.most_active(run.space(), 2).tolist().index(0)
    z = np.asarray(base.latent.posterior({}, split.x[[4, 9]]).mean())
    for x, i, own in zip(drawn, (4, 9), z, strict=True):
        np.testing.assert_allclose(
            x[first, :, 0, 0, 0], np.linspace(-3, 3, 13) + 10 * i, rtol=1e-5
        )  # the first latent goes, the context stays
        np.testing.assert_allclose(x[1 - first, :, 0, 0, 0], own[0] + 10 * i, rtol=1e-5)  # the second one goes
    drawn.clear()
    views.VIEWS["interpolation"](run)
    (table,) = drawn[0]
    for row in (0, 1):
        np.testing.assert_array_equal(table[row, [0, -1]], split.x[[4, 9]])
        np.testing.assert_allclose(table[row, [1, -2], 0, 0, 0], z[:, 0] + [40, 90], rtol=1e-5)
    np.testing.assert_allclose(table[0, 6, 0, 0, 0], z[:, 0].mean() + 65, rtol=1e-5)


def test_pairs_are_of_different_classes(tmp_path):
    run = looking_at(toys.linear_gaussian(event=(8, 8, 1)), image_split(), tmp_path)
    label, pairs = run.split.label, views._pairs(run)
    assert label is not None and len(pairs) == 4 and len({i for pair in pairs for i in pair}) == 8
    assert all(label[i] != label[j] for i, j in pairs) and views._pairs(run._replace(seed=1)) != pairs == views._pairs(run)


def test_what_does_not_apply_is_one_line(tmp_path):
    flow = looking_at(toys.gaussian_flow(), toys.split(30, (2,)), tmp_path)
    vector = looking_at(toys.linear_gaussian(), toys.split(30), tmp_path)
    pictures = looking_at(toys.linear_gaussian(event=(8, 8, 1)), image_split(), tmp_path)
    codes = pictures._replace(space=lambda: fabricated(one_hots(9, 2, 3).astype(int), variance=None, width=3))
    lines = {}
    for kind, run, names in (
        ("flow", flow, ("traversals", "interpolation", "manifold", "scatter", "kl", "prior")),
        *(("vector", vector, ("traversals", "interpolation", "manifold", "temperatures")), ("codes", codes, ("kl", "interpolation"))),
        ("odd", pictures._replace(examples=(3, 4, 5)), ("interpolation",)),
        ("given", pictures._replace(split=pictures.split._replace(context=np.ones((30, 1)))), ("manifold",)),
    ):
        for name in names:
            with pytest.raises(views.Inapplicable) as refused:
                views.VIEWS[name](run)
            lines[kind, name] = str(refused.value)
    assert all(line.startswith(f"{name}: needs ") and "\n" not in line for (_, name), line in lines.items())
    assert "latent variable" in lines["flow", "kl"] and "(3,)" in lines["vector", "traversals"]
    assert "(3,)" in lines["vector", "temperatures"] and "even number" in lines["odd", "interpolation"]
    assert not list(tmp_path.iterdir())


def test_everything_of_a_run(run, tmp_path):
    """All views of a VAE of two latents, each a picture of a sensible size; a single example is no pair."""
    text = call("explore", f"--workdir={run}", "--examples=3")
    shown = [Path(line) for line in text.splitlines() if line.endswith(".png")]
    names = ["traversals_3", "manifold", "scatter", "kl", "prior", "prior_plane", "temperatures", "plane"]
    assert [path.stem for path in shown] == names and {path.parent for path in shown} == {run / "explore"}
    (said,) = [line for line in text.splitlines() if not line.endswith(".png")]
    assert said == "interpolation: needs an even number of --examples, each two a pair, and here are 1"
    assert all(min(size(path)) > 200 and 500 < max(size(path)) < 2000 for path in shown)
    text = call("explore", run, "--show=interpolation,scatter", "--split=val", "--seed=1", f"--output={tmp_path}")
    assert text.split() == [f"{tmp_path / name}.png" for name in ("interpolation", "scatter")]
    assert near(tmp_path / "interpolation.png", 0.5 * 13 + 0.07 * len("spherical") + 0.2, 4 * 1.3 + 0.42)


def test_samples_at_temperatures_have_the_same_noise(run, drawn):
    call("explore", f"--workdir={run}", "--show=temperatures", "--seed=5")
    (x,) = drawn
    assert x.shape == (len(views.TEMPERATURES), 12, 8, 8, 1)
    np.testing.assert_allclose(x[0], np.broadcast_to(x[0, :1], x[0].shape), atol=1e-5)  # the middle of the prior
    model, params, _ = workdir.load(run)
    np.testing.assert_allclose(x[views.TEMPERATURES.index(1.0)], model.sample(params, jax.random.key(5), 12), atol=1e-3)


def test_several_runs_and_what_is_refused(run, tmp_path):
    words = ("--show=plane", f"--workdir={run}", run.parent / "run", f"--output={tmp_path}")
    assert call("explore", *words).split() == [f"{tmp_path / 'plane.png'}"]
    size(tmp_path / "plane.png")
    for words, held in (
        ([], ["there is no run", "--workdir"]),
        ([run, run.parent, "--show=kl"], ["--show=kl", "2 are named", "plane"]),
        ([run, "--show=traversal"], ["--show='traversal' is unknown", "did you mean 'traversals'", "manifold", "plane", "temperatures"]),
        ([run, "--examples=3,x"], ["'3,x' is no list of numbers"]),
        ([run, "--examples=3,300"], ["--examples=300", "test split", "0 to 299"]),
        ([run, "--seed=-1"], ["--seed=-1", ">= 0"]),
        ([run, "--label=3"], ["--label=3", "data.context='none'"]),
        ([run, "--show=interpolation", "--examples=3"], ["interpolation: needs an even number"]),
        ([run, "--config.model.latent=3"], ["config.model.latent", "config.eval.*"]),
        ([tmp_path], [f"workdir={tmp_path}", "no config.json"]),
    ):
        line = refusal("explore", *words)
        assert all(part in line for part in held), line
