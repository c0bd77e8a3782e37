"""The Model protocol: pure functions in a NamedTuple, like optax.GradientTransformation.

Shapes: B examples, *event the shape of one example as loaded. A `batch` is a mapping: `x` [B, *event]; where there is one,
`context` [B, C] (labels as one-hot, features), `x0` [B, *event0] (the other half of a pair, mostly of x's shape), `label` [B] int32 and
`mask` [B, *event] (True where x was observed; the other entries of x are any finite number).

Units: nats per example, with respect to the data as loaded (uint8 images: with dequantisation and scaling). Keys are used once.

Parameters are nested dictionaries. Three kinds of leaves, told apart by a key on their path:
    trained    everything else: gradients, optimiser, EMA
    "stats"    set by `update` after the optimiser's step (batch-norm statistics); Optax never sees them
    "fixed"    never changed (permutations, LU signs, a teacher): an argument of the step, saved once per workdir
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import traverse_util

from vaeflow.errors import UserError

Array = jax.Array
Batch = Mapping[str, Array]
Params = dict[str, Any]
NO_PARAMS: Params = {}  # the default of an init's `given`

# Callables of a model. pyright checks what a maker returns against them. Arguments before `/` are positional: their names are free.
UpdateFn = Callable[[Params, Array, Batch, Any], Params]  # (params, key, batch, step): with new "stats" leaves, after the optimiser's step
TermsFn = Callable[[Params, Array, Batch], dict[str, Array]]  # (params, key, batch) -> {name: [B]}: further numbers per example
ShowFn = Callable[[Array, Any], Array]  # (key, p(x|z)) -> x [B, *event] as `Model.sample` returns it: a mean that an image shows, or a draw


class InitFn(Protocol):
    """Parameters from a key and a batch (data-dependent initialisation); `given` are known parameters, see Model."""

    def __call__(self, key: Array, batch: Batch, /, given: Params = ...) -> Params: ...


class LossFn(Protocol):
    """(loss, metrics): the mean over the batch in training mode, and named scalars."""

    def __call__(self, params: Params, key: Array, batch: Batch, step: Any, /) -> tuple[Array, dict[str, Array]]: ...


class SampleFn(Protocol):
    """n draws as a batch, [n, ...] a leaf: `x` [n, *event] and what the family knows of them; context is [n, C] or None."""

    def __call__(self, params: Params, key: Array, n: int, /, context: Array | None = None) -> Batch: ...


class BatchFn(Protocol):
    """An array with one entry per example: log_prob [B] in nats, encode [B, ...]."""

    def __call__(self, params: Params, key: Array, batch: Batch, /) -> Array: ...


class ContinuousFn(Protocol):
    """log p(y|c) [B] in nats of y [B, *event]."""

    def __call__(self, params: Params, y: Array, /, context: Array | None = None) -> Array: ...


class PriorFn(Protocol):
    """p(z | context) as a distrax distribution, of batch shape [] or [B]."""

    def __call__(self, params: Params, /, context: Array | None = None) -> Any: ...


class ConditionalFn(Protocol):
    """q(z | x, context) or p(x | z, context) as a distrax distribution."""

    def __call__(self, params: Params, given: Array, /, context: Array | None = None) -> Any: ...


def _draw(key: Array, p: Any) -> Array:
    return p.sample(seed=key)


class Latent(NamedTuple):
    """Distributions over the latent z as functions of params; each is a distrax distribution.

    prior       (params, context=None) -> p(z), batch shape [] or [B]
    posterior   (params, x, context=None) -> q(z|x), batch shape [B]
    likelihood  (params, z, context=None) -> p(x|z) of data as loaded, batch shape of z's leading axes; a reconstruction is its `mean()`
    discrete    whether z is (as integers, or as bits in floating point): there is no gradient with respect to it
    exact       whether the prior's `sample` draws from the density that its `log_prob` is (resampled draws only nearly do)
    show        (key, p(x|z)) -> x as `Model.sample` gives it: means where a picture should show them, else draws
    before      the prior that this one changed, of a model that keeps the rest of another one (a second stage), or None
    embed       z as real numbers for a second stage: an Embed (vaeflow/models/parts/embed.py), or None
    """

    prior: PriorFn
    posterior: ConditionalFn
    likelihood: ConditionalFn
    discrete: bool = False
    exact: bool = True
    show: ShowFn = _draw
    before: PriorFn | None = None
    embed: Any = None


class Dynamics(NamedTuple):
    """The probability-flow ODE of a continuous-time model, in the model's own coordinates x [*shape], from the source at t_max to the data
    at t_min > 0: what a student reads of its teacher, and measures and figures of a model. Params are the model's own (`Frozen.of`).

    pull       (params, y [B, *event]) -> (x [B, *shape], log |det dx/dy| [B]) of real-valued y: dequantised, where data are grey values
    push       (params, x [B, *shape]) -> [B, *event] as `Model.sample` gives it
    velocity   (params, c [C] or None) -> (t [], x [*shape]) -> dx/dt [*shape], for one example; with the model's guidance
    path       the ProbabilityPath (vaeflow/diffusion/path.py): x_t = alpha(t) x + sigma(t) e
    spread     t [] -> []: the standard deviation of x_t. The source is N(0, spread(t_max)^2 I) or, of a `paired` model, data
    predictor  (params, c) -> (x [*shape], t []) -> Prediction (the same file), or None: the model predicts velocities only
    """

    pull: Callable[[Params, Array], tuple[Array, Array]]
    push: Callable[[Params, Array], Array]
    velocity: Callable[[Params, Array | None], Callable[[Array, Array], Array]]
    path: Any
    spread: Callable[[Array | float], Array]
    t_min: float
    t_max: float
    shape: tuple[int, ...]
    predictor: Callable[[Params, Array | None], Callable[[Array, Array], Any]] | None = None


class Noised(NamedTuple):
    """A classifier of noised data, by whose gradient a continuous-time model is guided. Params are the classifier's own (`Frozen.of`).

    log_prob   (params, x_t [*shape], t []) -> log p(c | x_t, t) [classes], of one example, for t in [t_min, 1]
    path, space   the ProbabilityPath of x_t = alpha x + sigma e; the Coordinates of x (vaeflow/models/parts/continuous_time.py)
    """

    log_prob: Callable[[Params, Array, Array], Array]
    path: Any
    space: Any
    t_min: float


class Model(NamedTuple):
    """One model family, built from its config by a maker in MODELS.

    init      (key, batch, given={}) -> params                sees a batch: data-dependent initialisation. given: parameters of another
              run, at some or all of this model's paths: they replace the initial values before anything downstream is initialised
    loss      (params, key, batch, step) -> (scalar, metrics)  mean nats per example; training mode
    sample    (params, key, n, context [n, C] or None) -> {"x": [n, *event], ...}, and what the family knows of a draw, such as its latent
              "z", [n, ...]. Others call it by evaluation/sampling.py. None: it draws nothing
    log_prob  (params, key, batch) -> [B] nats, or None       ONE draw of the estimator; evaluation mode
    density   what log_prob is. exact: log p(x). weight: exp of it has mean p(x) (its own mean is a lower bound, the ELBO). bound: a lower
              bound in expectation. estimate: its mean is log p(x): averaged outside the log, never integrated on a grid. none: no density
    latent    for models with a latent variable: what reconstructions, active units and AIS need
    encode    (params, key, batch) -> z [B, ...], or None       without `latent`: a flow's f^-1(x), a classifier's features
    update    (params, key, batch, step) -> params, or None   sets the "stats" leaves after the optimiser's step
    terms     (params, key, batch) -> {name: [B]}, or None    further numbers, in nats; "loss" among them selects `best`, not -log_prob
    energy    (params, key, batch) -> [B] nats, or None       -log p(x) + an unknown constant; one dequantisation draw
    note      what the number is when it is not a log-likelihood of the data (printed beside it), else ""
    remark    what the density is of, where not of the data themselves, as "of x_t at t = 0.001" (printed beside the estimator), else ""
    continuous  (params, y [B, *event], context) -> log p(y|c) [B] of real-valued y, or None: what log_prob applies to dequantised data
    event, levels   the shape of one example and the number of grey values (0: continuous) that the data must have; None: any
    paired    whether `sample` also takes x0 [n, *event] and maps it to x: the data must have pairs (the leaf x0 of a batch)
    edits     whether `sample` also takes reference [n, *event], keeps what is known of it and gives that as "known" [n, *event]
    classes   number of classes of `label`, which the model reads and every example must have; 0: it reads no labels
    masked    whether the model reads `mask`; data with a mask are refused otherwise
    dynamics  the probability-flow ODE of a continuous-time model, or None
    noised    of a classifier that was trained on noised data: p(c | x_t, t), or None
    init_examples  how many examples of the training split `init` is best given; 0: a batch of data.batch
    optim     (key, value) pairs of the section `optim`, such as the turns of two players, which `vaeflow.fit` uses; a config has its own
    one_device, spec   why the model trains on one device only, or ""; how it was made, see record.py
    """

    init: InitFn
    loss: LossFn
    sample: SampleFn | None
    log_prob: BatchFn | None
    density: Literal["exact", "weight", "bound", "estimate", "none"]
    latent: Latent | None = None
    encode: BatchFn | None = None
    update: UpdateFn | None = None
    terms: TermsFn | None = None
    energy: BatchFn | None = None
    note: str = ""
    remark: str = ""
    continuous: ContinuousFn | None = None
    event: tuple[int, ...] | None = None
    levels: int | None = None
    paired: bool = False
    edits: bool = False
    classes: int = 0
    masked: bool = False
    dynamics: Dynamics | None = None
    noised: Noised | None = None
    init_examples: int = 0
    optim: tuple[tuple[str, Any], ...] = ()
    one_device: str = ""
    spec: Any = None


def by_path(params: Params) -> dict[tuple[str, ...], Any]:
    """The leaves of a parameter tree by their paths."""
    return traverse_util.flatten_dict(params)  # type: ignore[return-value]


def split_params(params: Params, frozen: frozenset[tuple[str, ...]] = frozenset()) -> tuple[Params, Params, Params]:
    """(trained, stats, fixed) of a parameter tree; `frozen` paths count as fixed. `merge_params` is its inverse."""
    groups: tuple[dict, dict, dict] = ({}, {}, {})
    for path, leaf in by_path(params).items():
        which = 2 if "fixed" in path or path in frozen else 1 if "stats" in path else 0
        groups[which][path] = leaf
    trained, stats, fixed = (traverse_util.unflatten_dict(g) for g in groups)
    return trained, stats, fixed


def merge_params(*trees: Params) -> Params:
    """The union of parameter trees with disjoint leaves."""
    return traverse_util.unflatten_dict({path: leaf for tree in trees for path, leaf in by_path(tree).items()})


def common(params: Params, given: Params) -> dict[tuple[str, ...], Any]:
    """The leaves of `given` at paths that `params` (arrays or their shapes) has too. UserError: the shapes differ."""
    mine, other = by_path(params), by_path(given)
    found = {path: other[path] for path in mine if path in other}
    for path, leaf in found.items():
        if leaf.shape != mine[path].shape:
            raise UserError(f"{'/'.join(path)} has the shape {leaf.shape}, here {mine[path].shape}")
    return found


def overlay(params: Params, given: Params) -> Params:
    """`params` with the leaves of `given` at the paths that both have; other leaves of `given` are ignored.

    An `init` calls it each time that it has made parameters which later ones depend on: a prior's layer that normalises its first
    batch must see latents of the given encoder.

    Args:
        params: some or all of a model's parameters.
        given: the argument of `Model.init`.

    Raises:
        UserError: a given leaf has another shape.
    """
    if not given:
        return params
    found = {path: jnp.asarray(leaf) for path, leaf in common(params, given).items()}
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(params, keep_empty_nodes=True) | found)


def exactly(init: InitFn) -> InitFn:
    """An `init` whose result has every leaf of `given`, also if the family's own `init` ignores the argument.

    Raises:
        UserError: a given leaf has another shape, or the model has no parameters at its path.
    """

    @functools.wraps(init)
    def checked(key: Array, batch: Batch, given: Params = NO_PARAMS) -> Params:
        params = overlay(init(key, batch, given), given)
        if unknown := by_path(given).keys() - by_path(params).keys():
            raise UserError(f"given has {', '.join(sorted(map('/'.join, unknown))[:3])}, and this model has no such parameters")
        return params

    return checked


class Frozen(NamedTuple):
    """Another run's model as an argument of a family: what a maker gets for an argument that is annotated `Frozen`.

    model   its functions, of parameters of their own
    name    the argument's name: in this model's parameters those of `model` are params["fixed"][name]
    train   whether they are trained on: they are params[name] then

    A config names it by its workdir, see vaeflow/training/frozen.py.

    Example:
        def second_stage(*, vae: Frozen) -> Model:
            def init(key, batch, given=NO_PARAMS):
                return vae.init(key, batch, given) | {...}

            def loss(params, key, batch, step):
                z = vae.model.latent.posterior(vae.of(params), batch["x"])
    """

    model: Model
    name: str
    train: bool = False

    def of(self, params: Params) -> Params:
        """The parameters of `model` in those of the model that has this argument; {} if there are none."""
        return (params if self.train else params.get("fixed", NO_PARAMS)).get(self.name, NO_PARAMS)

    def put(self, own: Params) -> Params:
        """A tree with the parameters `own` of `model` alone: the inverse of `of`."""
        return ({self.name: own} if self.train else {"fixed": {self.name: own}}) if own else {}

    def init(self, key: Array, batch: Batch, given: Params = NO_PARAMS) -> Params:
        """`put` of the given parameters of `model` or, where there are none, of initial ones."""
        own = self.of(given)
        return self.put(overlay(self.model.init(key, batch, own), own))
