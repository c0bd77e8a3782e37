"""Gradient estimators side by side at the same parameters and batch: signal, variance, bias.

    python -m benchmarks.gradient_variance --output=results/gradient_variance.md
    python -m benchmarks.gradient_variance --workdir=runs/digits_gumbel --gaussian=runs/digits_vae

Of a discrete-latent VAE (vaeflow/models/discrete.py) the estimators for latents without a reparameterisation, of a Gaussian one
(vaeflow/models/vae.py) the reparameterised ones, all for k draws of z. The parameters are those of two runs; without them, of --steps
steps of digits_discrete.py:bernoulli_gumbel and of digits_vae.py. A network is trained on the discrete ones, held fixed, to be
REINFORCE's baseline. The batch is fixed too: the draws of z are the only noise.

A gradient is that of the mean loss of the batch, for q (the encoder) or for p (decoder, prior). Of N independent estimates g:

    variance   the trace of their covariance
    SNR        |E g| / sqrt(variance)
    bias       |E g - r| in percent of |r|: r is the reference of the estimator's target, the mean of 4 N estimates by an unbiased one

E is the mean of the N; what its noise adds to the squares of |E g| and |E g - r| is taken off. Behind ± stands what noise alone would
make of |E g - r|: a bias below it is none that was found. The targets: the ELBO; L_k, the bound of k draws; in the wake phase of q
minus KL(p(z|x) || q(z|x)), whose reference is that phase with many draws.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from benchmarks import common
from configs.base import mlp
from vaeflow import models
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate
from vaeflow.model import Array, Params
from vaeflow.runs import workdir
from vaeflow.training import loop, setup
from vaeflow.training.configure import complete
from vaeflow.training.warm_start import load_params

MANY = 100  # draws of the references that need many
GROUPS = {"q": ("encoder", "posterior"), "p": ("decoder", "prior", "prior_base", "pseudo_inputs")}


class Case(NamedTuple):
    """An estimator: its name in the table, its objective, draws, and its targets for q and for p."""

    title: str
    objective: dict[str, Any]
    k: int
    targets: dict[str, str]


class Moments(NamedTuple):
    """Of n estimates of a gradient, by group: the mean [P] and the trace of the covariance of ONE estimate."""

    n: int
    mean: dict[str, Array]
    variance: dict[str, Array]


def case(title: str, k: int, target: str, target_q: str = "", **objective: Any) -> Case:
    """A case whose target for q is another one where `target_q` says so."""
    return Case(title, objective, k, {"q": target_q or target, "p": target})


def discrete_cases() -> tuple[list[Case], dict[str, Case]]:
    """(the cases, the reference of each target)."""
    found, references = [], {"ELBO": case("", MANY, "ELBO", kind="leave_one_out")}
    for k in (1, 5, 50):
        found.append(case("REINFORCE", k, "ELBO", kind="reinforce"))
        found.append(case("REINFORCE, network b(x)", k, "ELBO", kind="reinforce", baseline="baseline"))
        found += [case("leave-one-out", k, "ELBO", kind="leave_one_out")] if k > 1 else []
        for temperature in (1.0, 0.5, 0.1) if k == 1 else (0.5,):
            for name, estimator in (("Gumbel-softmax", "gumbel_softmax"), ("straight-through", "straight_through")):
                found.append(case(f"{name}, {temperature}", k, "ELBO", kind=estimator, temperature=temperature))
        if k > 1:
            vimco = case("VIMCO", k, f"L_{k}", kind="vimco")
            found += [vimco, case("wake-sleep, wake q", k, f"L_{k}", "-KL(p||q)", kind="wake_sleep")]
            references[f"L_{k}"] = vimco
    references["-KL(p||q)"] = case("", MANY, "", kind="wake_sleep")
    return found, references


def gaussian_cases() -> tuple[list[Case], dict[str, Case]]:
    """(the cases, the reference of each target)."""
    found, references = [], {"ELBO": case("", MANY, "ELBO", kind="elbo_path")}
    for k in (1, 10, 100):
        found.append(case("elbo, analytic KL", k, "ELBO", kind="elbo"))
        found.append(case("elbo", k, "ELBO", kind="elbo", kl="monte_carlo"))
        found.append(case("elbo_path", k, "ELBO", kind="elbo_path"))
        if k > 1:
            found += [case(name, k, f"L_{k}", kind=name) for name in ("iwae", "iwae_one", "iwae_path", "dreg")]
            references[f"L_{k}"] = case("", k, f"L_{k}", kind="dreg")
    return found, references


def changed(config: ConfigDict, **objective: Any) -> ConfigDict:
    """A copy with another objective, whose weights are those of log p(x)."""
    c = ConfigDict({**config.to_dict(), "parts": {name: part for name, part in config.parts.to_dict().items() if name != "beta"}})
    c.model.objective, c.parts.objective = "objective", objective
    return complete(c)


def moments(config: ConfigDict, params: Params, batch: Any, case: Case, key: Array, n: int) -> Moments:
    """One compiled scan over n keys; mean and variance are updated one by one (Welford), in float32 without cancellation."""
    model = models.build_model(changed(config, k=case.k, **case.objective))

    def estimate(params: Params, key: Array) -> dict[str, Array]:
        g = jax.grad(lambda params: model.loss(params, key, batch, 0)[0])(params)
        return {name: ravel_pytree({part: g[part] for part in parts if part in g})[0] for name, parts in GROUPS.items()}

    def run(params: Params, key: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        def step(carry, i):
            mean, squares = carry
            g = estimate(params, jax.random.fold_in(key, i))
            new = {name: mean[name] + (g[name] - mean[name]) / (i + 1) for name in g}
            return (new, {name: squares[name] + jnp.vdot(g[name] - mean[name], g[name] - new[name]) for name in g}), None

        shapes = jax.eval_shape(estimate, params, key)
        start = {name: jnp.zeros(s.shape) for name, s in shapes.items()}, dict.fromkeys(shapes, jnp.zeros(()))
        return jax.lax.scan(step, start, jnp.arange(n))[0]

    mean, squares = jax.jit(run)(params, key)
    return Moments(n, mean, {name: s / (n - 1) for name, s in squares.items()})


def numbers(found: Moments, reference: dict[str, Moments]) -> list[str]:
    """|E g|, variance, SNR and bias for q and then for p, as text."""
    cells = []
    for name, other in reference.items():
        variance, noise = found.variance[name], found.variance[name] / found.n
        size = jnp.sqrt(jnp.maximum(jnp.vdot(found.mean[name], found.mean[name]) - noise, 0))
        noise += other.variance[name] / other.n
        gap, whole = found.mean[name] - other.mean[name], jnp.linalg.norm(other.mean[name])
        bias, error = jnp.sqrt(jnp.maximum(jnp.vdot(gap, gap) - noise, 0)) / whole, jnp.sqrt(noise) / whole
        cells += [f"{size:.3g}", f"{variance:.3g}", f"{size / jnp.sqrt(variance):.3g}", f"{100 * bias:.1f} ± {100 * error:.1f}"]
    return cells


def train(config: ConfigDict, directory: Path, steps: int) -> Path:
    """The workdir of a run of so many steps."""
    c = ConfigDict(config.to_dict())
    c.train.update(steps=steps, eval_every=steps, checkpoint_every=steps)
    workdir.prepare(directory, c.lock())
    loop.fit(setup.make_experiment(c, directory), directory, evaluate.validator)
    return directory


def tabulate(
    model: str, config: ConfigDict, params: Params, cases: tuple[list[Case], dict[str, Case]], batch: int, n: int
) -> list[list[object]]:
    """The rows of one model's estimators."""
    c = ConfigDict(config.to_dict())
    c.data.batch = batch
    data = setup.first_batch(setup.make_experiment(c.lock()))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 5), sum(map(len, cases)))
    params = jax.device_put(params)
    references = {}
    for key, (name, one) in zip(keys, cases[1].items(), strict=False):
        print(f"{model}: the reference for {name}", file=sys.stderr, flush=True)
        references[name] = moments(config, params, data, one, key, 4 * n)
    rows = []
    for key, one in zip(keys[len(references) :], cases[0], strict=True):
        print(f"{model}: {one.title}, k = {one.k}", file=sys.stderr, flush=True)
        found = moments(config, params, data, one, key, n)
        targets = [one.targets["q"]] if one.targets["q"] == one.targets["p"] else list(one.targets.values())
        rows.append([model, one.title, one.k, ", ".join(targets), *numbers(found, {g: references[t] for g, t in one.targets.items()})])
    return rows


