"""Annealed importance sampling with HMC transitions (Neal 2001; Wu et al. 2017, "On the quantitative analysis of decoder-based generative
models"), and the sandwich of bidirectional Monte Carlo (Grosse et al. 2015).

A path of T + 1 densities leads from a start s(z), the prior p(z) or the encoder's q(z|x), to the joint density p(x, z):

    log f_t(z) = log s(z) + b_t r(z),        r(z) = log p(x, z) - log s(z),        0 = b_0 < ... < b_T = 1

    forward    z_0 ~ s;         for t = 1 .. T: log w += (b_t - b_(t-1)) r(z_(t-1)),  z_t ~ HMC_t(. | z_(t-1))
    reverse    z_T ~ p(z|x);    for t = T .. 1: z_(t-1) ~ HMC_t(. | z_t),  log w += (b_t - b_(t-1)) r(z_(t-1))

HMC_t leaves f_t invariant, so E[w] = p(x) forward and E[1/w] = 1/p(x) in reverse. Over C chains log mean w is a lower bound of log p(x) in
expectation, and -log mean 1/w an upper one; both close as T grows. An exact draw of p(z|x), which the reverse needs, is at hand where the
data are simulated: z ~ p(z), x ~ p(x|z).

Step sizes fall as the density narrows. A first run with few chains finds them, by moving each temperature's step size towards the
acceptance `accept`, one schedule [T] an example; the chains that count run with that schedule held fixed, so that HMC_t does not depend
on their past and the bounds hold exactly. The price is pilot / chains more work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.build import Count, Decay, Fraction, Natural, Positive, Range
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import importance
from vaeflow.evaluation.measures import iwae
from vaeflow.evaluation.measures.chains import Target, log_mean, target
from vaeflow.evaluation.measures.measure import Evaluation, Finding, latent, mean, monte_carlo, over, posterior_shape
from vaeflow.evaluation.reliability import evidence, only_bound
from vaeflow.hmc import LogDensity, adapt, move, move_all
from vaeflow.model import Array

# The schedule "sigmoid" is the logistic function on [-4, 4].
_HALF_WIDTH = 4.0


class AISSettings(NamedTuple):
    """Of AIS and of BDMC.

    chains     C, per example
    steps      T, temperatures
    start      prior (whose draws must be exact: those of a contrastive prior are not) | posterior: q(z|x)
    schedule   sigmoid: b_t = logistic(8 t/T - 4), scaled to [0, 1] (small steps at both ends); linear: t/T
    leapfrog   steps of one HMC transition
    step_size  of the leapfrog where the pilot run begins
    jitter     of the step size, see chains.move
    accept     probability of acceptance that the pilot run aims at; gain: of its stochastic approximation, see chains.adapt
    pilot      its chains
    k          draws of IWAE-k to compare with; 0: none
    """

    chains: Annotated[int, Range(2)] = 16
    steps: Count = 1000
    start: Literal["prior", "posterior"] = "prior"
    schedule: Literal["sigmoid", "linear"] = "sigmoid"
    leapfrog: Count = 10
    step_size: Positive = 0.3
    jitter: Decay = 0.2
    accept: Fraction = 0.65
    gain: Positive = 0.1
    pilot: Count = 4
    k: Natural = 1000


class Path(NamedTuple):
    """log s(z), r(z) = log p(x, z) - log s(z), a draw of s by its key, and the temperatures b_0 .. b_T [T + 1]."""

    log_start: LogDensity
    log_ratio: LogDensity
    draw: Callable[[Array], Array]
    b: Array

    def at(self, b: Array) -> LogDensity:
        """log f at temperature b."""
        return lambda z: self.log_start(z) + b * self.log_ratio(z)


def temperatures(schedule: str, steps: int) -> np.ndarray:
    """b_0 = 0 .. b_T = 1, [T + 1]."""
    t = np.linspace(0, 1, steps + 1)
    if schedule == "linear":
        return t
    s = 1 / (1 + np.exp(-_HALF_WIDTH * (2 * t - 1)))
    return (s - s[0]) / (s[-1] - s[0])


def path_of(aim: Target, settings: AISSettings) -> Path:
    """The path of an example."""
    b = jnp.asarray(temperatures(settings.schedule, settings.steps), jnp.float32)
    if settings.start == "prior":
        return Path(aim.log_prior, aim.log_likelihood, aim.draw_prior, b)
    return Path(aim.log_q, lambda z: aim.log_joint(z) - aim.log_q(z), aim.draw_q, b)


def step_sizes(key: Array, path: Path, s: AISSettings) -> Array:
    """The pilot run: the step sizes [T] of HMC_1 .. HMC_T."""
    start, moves = jax.random.split(key)

    def step(carry, now):
        z, size = carry
        b, key = now
        z, accepted = move_all(key, z, path.at(b), size, s.leapfrog, s.jitter)
        return (z, adapt(size, accepted, s.accept, s.gain)), size

    z = jax.vmap(path.draw)(jax.random.split(start, s.pilot))
    first = jnp.asarray(s.step_size, z.dtype)
    return jax.lax.scan(step, (z, first), (path.b[1:], jax.random.split(moves, s.steps)))[1]


def forward(key: Array, path: Path, sizes: Array, s: AISSettings) -> tuple[Array, Array]:
    """(log w, mean probability of acceptance) of one chain from s to the posterior."""
    start, moves = jax.random.split(key)

    def step(carry, now):
        z, log_w = carry
        b, gap, size, key = now
        log_w += gap * path.log_ratio(z)
        z, accepted = move(key, z, path.at(b), size, s.leapfrog, s.jitter)
        return (z, log_w), accepted

    z = path.draw(start)
    xs = (path.b[1:], jnp.diff(path.b), sizes, jax.random.split(moves, s.steps))
    (_, log_w), accepted = jax.lax.scan(step, (z, jnp.zeros((), z.dtype)), xs)
    return log_w, accepted.mean()


def reverse(key: Array, path: Path, sizes: Array, s: AISSettings, z: Array) -> tuple[Array, Array]:
    """The same for one chain from an exact draw z [*event] of the posterior to s."""

    def step(carry, now):
        z, log_w = carry
        b, gap, size, key = now
        z, accepted = move(key, z, path.at(b), size, s.leapfrog, s.jitter)
        return (z, log_w + gap * path.log_ratio(z)), accepted

    xs = (path.b[1:], jnp.diff(path.b), sizes, jax.random.split(key, s.steps))
    (_, log_w), accepted = jax.lax.scan(step, (z, jnp.zeros((), z.dtype)), xs, reverse=True)
    return log_w, accepted.mean()


def lower(key: Array, path: Path, s: AISSettings) -> tuple[dict[str, Array], Array]:
    """({lower, ess, se, accepted, step_size} of one example, the step sizes [T])."""
    first, second = jax.random.split(key)
    sizes = step_sizes(first, path, s)
    log_w, accepted = jax.vmap(lambda key: forward(key, path, sizes, s))(jax.random.split(second, s.chains))
    value, ess, se = log_mean(log_w)
    return {"lower": value, "ess": ess, "se": se, "accepted": accepted.mean(), "step_size": sizes[-1]}, sizes


def annealed(run: Evaluation, s: AISSettings) -> dict[str, np.ndarray]:
    """Per-example arrays [N] of AIS: lower, ess, se, accepted, step_size."""
    found, shape = latent(run), posterior_shape(run)[0]

    def fn(params, key, batch):
        return lower(key, path_of(target(found, params, batch, shape), s), s)[0]

    return over(run, "ais", fn, draws=s.chains * s.steps * s.leapfrog)


def sandwich(run: Evaluation, s: AISSettings) -> dict[str, np.ndarray]:
    """Per-example arrays [N] of BDMC, on one simulated x for each of the run's examples (which lend their context): those of AIS,
    upper, upper_ess, upper_se and, with k, iwae_log_prob, iwae_ess, iwae_tail."""
    own, shape = latent(run), posterior_shape(run)[0]
    weighted = importance(run.model, s.k, run.config.eval.chunk) if iwae.compares(run, s.k) else None

    def fn(params, key, batch):
        draw_z, draw_x, ahead, back, other = jax.random.split(key, 5)
        context = batch.get("context")
        z = own.prior(params, context).sample(seed=draw_z).reshape(shape)
        x = own.likelihood(params, z[None], context).sample(seed=draw_x)
        batch = {**batch, "x": x}
        path = path_of(target(own, params, batch, shape), s)
        out, sizes = lower(ahead, path, s)
        log_w, _ = jax.vmap(lambda key: reverse(key, path, sizes, s, z))(jax.random.split(back, s.chains))
        value, ess, se = log_mean(-log_w)
        out |= {"upper": -value, "upper_ess": ess, "upper_se": se}
        if weighted is None:
            return out
        found = weighted(params, other, batch)
        return out | {f"iwae_{name}": found[name] for name in ("log_prob", "ess", "tail")}

    return over(run, "bdmc", fn, draws=2 * s.chains * s.steps * s.leapfrog)


def needs(run: Evaluation, settings: AISSettings) -> None:
    """UserError: the latent is not continuous, or there is none; the chains would start at draws that are not of their density."""
    posterior_shape(run)
    if settings.start == "prior" and not latent(run).exact:
        raise UserError("ais.start='prior' needs exact draws of the prior, and this one's are resampled; use --ais.start=posterior")


def needs_exact_draws(run: Evaluation, settings: AISSettings) -> None:
    """UserError: the same, or no exact draw of the posterior, which are the pairs z ~ p(z), x ~ p(x|z)."""
    del settings
    posterior_shape(run)
    if not latent(run).exact:
        raise UserError("its upper bound needs exact draws of the prior, and this model's are resampled")


def ais(run: Evaluation, settings: AISSettings) -> dict[str, Finding]:
    """log p(x) by annealed importance sampling, beside IWAE-k on the same examples."""
    found = annealed(run, settings)
    how = f"AIS, {settings.chains} chains, {settings.steps} temperatures from the {settings.start}; a lower bound in expectation"
    out = {"log_p": mean(found["lower"], f"log p(x) by {how}"), "mc_se": monte_carlo(found["se"], "log_p", _weak(found["ess"]))}
    return out | iwae.beside(run, settings.k, found["lower"]) | _moves(found, settings)


def bdmc(run: Evaluation, settings: AISSettings) -> dict[str, Finding]:
    """Lower and upper bounds of log p(x) on data that are simulated from the model."""
    found = sandwich(run, settings)
    simulated = f"of log p(x) for x from the model, {settings.chains} chains, {settings.steps} temperatures"
    out = {
        "lower": mean(found["lower"], f"AIS from the {settings.start}: a lower bound in expectation {simulated}"),
        "upper": mean(found["upper"], "reverse AIS from the exact posterior draw: an upper bound in expectation"),
        "gap": mean(found["upper"] - found["lower"], "upper - lower, which holds the error of both"),
        "lower_mc_se": monte_carlo(found["se"], "lower", _weak(found["ess"])),
        "upper_mc_se": monte_carlo(found["upper_se"], "upper", _weak(found["upper_ess"])),
    }
    if "iwae_log_prob" in found:
        known = {name: found[f"iwae_{name}"] for name in ("log_prob", "ess", "tail")}
        out |= iwae.compared(known, settings.k, found["upper"], "upper")
    return out | _moves(found, settings)


def _weak(ess: np.ndarray) -> str:
    """ "ESS 2.1" if so few chains carry the weight that their Monte Carlo standard error is too small, else ""."""
    mean_ess = float(ess.mean())
    return evidence(mean_ess) if only_bound(mean_ess) else ""


def _moves(found: dict[str, np.ndarray], s: AISSettings) -> dict[str, Finding]:
    return {
        "ess": Finding(float(found["ess"].mean()), f"effective number of the {s.chains} chains, mean"),
        "acceptance": Finding(float(found["accepted"].mean()), f"of the HMC transitions, mean; aimed at {s.accept:g}"),
        "step_size": Finding(float(np.median(found["step_size"])), f"at the last temperature, median; {s.leapfrog} leapfrog steps"),
    }
