"""Samples of a class by the gradient of a classifier of noised data: against closed forms, what is refused, and the commands."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands import call, refusal, train_only
from tests.diffusion_cases import Mixture, path_of
from tests.model_cases import KEY, quick
from tests.test_diffusion_model import CLOCK, net_of
from tests.test_given import write_run
from vaeflow.bijectors.elementwise import scale
from vaeflow.diffusion.coupling import exact
from vaeflow.diffusion.kinds import KINDS
from vaeflow.diffusion.path import PATHS, ProbabilityPath
from vaeflow.diffusion.steps import STEPS
from vaeflow.errors import UserError
from vaeflow.model import Frozen, Model, Noised
from vaeflow.models.classifier import classifier
from vaeflow.models.diffusion import diffusion
from vaeflow.models.parts.continuous_time import coordinates
from vaeflow.nets.mlp import mlp
from vaeflow.override import override
from vaeflow.schema import complete
from vaeflow.training import setup
from vaeflow.training.configure import load

VP, DATA, T_MIN = path_of("vp"), Mixture(), 1e-3


def component(k: int) -> Mixture:
    return Mixture((1.0,), DATA.mean[k : k + 1], DATA.std[k : k + 1])


def known_classifier(path: ProbabilityPath = VP, **changes) -> Model:
    """The exact p(component | x_t) of the mixture, in coordinates of half the data's scale."""

    def log_prob(params, x, t):
        return jax.nn.log_softmax(DATA.log_components(path, t, x))

    def none(*_, **__):
        return {}

    own = Noised(log_prob, path, coordinates((2,), 0, scale(factor=2.0), False, "auto"), T_MIN)
    return Model(none, none, None, None, "none", event=(2,), levels=0, classes=2, noised=own)._replace(**changes)  # type: ignore[arg-type]


def known_diffusion(**options) -> Model:
    """The exact unconditional prediction of the mixture, with the exact classifier."""

    def predict(x, context, _):
        assert context.shape[-1] == 1  # the time alone: the network sees no class
        return jax.vmap(lambda x, t: DATA.predict(VP)(x, t).data)(jnp.atleast_2d(x), jnp.atleast_1d(context[..., 0])).reshape(x.shape)

    fixed = dict(event=(2,), net=net_of(predict), embedding=CLOCK, path=VP, predict=KINDS["data"](), t_min=T_MIN)
    return diffusion(**(fixed | dict(classifier=Frozen(known_classifier(), "classifier")) | options))  # type: ignore[arg-type]


def batch_of(n: int = 6):
    return {"x": jnp.zeros((n, 2)), "context": jnp.eye(2)[jnp.arange(n) % 2], "label": jnp.arange(n) % 2}


@pytest.fixture(scope="module")
def params():
    return quick(known_diffusion().init)(KEY, batch_of())


