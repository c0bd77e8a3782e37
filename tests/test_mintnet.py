"""MintNet beyond the laws: the Jacobian's zeros, its diagonal in closed form, an inversion that plain Newton steps fail."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import perturbed, quick_jit, relative
from vaeflow.bijectors.core.solve import newton
from vaeflow.bijectors.mintnet import guarded, mintnet
from vaeflow.errors import UserError
from vaeflow.nets.masked_conv import masks, triangular

OPTIONS: dict[str, Any] = dict(copies=3, kernel=3, flip=False, cap=2.0, tolerance=0.0)


def test_the_jacobian_is_triangular_in_raster_order_with_exact_zeros():
    shape = (3, 4, 2)
    x = jax.random.normal(jax.random.key(0), (1, *shape))
    for flip in (False, True):
        layer = mintnet(**{**OPTIONS, "flip": flip})
        params = perturbed(layer.init(jax.random.key(1), x), 0.3)

        @quick_jit
        def run(params, x, layer=layer):
            bijector = layer.bijector(params)
            jacobian = jax.jacrev(lambda h: jnp.asarray(bijector.inverse(h[None]))[0])(x[0])
            return jacobian.reshape(24, 24), jnp.asarray(bijector.inverse_and_log_det(x)[1])[0]

        jacobian, log_det = (np.asarray(a) for a in run(params, x))
        lower = jacobian[::-1, ::-1] if flip else jacobian
        assert np.array_equal(lower, np.tril(lower)), f"flip={flip}: entries above the diagonal"
        assert (np.diagonal(lower) > 0).all()
        # Every earlier channel of the pixel and of its left neighbour is seen, so is the pixel to the upper right.
        assert lower[1, 0] and lower[2, 0] and lower[2, 1] and lower[8, 2]
        assert np.log(np.diagonal(lower)).sum() == pytest.approx(log_det, abs=1e-4)


def test_masks_and_diagonal_of_copies():
    free, diagonal = masks(3, (2, 3), 2)
    assert free.shape == diagonal.shape == (2, 3, 4, 6)
    assert free[0].all() and free[1, 0].all() and not free[1, 2].any() and not (free & diagonal).any()
    raw = jax.random.normal(jax.random.key(0), free.shape)
    kernel, slopes = triangular(raw, (2, 3), 2, jnp.exp)
    assert np.array_equal(np.asarray(slopes) > 0, np.tile(np.eye(2, dtype=bool), (2, 3)))
    assert np.array_equal(np.asarray(kernel) != 0, free | diagonal)
    assert relative(slopes[2, 4], jnp.exp(raw[1, 1, 2, 4]) / 2) < 1e-6


def steep(shape, copies: int = 2):
    """(layer, params) whose z is about 0.14 x + 50 tanh(7 tanh(7 x)), besides what earlier entries add."""
    layer = mintnet(**{**OPTIONS, "copies": copies})
    params = layer.init(jax.random.key(1), jnp.zeros((1, *shape)))
    for i, pair in enumerate(((1, copies), (copies, copies), (copies, 1))):
        diagonal = masks(3, pair, shape[-1])[1]
        params[f"conv_{i}"]["kernel"] = jnp.where(diagonal, 20.0, params[f"conv_{i}"]["kernel"])
    return layer, params | {"log_scale": jnp.full(shape[-1], -20.0)}


def test_inversion_where_plain_steps_overshoot():
    shape = (6, 6, 2)
    layer, params = steep(shape)
    x = jax.random.normal(jax.random.key(2), (16, *shape))
    run = quick_jit(lambda p, x: layer.bijector(p).inverse_and_log_det(x))
    z, log_det = run(params, x)
    back, back_log_det = quick_jit(lambda p, z: layer.bijector(p).forward_and_log_det(z))(params, z)
    # z is flat where tanh saturates: float32 leaves x an error of eps |z| / slope there, so z is what must come back.
    assert relative(run(params, back)[0], z) < 1e-4
    assert bool(jnp.all(jnp.isfinite(back_log_det))) and bool(jnp.all(jnp.isfinite(log_det)))


def scalar(given, x):
    """f of one number per entry with the bounds 0.1 and 10.1, as `guarded` needs it."""
    y = jnp.tanh(x)
    return given.slope * x + 10 * y, jnp.log(given.slope + 10 * (1 - y**2))


class Given(tuple):
    """`bounds` for `scalar`."""

    slope = 0.1

    def bounds(self):
        return jnp.array(0.1), jnp.array(10.1)


def test_guarded_steps_end_a_cycle_of_newtons():
    z = scalar(Given(), jnp.linspace(-8.0, 8.0, 101))[0]
    found = {}
    for name, solver in (("newton", newton(scalar, 0.0, 40)), ("guarded", guarded(scalar, 0.0, 40))):
        found[name] = relative(scalar(Given(), solver(Given(), z))[0], z)
    assert found["guarded"] < 1e-5 and not found["newton"] < 1e-2, found


def test_few_steps_invert_an_image(monkeypatch):
    """24 passes of the network where 98 entries depend on one another."""
    monkeypatch.setattr(sys.modules[guarded.__module__], "guarded", lambda f, tolerance, steps: guarded(f, tolerance, min(steps, 24)))
    layer = mintnet(**{**OPTIONS, "copies": 4})
    x = jax.random.normal(jax.random.key(0), (4, 7, 7, 2))
    params = perturbed(layer.init(jax.random.key(1), x), 0.1)
    z = quick_jit(lambda p, x: layer.bijector(p).inverse(x))(params, x)
    assert relative(quick_jit(lambda p, z: layer.bijector(p).forward(z))(params, z), x) < 1e-5


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [(dict(kernel=2), (4, 4, 1), "mintnet: kernel=2 is invalid; it must be odd"), ({}, (4,), "needs events that are images")],
)
def test_errors(options, shape, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(mintnet(**(OPTIONS | options)).init, jax.random.key(0), jnp.zeros((2, *shape)))
