"""Whether the importance weights of an evaluation support an estimate of log p(x), or only a bound. Imports no jax.

IWAE-k is a lower bound on log p(x) in expectation, so the NLL that it gives is an upper bound. With enough effective draws the bound is
tight and the Monte Carlo standard error covers the gap. With few, the heaviest weights are not among the k draws: they are missing from
the estimate and from its standard error, so the printed error is too small. Such an NLL is called an upper bound wherever it is printed.

Log-weights N(0, s^2), 2,000 examples of k draws: mean effective sample size (ESS), share of the examples with Pareto-k above 0.7, and
the printed standard error over the true root mean squared error.

       |        k = 100        |       k = 500        |       k = 1000
    s  |  ESS   share   ratio  |  ESS   share   ratio |  ESS   share   ratio
    1  |   42    0.05    0.97  |  191    0.00    0.99 |  378    0.00    0.99
    2  |   12    0.43    0.74  |   32    0.48    0.85 |   54    0.40    0.86
    3  |    5    0.84    0.48  |   10    0.97    0.58 |   13    0.98    0.63
    4  |    3    0.96    0.26  |    5    1.00    0.34 |    6    1.00    0.39

The error of a mean over N examples is worse, because the gap is a bias and does not shrink with N: on trained VAEs it was 2 to 30 times
the printed one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# A mean over examples below this many effective draws per example is a bound.
LEAST_ESS = 10.0
# Above this shape of the weights' tail an importance-weighted estimate is unreliable (Vehtari et al. 2015, PSIS, arXiv 1507.02646).
PARETO_LIMIT = 0.7
# The share of the examples above PARETO_LIMIT that makes the whole mean a bound. Weights of finite variance reach it by the fit's noise
# alone: 10% of the examples at a true shape of 0.4 and k = 100, below 5% at 0.4 and k >= 500. In the table above it is crossed between
# s = 1, where the printed error is right, and s = 2, where it is not.
LARGEST_SHARE = 0.1


def only_bound(ess: float | None, bad_share: float | None = None) -> bool | None:
    """True if the weights support a bound only, False if they support an estimate, None if the numbers are not known.

    Args:
        ess: effective sample size of the weights of an example, mean over examples.
        bad_share: share of the examples with Pareto-k above PARETO_LIMIT; None if k is too small to fit a tail.
    """
    ess, bad_share = (None if value is None or math.isnan(value) else value for value in (ess, bad_share))
    if (ess is not None and ess < LEAST_ESS) or (bad_share is not None and bad_share > LARGEST_SHARE):
        return True
    return None if ess is None else False


def nll_is_bound(results: Mapping[str, Any]) -> bool:
    """True if the NLL of a results.json is known to be an upper bound because of its importance weights.

    False for an exact density, for reliable weights, and for results that do not record the effective sample size.
    """
    return results.get("density") == "weight" and bool(only_bound(results.get("ess"), results.get("pareto_k_bad_share")))


def evidence(ess: float | None, bad_share: float | None = None) -> str:
    """The numbers of `only_bound` in a few words: "ESS 33.0, Pareto-k > 0.7 in 77%"."""
    parts = [] if ess is None else [f"ESS {ess:.1f}"]
    parts += [] if bad_share is None else [f"Pareto-k > {PARETO_LIMIT:g} in {bad_share:.0%}"]
    return ", ".join(parts)


def upper_bound(results: Mapping[str, Any]) -> str:
    """ "upper bound (ESS 33.0, Pareto-k > 0.7 in 77%)" of a results.json whose NLL is one, else ""."""
    if not nll_is_bound(results):
        return ""
    return f"upper bound ({evidence(results.get('ess'), results.get('pareto_k_bad_share'))})"


EXPLAINED = (
    f"Upper bound: the mean effective sample size (ESS) of the importance weights is below {LEAST_ESS:g}, or their Pareto-k is above"
    f" {PARETO_LIMIT:g} in more than {LARGEST_SHARE:.0%} of the examples. IWAE-k is then a lower bound on log p(x) and no estimate of it:"
    " the NLL is at most the value printed, and the Monte Carlo standard error of the weights is too small."
)