def test_the_exact_classifier_gives_the_class(params):
    model, x = known_diffusion(), jnp.array([0.4, -0.9])
    assert model.dynamics is not None and model.dynamics.predictor is not None and model.classes == 2
    classes, predictor = jnp.eye(2), model.dynamics.predictor

    @quick
    def found(t):
        mine = [predictor(params, c)(x, t) for c in (*classes, None)]
        return mine, [of.predict(VP)(x, t) for of in (component(0), component(1), DATA)]

    for t in map(jnp.float32, (0.05, 0.4, 0.8)):
        for got, want in zip(*found(t), strict=True):
            np.testing.assert_allclose(got.data, want.data, rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(got.noise, want.noise, rtol=2e-3, atol=2e-3)


def test_samples_are_of_the_class_on_the_scale_of_the_data(params):
    model, labels = known_diffusion(sampler=STEPS["ancestral"](), steps=100), np.arange(1000) % 2
    assert model.sample is not None
    drawn = quick(model.sample, static_argnums=2)(params, KEY, 1000, jnp.eye(2)[labels])
    for k in (0, 1):
        own = np.asarray(drawn["x"])[labels == k]
        np.testing.assert_allclose(own.mean(0), 2 * np.array(DATA.mean[k]), atol=0.2)
        np.testing.assert_allclose(own.std(0), 2 * DATA.std[k], atol=0.15)


def test_the_density_is_that_of_the_unguided_model(params):
    model = known_diffusion()
    assert model.log_prob is None and model.density == "none" and model.note == "the field of classifier_scale=1 has no density"
    model = known_diffusion(classifier_scale=0.0, solver="rk4", solver_steps=100)
    assert model.log_prob is not None and model.density == "exact" and model.note == ""
    y = 2 * jnp.array([[0.4, -0.9], [-1.0, 0.3]])
    want = [DATA.log_prob(VP, jnp.float32(T_MIN), x) - 2 * np.log(2) for x in y / 2]
    for context in jnp.eye(2):
        batch = {"x": y, "context": jnp.stack([context, context])}
        np.testing.assert_allclose(quick(model.log_prob)(params, KEY, batch), want, atol=0.03)


def test_a_classifier_of_noised_data_sees_all_times_on_one_scale():
    """The loss is the mean over t, standardised at each; the accuracy and the features are at t_min. A plain one has another loss."""
    seen = []

    def observed(x, context, _):
        seen.append((np.asarray(x), np.asarray(context)))
        return jnp.concatenate([x, x], -1)

    label = jnp.arange(1000) % 2
    batch = {"x": 3.0 + 2 * label[:, None] + 0.1 * jax.random.normal(jax.random.key(1), (1000, 1)), "label": label}
    options = dict(event=(1,), classes=2, features=2, net=net_of(observed))
    model = classifier(path=PATHS["ve"](sigma_max=30.0), embedding=CLOCK, layer=scale(factor=2.0), t_min=0.01, **options)  # type: ignore[arg-type]
    params = model.init(KEY, batch)
    seen.clear()
    loss = model.loss(params, KEY, batch, 0)[0]
    ((scaled, times),) = seen
    np.testing.assert_allclose(np.histogram(times, 10, (0.01, 1.0))[0], 100, atol=1)
    assert all(0.9 < scaled[part].std() < 1.1 for part in (times < 0.3, times > 0.7))
    terms = model.terms(params, KEY, batch)  # type: ignore[misc]
    assert (seen[1][1] == np.float32(0.01)).all() and abs(terms["loss"].mean() - loss) < 1e-6
    assert abs(terms["label_cross_entropy"].mean() - loss) > 0.02
    log_p = model.noised.log_prob(params, jnp.array([1.5]), jnp.float32(0.5))  # type: ignore[union-attr]
    assert log_p.shape == (2,) and float(jnp.exp(log_p).sum()) == pytest.approx(1, rel=1e-5)

    seen.clear()
    plain = classifier(**(options | dict(net=mlp(hidden=()))))  # type: ignore[arg-type]
    assert plain.noised is None and set(plain.init(KEY, batch)) == {"network", "standardize"}
    noised = classifier(**(options | dict(net=mlp(hidden=()))), path=VP, embedding=CLOCK)  # type: ignore[arg-type]
    assert abs(plain.loss(plain.init(KEY, batch), KEY, batch, 0)[0] - noised.loss(noised.init(KEY, batch), KEY, batch, 0)[0]) > 0.02


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: known_diffusion(path=PATHS["subvp"]()),
            r"model.path is not the path of model.classifier: at t=0.1 its .alpha, sigma. are \(0.\d+, 0.\d+\), the classifier's \(0",
        ),
        (lambda: known_diffusion(layer=scale(factor=2.0)), "model.classifier has its own layer: leave out model.layer"),
        (lambda: known_diffusion(dequantize="none"), "flatten and dequantize"),
        (lambda: known_diffusion(coupling=exact()), "leave out model.layer, .* coupling"),
        (lambda: known_diffusion(event=(3,)), r"model.classifier is of data with event=\(2,\), levels=0, not event=\(3,\)"),
        (lambda: known_diffusion(t_min=1e-5), "model.t_min=1e-05 is below the smallest time of model.classifier, model.t_min=0.001"),
        (lambda: known_diffusion(path=PATHS["ot"](gamma=0.5), t_max=0.9), "needs a fixed model.path without gamma"),
        (lambda: known_diffusion(classifier=None, classifier_scale=2.0), "sample.classifier_scale=2 has no use"),
        (
            lambda: known_diffusion(classifier=Frozen(known_classifier(), "classifier", train=True)),
            "model.classifier.train=True is invalid",
        ),
        (lambda: known_diffusion(classifier=Frozen(known_classifier(noised=None), "classifier")), "a classifier of noised data"),
        (
            lambda: known_diffusion(path=PATHS["ot"](), classifier=Frozen(known_classifier(PATHS["ot"]()), "classifier")),
            "sample.t_max=1 is invalid with model.classifier",
        ),
        (lambda: known_diffusion().init(KEY, batch_of() | {"context": jnp.zeros((6, 3))}), "needs the class as context, of 2 classes"),
        (
            lambda: classifier(event=(2,), classes=2, net=mlp(hidden=()), layer=scale(factor=1.0)),
            "model.layer has no use in a classifier without",
        ),
        (lambda: classifier(event=(2,), classes=2, net=mlp(hidden=()), path=PATHS["fourier"]()), "must be a fixed path without gamma"),
    ],
)
def test_wrong_arguments_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


SMALL = ("--config.parts.net.kind=mlp", "--config.parts.net.hidden=8", "--config.data.batch=32")
STEPS_OF = ("--config.train.steps=4", "--config.train.log_every=2", "--config.train.eval_every=4", "--config.train.checkpoint_every=4")


def test_the_commands_sample_classes(tmp_path):
    one, two, guided = tmp_path / "one", tmp_path / "two", "--config=configs/digits_diffusion.py:classifier_guided"
    c = complete(load("configs/digits_classifier.py:noised"))
    for key, value in (("parts.net.kind", "mlp"), ("parts.net.hidden", "8")):
        override(c, key, value)
    x = setup.make_experiment(c)
    write_run(one, x.config, setup.init_params(x)[0])
    words = (guided, *SMALL, *STEPS_OF, f"--config.model.classifier={one}")
    assert "model.path is not the path of model.classifier" in refusal("train", *words, "--config.model.path=cosine", f"--workdir={two}")
    train_only(*words, f"--workdir={two}")
    call("sample", f"--workdir={two}", "--label=3", "--config.sample.steps=2", "--config.sample.n=5")
    drawn = np.load(two / "samples.npz")
    assert (drawn["label"] == 3).all() and drawn["x"].shape == (5, 8, 8, 1)
