"""What figures and commands show of continuous-time models: ways along the ODE, edited examples, what a density is of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.test_figures import image_split, looking_at, near, size
from vaeflow import data, figures
from vaeflow.diffusion.edits import EDITS, replaced
from vaeflow.diffusion.path import PATHS, Prediction, velocity
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate, latent_paths, sampling, trajectories
from vaeflow.evaluation.results import format_results
from vaeflow.figures import latents, of_edits
from vaeflow.model import Dynamics, Model
from vaeflow.runs import workdir

STD, KEY = 0.7, jax.random.key(0)


def gaussian(event: tuple[int, ...] = (2,), name: str = "ot", levels: int = 0) -> Model:
    """N(8 or 0, STD^2) data: x = (y - 8) / 4 of grey values."""
    path = PATHS[name]()
    shift, factor = (8.0, 4.0) if levels else (0.0, 1.0)

    def spread(t):
        t = jnp.asarray(t, jnp.float32)
        return jnp.sqrt(path.alpha(t) ** 2 * STD**2 + path.sigma(t) ** 2)

    def predictor(params, c):
        return lambda x, t: Prediction(path.alpha(t) * STD**2 * x / spread(t) ** 2, path.sigma(t) * x / spread(t) ** 2)

    def push(params, x):
        y = factor * x.reshape(-1, *event) + shift
        return jnp.clip(jnp.floor(y), 0, levels - 1) if levels else y

    def sample(params, key, n, context=None):
        return {"x": push(params, STD * jax.random.normal(key, (n, *event)))}

    dynamics = Dynamics(
        lambda params, y: ((y - shift) / factor, jnp.zeros(len(y))),
        push,
        lambda params, c: lambda t, x: velocity(path, t, predictor(params, c)(x, t)),
        path,
        spread,
        1e-3,
        1.0,
        event,
        predictor,
    )
    return toys.model(None, "none", sample=sample)._replace(dynamics=dynamics, event=event, levels=levels)


def editing(model: Model, kind: str) -> Model:
    """Edits of the toy: the missing coordinates are drawn whatever is known, as of independent ones."""
    known = EDITS[kind]().on(model.event or ())

    def sample(params, key, n, context=None, reference=None):
        free, shown = toys_sample(params, key, n)["x"], jnp.zeros_like(jnp.asarray(reference, jnp.float32))
        x = jnp.asarray(reference, jnp.float32)
        return {"x": jax.vmap(lambda d, x: replaced(known, d, x))(free, x), "known": jax.vmap(lambda d, x: replaced(known, d, x))(shown, x)}

    toys_sample: Any = model.sample
    return model._replace(sample=sample, edits=True)


@pytest.mark.parametrize("name, error", [("ot", 1e-3), ("vp", 1e-3), ("edm", 2e-3)])  # of edm's first step, from t = 1 to 0.15
def test_ways_along_the_ode(name, error):
    """Of a Gaussian they are x(t) = x(s) spread(t) / spread(s): encode, decode and every time in between."""
    model = gaussian(name=name)
    dynamics: Any = model.dynamics
    times = np.asarray(trajectories.visited(dynamics, 9))
    assert times[0] == np.float32(1e-3) and times[-1] == 1 and (np.diff(times) > 0).all()
    share = np.asarray(jax.vmap(dynamics.path.sigma)(times) / jax.vmap(dynamics.spread)(times))
    np.testing.assert_allclose(np.diff(np.arcsin(np.minimum(share, 1))), np.ptp(np.arcsin(np.minimum(share, 1))) / 8, rtol=0.02)
    x = toys.split(5, (2,)).x
    z = trajectories.encode(model, {}, x, None)
    np.testing.assert_allclose(z, x * dynamics.spread(1.0) / dynamics.spread(1e-3), rtol=error, atol=1e-5)
    np.testing.assert_allclose(trajectories.decode(model, {}, z, None), x, rtol=error, atol=1e-5)
    start = trajectories.source(model, {}, KEY, 4)
    found = trajectories.generate(model, {}, start, None, 9)
    assert found.data is not None and found.x.shape == found.data.shape == (9, 4, 2)
    scale = np.asarray(jax.vmap(dynamics.spread)(found.t) / dynamics.spread(1.0))[:, None, None]
    np.testing.assert_allclose(found.x, scale * np.asarray(start), rtol=error)
    np.testing.assert_allclose(found.t, times[::-1])


def test_figures_of_the_ode(tmp_path):
    plane = looking_at(gaussian(), toys.split(300, (2,)), tmp_path / "plane")
    assert near(figures.draw("trajectories", plane)[0], 5.0, 4.8)
    assert "shape" in figures.lacking("round_trips", plane) and "shape" in figures.lacking("interpolation", plane)
    model = gaussian((8, 8, 1), levels=17)
    subject = looking_at(model, image_split(), tmp_path / "images", examples=(0, 1))
    for name in ("trajectories", "round_trips", "interpolation"):
        assert not figures.lacking(name, subject) and size(figures.draw(name, subject)[0])[0] > 600
    other = looking_at(toys.gaussian_flow(), toys.split(9, (2,)), tmp_path)
    assert "ODE" in figures.lacking("trajectories", other) and "ODE" in figures.lacking("round_trips", other)


def test_interpolation_is_along_a_great_circle_of_the_source(tmp_path, monkeypatch):
    shown: list[Any] = []
    monkeypatch.setattr(latents, "picture_blocks", lambda x, path, *_, **__: (shown.append(x), path)[1])
    model = gaussian((8, 8, 1), "vp")
    split = toys.split(4, (8, 8, 1))
    figures.draw("interpolation", looking_at(model, split, tmp_path, examples=(1, 3)))
    ((table,),) = shown  # one pair: [linear and spherical, data and 11 places and data, 8, 8, 1]
    places = np.linspace(0, 1, 11)
    for row, way in enumerate((latent_paths.lerp, latent_paths.slerp)):  # the ODE of a Gaussian only scales
        want = way(split.x[1].ravel(), split.x[3].ravel(), places).reshape(11, 8, 8, 1)
        np.testing.assert_allclose(table[row, 1:-1], want, rtol=2e-3, atol=2e-4)
    np.testing.assert_array_equal(table[0, [0, -1]], split.x[[1, 3]])


def test_what_draws_of_edits_are_given(tmp_path):
    """References of the test split, several draws each; of each class in turn where there are classes."""
    c: Any = SimpleNamespace(data=toys.sections().data, seed=0)
    c.data.update(kind="density", name="moons", size=500)
    model = editing(gaussian(), "right")
    test = data.load(c.data, 0).split("test")
    found = sampling.conditions(tmp_path, c, model, 30, load=lambda: data.load(c.data, 0))
    np.testing.assert_array_equal(found["reference"], np.repeat(np.asarray(test.x)[:4], sampling.EDITED, 0)[:30])
    drawn = sampling.draw(model, {}, KEY, 30, found)
    np.testing.assert_array_equal(drawn["x"][:, 0], found["reference"][:, 0])
    assert np.abs(drawn["x"][:, 1] - found["reference"][:, 1]).min() > 1e-6
    c.data.context = "label"
    workdir.write_json(tmp_path / "data.json", data.summary(data.load(c.data, 0)))
    found = sampling.conditions(tmp_path, c, model, 20, load=lambda: data.load(c.data, 0))
    np.testing.assert_array_equal(found["label"], [0] * 8 + [1] * 8 + [0] * 4)
    for k, row in enumerate((0, 8)):
        np.testing.assert_array_equal(found["reference"][row], np.asarray(test.x)[np.asarray(test.label) == k][0])
    assert set(sampling.given_of(test)) == {"reference"} and found["context"].shape == (20, 2)


def test_figures_of_edits(tmp_path, monkeypatch):
    model = editing(gaussian(), "left")
    plane = looking_at(model, toys.split(300, (2,)), tmp_path / "plane")
    seen: list[Any] = []
    monkeypatch.setattr(of_edits, "conditionals", lambda *values, own=of_edits.conditionals: (seen.append(values), own(*values))[1])
    assert near(figures.draw("edits", plane)[0], 8.4, 4.2)
    _, x, drawn, coordinate, density, _ = seen[0]
    assert coordinate == 1 and density is None and drawn.shape == (4, 1000, 2) and (np.diff(x[:, 1]) > 0).all()
    np.testing.assert_array_equal(drawn[:, :, 1], np.broadcast_to(x[:, None, 1], (4, 1000)))
    pictures = editing(gaussian((8, 8, 1), levels=17), "super_resolve")
    assert size(figures.draw("edits", looking_at(pictures, image_split(), tmp_path / "images"))[0])[0] > 600
    assert "edits shows these samples" in figures.lacking("samples", plane)
    assert "edited" in figures.lacking("edits", looking_at(gaussian(), toys.split(9, (2,)), tmp_path))


def test_the_conditional_of_a_density_on_a_grid():
    xs, ys = np.linspace(-4, 4, 161), np.linspace(-5, 5, 201)
    rho, grid = 0.6, np.meshgrid(xs, ys)
    log_p = -(grid[0] ** 2 - 2 * rho * grid[0] * grid[1] + grid[1] ** 2) / (2 * (1 - rho**2))
    density = of_edits.GridDensity(xs, ys, log_p)
    for coordinate in (0, 1):
        at, p = of_edits._conditional(density, coordinate, 0.52)
        want = np.exp(-((at - rho * 0.52) ** 2) / (2 * (1 - rho**2))) / np.sqrt(2 * np.pi * (1 - rho**2))
        np.testing.assert_allclose(p, want, atol=2e-3)


def test_results_say_what_the_density_is_of():
    model = toys.gaussian_flow()._replace(remark="of x_t at t = 0.001")
    split = toys.split(20, (2,))
    options = toys.sections()
    options.data.update(kind="density", name="moons")
    options.model = {"kind": "toy"}
    options.eval.update(measures=("likelihood",), batch=20)
    found, _ = evaluate.measured(model, {}, toys.source(split), "test", options)
    text = format_results(found)
    assert "NLL (exact, of x_t at t = 0.001)" in text and "density: exact log-likelihood, of x_t at t = 0.001" in text
    assert found["measures"]["likelihood"]["numbers"]["estimator"]["value"] == "exact, of x_t at t = 0.001"
    bound, _ = evaluate.measured(model._replace(density="bound"), {}, toys.source(split), "test", options)
    assert "upper bound on the NLL (of x_t at t = 0.001)" in format_results(bound)
    plain, _ = evaluate.measured(model._replace(remark=""), {}, toys.source(split), "test", options)
    assert "NLL (exact)" in format_results(plain) and "remark" not in plain


def test_an_edit_that_does_not_fit_is_one_line():
    with pytest.raises(UserError, match="three channels"):
        editing(gaussian((8, 8, 1)), "colorize")
