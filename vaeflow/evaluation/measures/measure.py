"""What a measure is: its types, its inputs, its findings, and how it maps over the examples."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from vaeflow.data import Source, Split
from vaeflow.errors import UserError
from vaeflow.evaluation.elbo import gaussian
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.evaluation.map_split import Example, gather, map_split
from vaeflow.model import Array, Batch, Latent, Model, Params


class Evaluation(NamedTuple):
    """What a measure is applied to.

    params   the parameters; their shapes are enough for `Measure.needs` and `Measure.prepare`
    split    the examples, all or some of the split `name` of `source`
    key      of the run's evaluation; `over` makes the keys of a measure from it
    options  batch, levels, devices: those of `map_split.map_split`
    """

    model: Model
    params: Params
    config: ConfigDict
    source: Source
    split: Split
    name: str
    key: Array
    options: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.config.seed


class Finding(NamedTuple):
    """One number of a measure.

    value   a number or a text; a list is stored and not printed
    what    what the number is, in a few words
    se      its standard error, over examples unless `what` says otherwise
    arrays  {name: array} that belong to it, stored as npz beside the results: numbers per example [N], a density on a grid
    """

    value: Any
    what: str = ""
    se: float | None = None
    arrays: Mapping[str, np.ndarray] | None = None


class MeasureFn(Protocol):
    """A prepared measure: {name: Finding} of these parameters. A second call compiles nothing."""

    def __call__(self, params: Params, key: Array, /) -> dict[str, Finding]: ...


class Measure(NamedTuple):
    """A registered measure, the only way to a number of a run.

    prepare   (Evaluation, settings) -> MeasureFn; compiles what it can, reads shapes of parameters only
    needs     (Evaluation, settings): raises a UserError of one line if the measure does not apply; compiles nothing, reads shapes only
    title     what it measures, one line
    defaults  its settings: a NamedTuple with annotated fields (see vaeflow/build.py), --MEASURE.KEY=VALUE on the command line
    better    {finding: "low" | "high"} of the findings that may select a checkpoint (eval.select = "measure.finding")
    selecting (Evaluation, finding) -> the cheap settings with which it selects; eval.validate changes them
    provides  (Evaluation, settings) -> the findings of `better` that it gives for these data
    noisy     whether each call has noise of its own beyond the fixed keys and examples (samples of the model): early stopping then counts
              gains above the standard error only
    """

    prepare: Callable[[Evaluation, Any], MeasureFn]
    needs: Callable[[Evaluation, Any], Any]
    title: str
    defaults: Any
    better: Mapping[str, str] = {}
    selecting: Callable[[Evaluation, str], Mapping[str, Any]] = lambda run, finding: {}
    provides: Callable[[Evaluation, Any], Collection[str]] | None = None
    noisy: bool = False


def once(check: Callable[[Evaluation, Any], dict[str, Finding]]) -> Callable[[Evaluation, Any], MeasureFn]:
    """The `prepare` of a measure that is written for one set of parameters: (Evaluation, settings) -> findings. A call compiles again."""

    def prepare(run: Evaluation, settings: Any) -> MeasureFn:
        return lambda params, key: check(run._replace(params=params, key=key), settings)

    return prepare


def findings(numbers: Mapping[str, Any], what: Mapping[str, str]) -> dict[str, Finding]:
    """{name: Finding} of {name: value, name_se: its standard error}.

    Args:
        numbers: flat results; `x_se` is the standard error of `x` where both are there, else a number of its own.
        what: {name: what the number is}.
    """
    own = {name: value for name, value in numbers.items() if not (name.endswith("_se") and name.removesuffix("_se") in numbers)}
    return {name: Finding(value, what.get(name, ""), numbers.get(f"{name}_se")) for name, value in own.items()}


def mean(values: np.ndarray, what: str) -> Finding:
    """The mean over examples [N] with its standard error."""
    value, se = mean_se(values)
    return Finding(value, what, se)


def monte_carlo(se: np.ndarray, name: str, weak: str = "") -> Finding:
    """The Monte Carlo standard error of a mean over examples, from those [N] of the examples.

    weak: the numbers that show that the weights are too few or too uneven for it ("ESS 2.1"), "" if they are not.
    """
    se = np.asarray(se, np.float64)
    doubt = f"; too small: {weak}" if weak else ""
    return Finding(float(np.sqrt((se**2).sum()) / len(se)), f"Monte Carlo standard error of {name}{doubt}")


def over(run: Evaluation, check: str, fn: Example, draws: int = 1, split: Split | None = None) -> dict[str, np.ndarray]:
    """The outputs [N, ...] of `fn` over the run's examples (or another split). `draws` only sizes the dispatches.

    All checks see the same pictures (dynamic binarization is drawn by the run's key and the example's index) and each draws its own
    noise: its name is folded into the example's key.
    """
    salt = zlib.crc32(check.encode())

    def own(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        return fn(params, jax.random.fold_in(key, salt), batch)

    return gather(map_split(own, run.split if split is None else split, run.key, draws=draws, **run.options)(run.params))


def latent(run: Evaluation) -> Latent:
    """The model's latent. UserError: it has none."""
    if run.model.latent is None:
        raise UserError(f"model.kind={run.config.model['kind']!r} has no latent variable")
    return run.model.latent


def needs_latent(run: Evaluation, settings: Any) -> None:
    """`Measure.needs` of a measure of any model with a latent variable. UserError: there is none."""
    del settings
    latent(run)


def first(run: Evaluation) -> dict[str, np.ndarray]:
    """A batch of one: the run's first example."""
    return {name: np.asarray(a[:1]) for name, a in run.split.arrays().items()}


def posterior_shape(run: Evaluation) -> tuple[tuple[int, ...], bool]:
    """(event shape of z, whether q(z|x) is a diagonal Gaussian) of a model with a continuous latent. UserError: it has none.

    Traced, not run: nothing is compiled.
    """
    found = latent(run)
    if found.discrete:
        raise UserError("the latent is discrete: there is no gradient with respect to it")
    kinds = []

    def draw(params, batch):
        q = found.posterior(params, batch["x"], batch.get("context"))
        kinds.append(gaussian(q) is not None)
        return q.sample(seed=run.key)

    return jax.eval_shape(draw, run.params, first(run)).shape[1:], kinds[0]
