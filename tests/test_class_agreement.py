"""Samples of a class: a model that draws what is asked for, and one that does not look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diagnose_toys import number, run
from tests.toys import gaussian_flow
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import class_agreement
from vaeflow.evaluation.measures.class_agreement import ClassAgreementSettings

CENTRES = np.array([[0.0, 4, 0], [4, 0, 0], [0, 0, 4]])


def points(n: int, seed: int) -> Split:
    label = np.arange(n) % 3
    x = CENTRES[label] + np.random.default_rng(seed).normal(size=(n, 3))
    return Split(x.astype(np.float32), label=label, context=np.eye(3, dtype=np.float32)[label])


@pytest.mark.parametrize("looks", [True, False])
def test_the_share_of_samples_of_their_class(looks, tmp_path):
    def sample(params, key, n, context=None):
        own = context if looks else jax.nn.one_hot(jax.random.randint(key, (n,), 0, 3), 3)
        return {"x": own @ jnp.asarray(CENTRES, jnp.float32) + jax.random.normal(jax.random.fold_in(key, 1), (n, 3))}

    own = run(gaussian_flow()._replace(sample=sample, event=(3,)), points(90, 1), points(300, 0), context="label", cache_dir=str(tmp_path))
    settings = ClassAgreementSettings(samples=300, features=8, classifier_steps=200)
    class_agreement.needs(own, settings)
    found = class_agreement.prepare(own, settings)({}, jax.random.key(0))
    value, se = number(found["agreement"])
    ceiling, _ = number(found["held_out"])
    assert ceiling > 0.9
    assert value > 0.9 if looks else abs(value - 1 / 3) < 4 * se


def test_models_that_are_not_given_classes():
    own = run(gaussian_flow(), points(30, 1), context="none")
    with pytest.raises(UserError, match="samples need a class as context"):
        class_agreement.needs(own, ClassAgreementSettings())
