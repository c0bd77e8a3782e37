"""`recorded` makers remember how a part was made, so that a model of a notebook can be written as a config and read back.

A part (a Layer, a Net, a Model, ...) that such a maker returns has a `spec`: the maker and its arguments. `sections` turns the spec of a
model into the sections `model`, `parts` and `sample` of a config, from which models.build_model makes the same model.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

from vaeflow.build import SAMPLING, Bare, check, maker, marked, part_of, registry, signature
from vaeflow.errors import UserError
from vaeflow.schema import passed_on

P = ParamSpec("P")
T = TypeVar("T")


class NoConfig(UserError):
    """A model that cannot be written as a config, as a part of it was made by hand."""


class Spec:
    """How a part was made: its maker, and all of its arguments by name. Two specs are equal if these are."""

    def __init__(self, make: Callable[..., Any], arguments: Mapping[str, Any]):
        self.make, self.arguments = make, dict(arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.make is other.make and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash(self.make)  # arguments may be mappings, which have no hash

    def __repr__(self) -> str:
        defaults = _defaults(self.make)
        shown = {key: value for key, value in self.arguments.items() if key not in defaults or value is not defaults[key]}
        return f"{self.make.__name__}({', '.join(f'{key}={_shown(value)}' for key, value in shown.items())})"


def _shown(value: Any) -> str:
    """A part as its spec, or as its type where it was made by hand."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    spec = getattr(value, "spec", value)
    return f"<{type(value).__name__}>" if spec is None and value is not None else repr(spec)


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
    return {key: own.default for key, own in inspect.signature(make).parameters.items() if own.default is not own.empty}


def recorded(make: Callable[P, T]) -> Callable[P, T]:
    """Decorates a maker: its arguments are checked against their annotations when it is called, and the part has a `spec`.

    Args:
        make: keyword-only, annotated arguments -> a NamedTuple that has a field `spec`. Where a part is expected, the name of a kind
            without required arguments is accepted too, as in a config.

    Raises:
        UserError: of the decorated maker: an argument is invalid; the line names the maker, the argument and the known choices.

    Example:
        @recorded
        def mlp(*, hidden: tuple[Count, ...] = (64,)) -> Net: ...

        mlp(hidden=(32, 32)).spec  # mlp(hidden=(32, 32))
    """

    @functools.wraps(make)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if args:
            raise UserError(f"{make.__name__}: arguments are given by name: {', '.join(signature(make))}")
        defaults = _defaults(make)
        given = {key: value for key, value in kwargs.items() if value is not None or defaults.get(key, "") is not None}
        values = check(make, given, make.__name__, {})
        made: Any = make(**values)  # type: ignore[call-arg]
        return made._replace(spec=Spec(checked, defaults | values))

    return checked


class Sections(NamedTuple):
    """The sections of a config that build a model, as plain values."""

    model: dict[str, Any]
    parts: dict[str, Any]
    sample: dict[str, Any]


def sections(model: Any) -> Sections:
    """The sections of a config from which `models.build_model` makes this model again.

    Args:
        model: a Model that a recorded maker returned.

    Raises:
        NoConfig: the model, or a part of it, was not made by a recorded maker that is in a registry.

    Example:
        sections(flow(event=(2,), layer=affine_coupling(net=mlp(), mask="half"))).parts["affine_coupling"]["net"]  # "mlp"
    """
    parts: dict[str, Any] = {}
    kind, values = kind_of(model, "the model"), _values(model, parts, [])
    hints = signature(model.spec.make)
    sampled = {key: values.pop(key) for key in list(values) if marked(hints[key], SAMPLING)}
    made = {"kind": kind, **values}
    for part, options in passed_on({"model": made, "parts": parts}).items():
        sampled |= {key: parts[part].pop(key) for key in options}
    return Sections(made, parts, sampled)


def kind_of(part: Any, where: str) -> str:
    """The kind of a part in its registry. NoConfig: it was not made by a function of one; the line names it by `where`."""
    spec: Spec | None = getattr(part, "spec", None)
    kind = next((kind for kind, entry in registry(type(part)).items() if spec is not None and maker(entry) is spec.make), None)
    if kind is None:
        raise NoConfig(f"{where} was not made by a function of a registry, so it has no config")
    return kind


def _values(part: Any, parts: dict[str, Any], named: list[tuple[Any, str]]) -> dict[str, Any]:
    """The arguments of a part as a config has them; the parts that it is made of are added to `parts`."""
    spec: Spec = part.spec
    hints = signature(spec.make)

    def plain(key: str, value: Any) -> Any:
        if registry(type(value)):
            return _named(key, value, parts, named)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):  # a group of values
            return {name: plain(name, own) for name, own in value._asdict().items()}  # type: ignore[attr-defined]
        if isinstance(value, tuple | list):
            return tuple(plain(key, own) for own in value)
        if isinstance(value, Mapping):
            return {str(name): plain(str(name), own) for name, own in value.items()}
        return value

    return {key: plain(key, _bare(hints[key]) if value is None else value) for key, value in spec.arguments.items()}


def _bare(hint: Any) -> Any:
    """What None stands for in an annotation: the part of that kind with its defaults, or "" for none."""
    kind = next((mark.kind for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Bare)), "")
    return maker(registry(part_of(hint))[kind])() if kind else ""


def _named(key: str, part: Any, parts: dict[str, Any], named: list[tuple[Any, str]]) -> str:
    """The name of a part in `parts`: its kind, with a number where there is another such part. key: the argument, for the errors."""
    for other, name in named:
        if other is part:
            return name
    kind = kind_of(part, key)
    own = kind.rpartition(".")[2]  # flows.nsf has a dot, which no key may have
    names = itertools.chain([own], (f"{own}_{i}" for i in itertools.count(2)))
    name = next(name for name in names if name not in parts)
    parts[name] = {}  # its place, so that the parts in it have other names
    named.append((part, name))
    parts[name] = {"kind": kind, **_values(part, parts, named)}
    return name
