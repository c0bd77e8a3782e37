"""Objectives of discrete latents, whose draws have no derivative: estimators of the gradient. With k draws and

    log w = log p(x|z) + beta (log p(z) - log q(z|x))

    reinforce         ELBO, score function with the signal log w, less b(x) where there is a baseline network, which learns E_q[log w]
    leave_one_out     less the mean of the other k - 1 draws
    vimco             the k-sample bound, with a signal for each draw
    wake_sleep        the k-sample bound for p; q by `wake_q` (normalised weights of the draws), `sleep_q` (samples of the model) or both
    gumbel_softmax    log p(x|z) at relaxed draws, less beta times the discrete KL, as in Jang et al. 2017: not a bound of log p(x)
    straight_through  the same at exact one-hot draws, with the relaxed ones' derivative: a bound, with a biased gradient

vimco and wake_sleep have no beta, as their weights must be those of log p(x). score_function.py and relaxations.py have the formulas and
the references. The metric kl is the exact KL(q || p).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from vaeflow.build import TRACED, Count, NonNegative, Positive, Range
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets import Net
from vaeflow.objectives import bounds, score_function
from vaeflow.objectives.objective import Draws, Objective, for_discrete
from vaeflow.objectives.schedules import Schedule, scheduled
from vaeflow.record import recorded

Several = Annotated[int, Range(2)]  # it compares draws


@recorded
@for_discrete
def reinforce(*, k: Count = 1, beta: Annotated[Schedule | NonNegative, TRACED] = 1.0, baseline: Net | None = None) -> Objective:
    """baseline: the network of b(x), which is added to a trained constant that starts at the first batch's mean log w."""
    if baseline is None:
        return _score("reinforce", k, beta, lambda log_w, log_q: score_function.reinforce(log_w, log_q))
    weight_of, net_of = scheduled(beta), baseline

    def module(x) -> Any:
        return net_of.module((), x.ndim - 1, False)

    def loss(own, key, draws, step):
        del key
        b: Any = module(draws.x).apply({"params": own["baseline"]["net"]}, draws.x, draws.context)
        b = own["baseline"]["constant"] + b
        weight = weight_of.at(step)
        log_w = _weights(draws, weight)
        learned = score_function.silent(score_function.baseline_loss(log_w, b))
        total = -jnp.mean(score_function.reinforce(log_w, draws.log_q, b) - learned)
        return total, _metrics(total, draws) | {"beta": weight}

    def init(key, draws):
        net = module(draws.x).init(key, draws.x, draws.context).get("params", {})
        log_w = draws.log_x(draws.z) + draws.log_z(draws.z) - draws.log_q
        return {"baseline": {"net": net, "constant": jnp.mean(log_w)}}

    return Objective(loss, k, init=init, discrete=True, kind="reinforce")


@recorded
@for_discrete
def leave_one_out(*, k: Several = 5, beta: Annotated[Schedule | NonNegative, TRACED] = 1.0) -> Objective:
    """The ELBO, each draw's baseline being the mean of the others."""
    return _score("leave_one_out", k, beta, score_function.leave_one_out)


@recorded
@for_discrete
def vimco(*, k: Several = 5) -> Objective:
    """The k-sample bound log 1/k sum_i w_i."""

    def loss(own, key, draws, step):
        del own, key, step
        total = -jnp.mean(score_function.vimco(_log_w(draws), draws.log_q))
        return total, _metrics(total, draws)

    return Objective(loss, k, bound=bounds.iwae, discrete=True, kind="vimco")


