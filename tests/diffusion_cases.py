"""Closed forms for the laws of vaeflow/diffusion: mixtures of Gaussians under every path, and what the laws know of registered entries.

A new entry of a registry is tested as it is; a line here is only needed if the defaults below do not fit it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from vaeflow.diffusion.path import PATHS, Predict, Prediction, ProbabilityPath, ot
from vaeflow.diffusion.steps import STEPS
from vaeflow.diffusion.walk import Sampler

TYPICAL = ("ot", "vp")


class PathCase(NamedTuple):
    """arguments of the maker, and the interval of t in which coefficients and their derivatives are finite and alpha, sigma > 0."""

    arguments: Mapping[str, Any] = MappingProxyType({})
    low: float = 0.02
    high: float = 0.98


# The paths of fixed alpha with a smaller sigma_max: over the default range, fixed steps in t resolve nothing near the data.
PATH_CASES = {
    "vp": PathCase(high=1.0),
    "subvp": PathCase(high=1.0, low=0.05),
    "ve": PathCase({"sigma_min": 0.05, "sigma_max": 5.0}, low=0.0, high=1.0),
    "edm": PathCase({"sigma_max": 5.0}, high=1.0),
}


def path_case(name: str) -> PathCase:
    return PATH_CASES.get(name, PathCase())


def path_of(name: str) -> ProbabilityPath:
    return PATHS[name](**path_case(name).arguments)


def with_gamma() -> ProbabilityPath:
    """The linear interpolant with a third term."""
    return ot(gamma=0.7)


class StepCase(NamedTuple):
    """What the laws know of a sampler.

    order       of the error in the step
    options     steps -> arguments of the maker
    noisy       whether it draws noise
    linear      whether x_s is affine in x and the noise drawn, for affine predictions; else why not
    from_one    whether it starts at t = 1 where alpha = 0; else why not
    """

    kind: str
    order: int = 1
    options: Callable[[int], dict[str, Any]] = lambda steps: {}
    noisy: bool = True
    linear: str = ""
    from_one: str = ""

    def sampler(self, steps: int = 64) -> Sampler:
        return STEPS[self.kind](**self.options(steps))


INFINITE = "g^2 is infinite where alpha = 0"
STEP_CASES = {
    "euler": StepCase("euler", noisy=False),
    "midpoint": StepCase("midpoint", 2, noisy=False),
    "heun": StepCase("heun", 2, noisy=False),
    "dopri5": StepCase("dopri5", 5, noisy=False),
    "heun with churn": StepCase("heun", 2, lambda steps: {"churn": 4 / steps, "lowest": 0.05}, from_one="x / alpha"),
    "ddim": StepCase("ddim", noisy=False),
    "ancestral": StepCase("ancestral"),
    "ancestral, eta = 0.5": StepCase("ancestral", options=lambda steps: {"eta": 0.5}),
    "sde": StepCase("sde", from_one=INFINITE),
    "sde of w = sigma": StepCase("sde", options=lambda steps: {"diffusion": "sigma"}),
    "sde without noise": StepCase("sde", options=lambda steps: {"diffusion": "sigma", "scale": 0.0}, noisy=False),
    "dpm_2m": StepCase("dpm_2m", 2, noisy=False),
    "predictor_corrector": StepCase("predictor_corrector"),
    "predictor_corrector of the score": StepCase(
        "predictor_corrector",
        options=lambda steps: {"size": "score"},
        linear="the step size is a ratio of norms of the noise and the score",
    ),
}
STEP_CASES |= {name: StepCase(name) for name in STEPS if name not in {case.kind for case in STEP_CASES.values()}}


def matrix(names: Iterable[str], both: Collection[str]) -> list[Any]:
    """pytest's parameters (path, name): by default every name on TYPICAL paths and `both` on all; the rest in the long matrix."""
    return [
        pair if pair[0] in TYPICAL or pair[1] in both else pytest.param(*pair, marks=pytest.mark.full)
        for pair in itertools.product(PATHS, names)
    ]


class Mixture(NamedTuple):
    """sum_k weight_k N(mean_k, std_k^2 I): weight, std [K], mean [K, D]."""

    weight: Any = (0.3, 0.7)
    mean: Any = ((-1.0, 0.5), (0.8, -0.3))
    std: Any = (0.3, 0.5)

    def at(self, path: ProbabilityPath, t):
        """The mixture of x_t: log weight [K], mean [K, D], variance [K]; the source and gamma's z are N(0, I)."""
        log_weight, mean, std = jnp.log(jnp.array(self.weight)), jnp.array(self.mean), jnp.array(self.std)
        noise = path.sigma(t) ** 2 + (0 if path.gamma is None else path.gamma(t) ** 2)
        return log_weight, path.alpha(t) * mean, path.alpha(t) ** 2 * std**2 + noise

    def log_components(self, path: ProbabilityPath, t, x):
        """log weight_k p_t(x | k) [K]."""
        log_weight, mean, variance = self.at(path, t)
        square = jnp.sum((x - mean) ** 2, -1)
        return log_weight - square / (2 * variance) - x.size / 2 * jnp.log(2 * jnp.pi * variance)

    def log_prob(self, path: ProbabilityPath, t, x):
        """log p_t(x) [] nats."""
        return jax.nn.logsumexp(self.log_components(path, t, x))

    def predict(self, path: ProbabilityPath) -> Predict:
        """The conditional means of data, noise and latent given x_t, by the posterior of the component."""

        def predict(x, t):
            _, mean, variance = self.at(path, t)
            share = jax.nn.softmax(self.log_components(path, t, x))[:, None]
            away = (x - mean) / variance[:, None]  # -score of each component
            std2 = jnp.array(self.std)[:, None] ** 2
            data = jnp.sum(share * (jnp.array(self.mean) + path.alpha(t) * std2 * away), 0)
            away = jnp.sum(share * away, 0)
            return Prediction(data, path.sigma(t) * away, None if path.gamma is None else path.gamma(t) * away)

        return predict
