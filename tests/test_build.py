"""Every way in which a configuration's section or part can be wrong is one line that names the key, the value and the choices."""

from __future__ import annotations

from typing import Annotated, Literal

import ml_collections
import pytest

from vaeflow.bijectors import Layer
from vaeflow.build import Count, Decay, Fraction, Natural, NonNegative, Positive, Range, build, call, describe
from vaeflow.errors import UserError, unknown
from vaeflow.nets import Net


def section(
    *,
    size: Count,
    rate: Positive,
    decay: Decay,
    mode: Literal["fast", "slow"],
    flip: bool,
    path: str,
    hidden: tuple[Count, ...],
    layer: Layer | None,
    level: Annotated[float, Range(-1, 1, open_low=True)],
):
    return locals()


GOOD = {
    "size": 3,
    "rate": 1,
    "decay": 0.9,
    "mode": "fast",
    "flip": False,
    "path": "",
    "hidden": [4, 5],
    "layer": "",
    "level": 0.5,
}
MLP = {"kind": "mlp", "hidden": [8]}
PARTS = {
    "net": MLP,
    "flip": {"kind": "permutation"},
    "step": {"kind": "chain", "of": ["affine", "flip"]},
    "affine": {"kind": "affine_coupling", "net": "net", "mask": "half"},
}


def message(**changes) -> str:
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(UserError) as error:
        call(section, values, "model", PARTS)
    assert "\n" not in str(error.value)
    return str(error.value)


def part(**changes) -> str:
    with pytest.raises(UserError) as error:
        build({**PARTS, **changes}, "step", Layer)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_good_values_pass_and_are_made_what_the_annotations_say():
    made = call(section, GOOD, "model", PARTS)
    assert made == {**GOOD, "rate": 1.0, "hidden": (4, 5), "layer": None}
    assert isinstance(made["rate"], float) and isinstance(made["hidden"], tuple)
    config = ml_collections.ConfigDict(GOOD).lock()
    assert call(section, config, "model", ml_collections.ConfigDict(PARTS)) == made
    assert isinstance(call(section, {**GOOD, "layer": "step"}, "model", PARTS)["layer"], Layer)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sise": 3}, "model: the key='sise' is unknown (did you mean 'size'?); known: decay, flip, hidden, layer, level, mode,"),
        ({"size": None, "mode": None}, "model: missing model.size (int >= 1), model.mode (one of fast, slow)"),
        ({"layer": None}, "missing model.layer (a layer, or the name of one in config.parts or '')"),
        ({"size": "3"}, "model.size='3' has the wrong type; it must be int"),
        ({"size": 3.0}, "model.size=3.0 has the wrong type"),
        ({"size": True}, "model.size=True has the wrong type"),
        ({"size": 0}, "model.size=0 is invalid; it must be >= 1"),
        ({"size": -4}, "model.size=-4 is invalid"),
        ({"rate": 0.0}, "model.rate=0.0 is invalid; it must be > 0"),
        ({"rate": float("nan")}, "model.rate=nan is invalid; it must be a finite number"),
        ({"rate": float("inf")}, "model.rate=inf is invalid; it must be a finite number"),
        ({"rate": "fast"}, "model.rate='fast' has the wrong type; it must be float"),
        ({"rate": False}, "model.rate=False has the wrong type"),
        ({"decay": 1.0}, "model.decay=1.0 is invalid; it must be >= 0 and < 1"),
        ({"level": -1.0}, "model.level=-1.0 is invalid; it must be > -1 and <= 1"),
        ({"mode": "fest"}, "model.mode='fest' is unknown (did you mean 'fast'?); known: fast, slow"),
        ({"flip": 1}, "model.flip=1 has the wrong type; it must be bool"),
        ({"path": 3}, "model.path=3 has the wrong type; it must be str"),
        ({"hidden": 4}, "model.hidden=4 has the wrong type; it must be a list of int >= 1"),
        ({"hidden": [4, 0]}, "model.hidden[1]=0 is invalid; it must be >= 1"),
        ({"hidden": "45"}, "model.hidden='45' has the wrong type"),
        ({"layer": "stepp"}, "model.layer='stepp' is unknown (did you mean 'step'?); known: actnorm, "),
        ({"layer": 3}, "model.layer=3 has the wrong type; it must be a layer, or the name of one in config.parts"),
        ({"layer": "net"}, "parts.net.kind='mlp' is a net, where a layer is needed; known: actnorm, "),
    ],
)
def test_a_wrong_value_is_one_line(changes, expected):
    assert expected in message(**changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"step": {"of": []}}, "parts.step.kind is missing; known layer kinds: actnorm, "),
        ({"step": {"kind": "chian", "of": []}}, "parts.step.kind='chian' is unknown (did you mean 'chain'?); known: actnorm, "),
        ({"step": {"kind": "chain", "of": ["affine", "flop"]}}, "parts.step.of[1]='flop' is unknown (did you mean 'flip'?)"),
        (
            {"step": {"kind": "chain", "of": "affine"}},
            "parts.step.of='affine' has the wrong type; it must be a list of a layer, or the name of one",
        ),
        ({"step": {"kind": "repeat", "of": "step", "n": 2, "memory": "store"}}, "parts.step contains itself: step -> step"),
        ({"affine": {"kind": "inverse", "of": "step"}}, "parts.step contains itself: step -> affine -> step"),
        ({"step": {"kind": "repeat", "of": "affine", "n": 0, "memory": "store"}}, "parts.step.n=0 is invalid; it must be >= 1"),
        (
            {"affine": {**PARTS["affine"], "net": "flip"}},
            "parts.flip.kind='permutation' is a layer, where a net is needed; known: beside, concat_squash, ",
        ),
        ({"net": {**MLP, "activation": "rely"}}, "parts.net.activation='rely' is unknown (did you mean 'relu'?); known: elu, "),
        ({"net": {**MLP, "hidden": [8, -1]}}, "parts.net.hidden[1]=-1 is invalid"),
        ({"net": {**MLP, "size": 3}}, "parts.net: the key='size' is unknown; known: activation, dtype, hidden"),
        ({"affine": {"kind": "affine_coupling", "net": "net"}}, "parts.affine: missing parts.affine.mask (one of half, alternating, "),
    ],
)
def test_a_wrong_part_is_one_line(changes, expected):
    assert expected in part(**changes)


def test_a_part_may_be_used_twice():
    twice = {**PARTS, "both": {"kind": "chain", "of": ["step", "step"]}}
    assert isinstance(build(twice, "both", Layer), Layer)
    assert isinstance(build(twice, "net", Net), Net)
    with pytest.raises(UserError, match=r"a part's name='bath' is unknown \(did you mean 'both'\?\); known: affine, both, flip, net, step"):
        build(twice, "bath", Layer)


def test_descriptions_and_ranges_read_like_words():
    words = {Natural: "int >= 0", NonNegative: "float >= 0", Fraction: "float >= 0 and <= 1", tuple[str, ...]: "a list of str"}
    assert {hint: describe(hint) for hint in words} == words
    assert 0 in Range(0) and 0 not in Range(0, open_low=True) and 1 not in Range(0, 1, open_high=True)
    assert float("nan") not in Range()
    assert str(unknown("c.x", 3, [])) == "c.x=3 is unknown; known: none"
