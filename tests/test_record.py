"""record.py: a made model is a config, from which the same model is made; what a wrong argument of a maker says."""

from __future__ import annotations

import pytest
from ml_collections import ConfigDict

from tests.model_cases import FROZEN, config
from vaeflow.bijectors import affine_coupling, chain, permutation, repeat
from vaeflow.errors import UserError
from vaeflow.flows import FLOWS
from vaeflow.models import MODELS, build_model
from vaeflow.models.flow import flow
from vaeflow.nets import mlp
from vaeflow.objectives.schedules import linear
from vaeflow.record import sections
from vaeflow.training.configure import complete

EVERY = {**MODELS, **FLOWS}
CASES = [
    (name, i)
    for name, entry in EVERY.items()
    for i, e in enumerate(entry.examples)
    if not any(isinstance(v, str) and v in FROZEN for v in e.values())
]


@pytest.mark.parametrize(("name", "i"), CASES)
def test_a_model_is_the_config_that_makes_it(name, i):
    made = build_model(config(name, dict(EVERY[name].examples[i])))
    first = sections(made)
    assert first.model["kind"] == name
    again = build_model(first._asdict())
    assert sections(again) == first
    whole = complete(ConfigDict({**first._asdict(), "data": {"kind": "digits"}}))
    assert sections(build_model(whole)) == first  # completing adds nothing, as every argument is there


def test_one_part_that_is_used_twice_is_one_part():
    net = mlp(hidden=(8,))
    both = chain(affine_coupling(net=net, mask="half"), permutation(), affine_coupling(net=net, mask="half", flip=True))
    parts = sections(flow(event=(2,), layer=repeat(both, 2))).parts
    assert [name for name in parts if name.startswith("mlp")] == ["mlp"]
    assert {"affine_coupling", "affine_coupling_2"} <= parts.keys() and parts["affine_coupling_2"]["flip"] is True


def test_a_spec_is_shown_as_the_call():
    assert repr(affine_coupling(net=mlp(hidden=(8,)), mask="half").spec) == "affine_coupling(net=mlp(hidden=(8,)), mask='half')"
    assert repr(chain(permutation()._replace(spec=None)).spec) == "chain_of(of=(<Layer>,))"
    assert mlp(hidden=(8,)).spec == mlp(hidden=(8,)).spec != mlp(hidden=(9,)).spec


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: mlp(hidden=8), "mlp.hidden=8 has the wrong type; it must be a list of int >= 1"),  # type: ignore[arg-type]
        (lambda: mlp(hiden=(8,)), "mlp: the key='hiden' is unknown (did you mean 'hidden'?)"),  # type: ignore[call-arg]
        (lambda: mlp((8,)), "mlp: arguments are given by name: hidden, "),  # type: ignore[call-arg]
        (lambda: affine_coupling(net="cnn", mask="half"), "affine_coupling.net='cnn' is unknown"),  # type: ignore[arg-type]
        (lambda: affine_coupling(net=mlp, mask="half"), "affine_coupling.net=mlp, a function that must be called, has"),  # type: ignore[arg-type]
        (lambda: affine_coupling(net=permutation(), mask="half"), "it must be a net"),  # type: ignore[arg-type]
        (lambda: affine_coupling(net=mlp(hidden=(8,)), mask="halb"), "affine_coupling.mask='halb' is unknown"),  # type: ignore[arg-type]
        (lambda: linear(steps=0), "linear.steps=0 is invalid; it must be >= 1"),
        (lambda: affine_coupling(mask="half"), "affine_coupling: missing affine_coupling.net"),  # type: ignore[call-arg]
    ],
)
def test_a_wrong_argument_of_a_maker_is_one_line(call, error):
    with pytest.raises(UserError) as found:
        call()
    assert error in str(found.value) and "\n" not in str(found.value)