@recorded
@for_discrete
def wake_sleep(*, k: Count = 5, wake_q: bool = True, sleep_q: bool = False) -> Objective:
    """wake_q, sleep_q: the phases of q, the sum of both where both are on."""
    if not wake_q and not sleep_q:
        raise UserError("wake_q=False and sleep_q=False leave q untrained; one or both must be True")
    if wake_q and k < 2:
        raise UserError(f"k={k} is too few for wake_q=True, which compares draws; it must be >= 2")

    def loss(own, key, draws, step):
        del own, step
        log_w = _log_w(draws)
        value = score_function.wake_p(log_w, draws.log_q)
        if wake_q:
            value += score_function.wake_q(log_w, draws.log_q)
        total = -jnp.mean(value)
        if sleep_q:
            total -= jnp.mean(score_function.sleep_q(draws.dream(key)))
        return total, _metrics(total, draws)

    return Objective(loss, k, bound=bounds.iwae, discrete=True, kind="wake_sleep")


@recorded
@for_discrete
def gumbel_softmax(
    *,
    k: Count = 1,
    beta: Annotated[Schedule | NonNegative, TRACED] = 1.0,
    temperature: Annotated[Schedule | Positive, TRACED] = 0.5,
) -> Objective:
    """temperature: of the relaxed draws."""
    return _relaxed("gumbel_softmax", k, beta, temperature, lambda q, soft: soft)


@recorded
@for_discrete
def straight_through(
    *,
    k: Count = 1,
    beta: Annotated[Schedule | NonNegative, TRACED] = 1.0,
    temperature: Annotated[Schedule | Positive, TRACED] = 1.0,
) -> Objective:
    """temperature: of the relaxed draws whose derivative is taken."""
    return _relaxed("straight_through", k, beta, temperature, lambda q, soft: q.hardened(soft))


def _score(kind: str, k: int, beta: Schedule | float, surrogate: Callable[[Array, Array], Array]) -> Objective:
    """Minus the mean of surrogate(log w, log q) [B]."""
    weight_of = scheduled(beta)

    def loss(own, key, draws, step):
        del own, key
        weight = weight_of.at(step)
        total = -jnp.mean(surrogate(_weights(draws, weight), draws.log_q))
        return total, _metrics(total, draws) | {"beta": weight}

    return Objective(loss, k, discrete=True, kind=kind)


def _relaxed(kind: str, k: int, beta: Schedule | float, temperature: Schedule | float, end: Callable[[Any, Array], Array]) -> Objective:
    """-log p(x|z) + beta KL at z = end(q, relaxed draws)."""
    weight_of, temperature_of = scheduled(beta), scheduled(temperature)
    if isinstance(temperature, Schedule):
        first = temperature_of.at(0)
        if isinstance(first, jax.Array) and not isinstance(first, Tracer) and first <= 0:
            raise UserError(f"temperature={float(first):g} at step 0 is invalid; a schedule of temperatures must be > 0 there")

    def loss(own, key, draws, step):
        del own, key
        metrics, weight = _metrics(jnp.zeros(()), draws), weight_of.at(step)
        total = weight * metrics["kl"] + metrics["recon"]
        return total, metrics | {"loss": total, "beta": weight, "temperature": temperature_of.at(step)}

    def draw(q, key, step):
        return end(q, q.relaxed(key, k, temperature_of.at(step)))

    return Objective(loss, k, draw=draw, discrete=True, kind=kind)


def _weights(draws: Draws, beta: Array) -> Array:
    """log w [k, B] at this beta; the score of q inside it has mean 0 and is left out."""
    assert draws.log_q is not None
    return draws.log_x(draws.z) + beta * (draws.log_z(draws.z) - jax.lax.stop_gradient(draws.log_q))


def _log_w(draws: Draws) -> Array:
    """log w [k, B] with its whole gradient."""
    assert draws.log_q is not None
    return draws.log_x(draws.z) + draws.log_z(draws.z) - draws.log_q


def _metrics(total: Array, draws: Draws) -> dict[str, Array]:
    assert draws.kl is not None
    return {"loss": total, "recon": -jnp.mean(draws.log_x(draws.z)), "kl": jnp.sum(jnp.mean(draws.kl, axis=-1))}