def main() -> None:
    """Train or load, measure, print, write."""
    p = common.parser(__doc__)
    p.add_argument("--workdir", type=Path, help="a discrete-latent VAE's run; default: one is trained here")
    p.add_argument("--gaussian", type=Path, help="a VAE's run; default: one is trained here")
    p.add_argument("--config", default="configs/digits_discrete.py:bernoulli_gumbel", help="what is trained without --workdir")
    p.add_argument("--gaussian_config", default="configs/digits_vae.py", help="what is trained without --gaussian")
    p.add_argument("--steps", type=int, default=500, help="of training, and of that of the baseline's network")
    p.add_argument("--batch", type=int, default=32, help="examples, the first ones of the training split")
    p.add_argument("--estimates", type=int, default=500, help="N")
    flags = p.parse_args()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = flags.workdir or train(common.load(flags.config, {}), Path(folder) / "discrete", flags.steps)
            config = ConfigDict(workdir.read_config(run).to_dict())
            config.parts.baseline, config.fixed_from = mlp(64), str(run)
            config = changed(config, kind="reinforce", baseline="baseline", k=5)
            params = load_params(train(config, Path(folder) / "baseline", flags.steps), "last")
            rows += tabulate("discrete", config, params, discrete_cases(), flags.batch, flags.estimates)
            run = flags.gaussian or train(common.load(flags.gaussian_config, {}), Path(folder) / "gaussian", flags.steps)
            rows += tabulate("Gaussian", workdir.read_config(run), load_params(run), gaussian_cases(), flags.batch, flags.estimates)
        except UserError as error:
            raise SystemExit(str(error)) from None
    titles = ["model", "estimator", "k", "target"]
    titles += [f"{group}: {what}" for group in GROUPS for what in ("|E g|", "variance", "SNR", "bias [%]")]
    notes = (
        f"N = {flags.estimates} estimates for a batch of {flags.batch}, seed {config.seed}; parameters after {flags.steps} steps where no"
        " run was given. The loss is minus the target. Every estimator runs the decoder forward and backward for all k draws of an"
        " example, but iwae_one backward for one. The number behind a relaxed estimator is its temperature. What the columns are stands in"
        " benchmarks/gradient_variance.py."
    )
    command = " ".join(["benchmarks.gradient_variance", *(a for a in sys.argv[1:] if not a.startswith("--output"))])
    common.sheet("Gradient estimators: signal, variance, bias", titles, rows, notes, flags.output, command)


if __name__ == "__main__":
    main()
