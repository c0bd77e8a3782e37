"""Autoregressive layers: MAF (Papamakarios et al. 2017), and by `inverse` IAF (Kingma et al. 2016).

    x_i = transformer(theta_i, z_i),        theta = made(x_0 .. x_(i-1), context)

The Jacobian is triangular, so log_det is the sum of the transformer's elementwise terms. Density evaluation is one pass of the
network; `forward` is sequential: incremental.py, or the fixed point x <- transformer(theta(x), z), exact after D passes at the latest since
pass k makes x_k right, and mostly far earlier (Song et al. 2021, "Accelerating feedforward computation"). A new autoregressive
layer is a Transformer and a registry line.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from vaeflow.bijectors.affine import affine
from vaeflow.bijectors.core.incremental import incremental
from vaeflow.bijectors.core.layer import Bijection, Layer, sum_event
from vaeflow.bijectors.core.scalar_map import ScalarMap
from vaeflow.bijectors.core.solve import fixed_point, solve
from vaeflow.bijectors.mixture import Components, KernelName, in_turn, mixture_cdf
from vaeflow.bijectors.rational_quadratic import rational_quadratic
from vaeflow.bijectors.spline import Least
from vaeflow.build import Positive, Range
from vaeflow.errors import UserError
from vaeflow.nets.made import Made, MadeNet
from vaeflow.record import recorded


def autoregressive(transformer: ScalarMap, made: Made) -> Layer:
    """The layer of a transformer; params {"net": MadeNet's, "fixed": {"order"} when it is random}. It starts as the identity."""
    net = MadeNet(made, transformer.size)

    def init(key, x, context=None):
        if x.ndim != 2:
            raise UserError(f"an autoregressive layer needs events that are vectors [D]; here they have the shape {x.shape[1:]}")
        key, order = jax.random.split(key)
        params = {"net": net.init(key, x[:1], None if context is None else context[:1])["params"]}
        if made.order == "random":
            params["fixed"] = {"order": jax.random.permutation(order, x.shape[-1])}
        return params

    def bijector(params, context=None, **_):
        def theta(params, h, context):
            return jnp.moveaxis(jnp.asarray(net.apply({"params": params}, h, context)), -2, 0)

        def at_once(given, x):
            return transformer.inverse(theta(given["params"], x, given.get("context")), x)

        def pass_on(given, x, z):
            return transformer.forward(theta(given["params"], x, given.get("context")), z)[0]

        given = {"params": params["net"]} if context is None else {"params": params["net"], "context": context}

        def inverse(x):
            z, log_det = at_once(given, x)
            return z, sum_event(log_det, 1)

        def one_by_one(z):
            leading = z.shape[:-1]
            c = None if context is None else jnp.broadcast_to(context, (*leading, context.shape[-1])).reshape(-1, context.shape[-1])
            x, log_det = incremental(made, transformer.size, params["net"], transformer.forward, z.reshape(-1, z.shape[-1]), c)
            return x.reshape(z.shape), sum_event(log_det.reshape(z.shape), 1)

        def iterated(z):
            steps = z.shape[-1] + 1
            x, log_slope = solve(at_once, fixed_point(pass_on, made.tolerance, steps), made.tolerance, steps, given, z)
            return x, -sum_event(log_slope, 1)

        def ordered(run):
            if made.order == "natural":
                return run
            if made.order == "reverse":
                return lambda h: _of_first(run(h[..., ::-1]), lambda y: y[..., ::-1])
            order = params["fixed"]["order"]
            return lambda h: _of_first(run(h[..., order]), lambda y: y[..., jnp.argsort(order)])

        return Bijection(ordered(one_by_one if made.inversion == "incremental" else iterated), ordered(inverse), 1)

    return Layer(init, bijector)


def _of_first(pair, f):
    return f(pair[0]), pair[1]


@recorded
def affine_autoregressive(*, made: Made, cap: Positive = 2.0) -> Layer:
    """MAF (Papamakarios et al. 2017): x_i = z_i * exp(s_i) + t_i, |s_i| < cap; log_det = sum(s).

    Args:
        made: the masked network that gives (t_i, s_i) from x_0 .. x_(i-1) and the context.
        cap: bound of the log-scales.
    """
    return autoregressive(affine(cap), made)


@recorded
def spline_autoregressive(
    *,
    made: Made,
    bins: Annotated[int, Range(2)] = 8,
    bound: Positive = 4.0,
    min_width: Least = 1e-3,
    min_height: Least = 1e-3,
    min_slope: Least = 1e-3,
) -> Layer:
    """RQ-NSF (AR) (Durkan et al. 2019): x_i = spline(z_i; theta_i); see rational_quadratic.py.

    Args:
        made: the masked network that gives theta_i from x_0 .. x_(i-1) and the context.
        bins: number of the spline's pieces.
        bound: the spline is the identity outside [-bound, bound].
        min_width, min_height: least width and height of a bin, as a fraction of 2 bound; their products with `bins` are below 1.
        min_slope: least slope at the knots.
    """
    return autoregressive(rational_quadratic(bins, bound, min_width, min_height, min_slope), made)


@recorded
def mixture_autoregressive(*, made: Made, components: Components = 10, kernel: KernelName = "normal", cap: Positive = 3.0) -> Layer:
    """z_i = F^-1(sum_k w_k F((x_i - m_k) / s_k)), all numbers of made(x_0 .. x_(i-1)); see mixture.py.

    Args:
        made: the masked network that gives the numbers of x_i from x_0 .. x_(i-1) and the context.
        components: K.
        kernel: F. normal: over N(0, I) every p(x_i | x_<i) is a mixture of Gaussians: the mixture-of-Gaussians MADE.
            logistic: NAF with a deep sigmoidal unit, then an affine map (Huang et al. 2018).
        cap: bound of the log-scales.
    """
    mixture = mixture_cdf(components, kernel, cap)
    return autoregressive(mixture if kernel == "normal" else in_turn(mixture, affine(cap)), made)
