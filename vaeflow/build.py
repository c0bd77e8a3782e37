"""From plain values to checked ones: every config section and every part goes through `call`.

A maker is a function with keyword-only arguments (or a NamedTuple class); its annotations are the schema:

    int, float, str, bool            the type; floats must be finite
    Annotated[float, Range(...)]     a number in a closed or half-open interval (see Count, Positive, Fraction, ...)
    Literal["a", "b"]                a closed set of names
    tuple[int, ...]                  a list or tuple of such
    a NamedTuple class               a group of values, checked in turn
    Mapping[str, int]                a group of values whose keys are free
    Layer, Net                       the NAME of another entry of `config.parts`, which is built in turn; or a kind that requires nothing
    Frozen                           a trained model, see vaeflow/training/frozen.py: read by a function that `read_by` names
    Layer | None                     the same, or "" for none
    Schedule | NonNegative           a part or a number
    Annotated[..., SAMPLING]         an option of drawing samples, which stands in config.sample
    Annotated[float, TRACED]         a number that may be a tracer: cells of a table that differ in it train in one program
    Annotated[Layer | None, Bare("normal")]    None is the kind `normal`, all arguments at their defaults

`call` requires every argument that has no default, and accepts no others, so a mistyped key, a missing one and an invalid value are each
one line that names the key, the value and the known choices. Nothing is compiled before that.
"""

from __future__ import annotations

import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from ml_collections import ConfigDict

from vaeflow.errors import UnknownKind, UserError, unknown, unknown_kind


class Range(NamedTuple):
    """low <= value <= high; `open_low` makes it low < value, `open_high` value < high."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        words = []
        if self.low > -math.inf:
            words.append(f"{'>' if self.open_low else '>='} {self.low:.10g}")
        if self.high < math.inf:
            words.append(f"{'<' if self.open_high else '<='} {self.high:.10g}")
        return " and ".join(words)


class Bare(NamedTuple):
    """The kind that None stands for, where a part is not named; its maker must require no arguments."""

    kind: str


Mark = enum.Enum("Mark", ["SAMPLING", "TRACED"])  # what else an annotation says of an argument; see the module's docstring
SAMPLING, TRACED = Mark.SAMPLING, Mark.TRACED

Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
SEEDS = Range(0, 2**32 - 1)  # what jax.random.key takes: larger ones it cuts in silence
Seed = Annotated[int, SEEDS]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, open_high=True)]

# Types whose values are given by the name of a part, each with its registry: filled by `part_kind`.
_PART_KINDS: dict[type, tuple[str, Mapping[str, Any]]] = {}


def part_kind(kind: type, title: str, registry: Mapping[str, Any]) -> None:
    """Say that arguments annotated `kind` are part names, looked up in `registry` (name -> maker or entry with `.make`)."""
    _PART_KINDS[kind] = (title, registry)


def part_of(hint: Any) -> Any:
    """The part type of an annotation, such as Layer of `Layer | None`; None for other annotations."""
    if hint in _PART_KINDS:
        return hint
    if get_origin(hint) in (types.UnionType, typing.Union, Annotated):
        inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
        return next(filter(None, map(part_of, inner)), None)
    return None


def takes_parts(hint: Any) -> bool:
    """True if the value of an argument is the name of a part, or a list of such."""
    return part_of(hint) is not None or (get_origin(hint) is tuple and part_of(get_args(hint)[0]) is not None)


def parts_in(hint: Any, value: Any) -> list[tuple[str, Any]]:
    """[(name of a part, its type)] that the value of an argument names."""
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return [pair for item in value for pair in parts_in(get_args(hint)[0], item)]
    want = part_of(hint)
    return [(value, want)] if want is not None and isinstance(value, str) and value else []


def registry(want: type | str) -> Mapping[str, Any]:
    """The kinds of a part type, or of one that is called `want`; empty before the registry is imported."""
    return next((kinds for kind, (title, kinds) in _PART_KINDS.items() if want in (kind, title)), {})


def part_types(kind: str) -> list[type]:
    """The part types that have a kind of this name."""
    return [want for want, (_, kinds) in _PART_KINDS.items() if kind in kinds]


# Types whose values a function of (value, config key) reads, each with the words for them: filled by `read_by`.
_READERS: dict[type, tuple[str, Callable[[Any, str], Any]]] = {}


def read_by(kind: type, title: str, read: Callable[[Any, str], Any]) -> None:
    """Say that values of arguments annotated `kind` are made by read(value, config key)."""
    _READERS[kind] = (title, read)


def call(make: Callable[..., Any], values: Mapping[str, Any], where: str, parts: Mapping[str, Any] | None = None) -> Any:
    """make(**values) after checking names and types. `where` is the config key of `values`, for the errors."""
    return make(**check(make, values, where, parts or {}))


def build(parts: Mapping[str, Any], name: str, want: type, _open: tuple[str, ...] = ()) -> Any:
    """The part `parts[name]`, which must be of the type `want`, with all parts that it names."""
    title, registry = _PART_KINDS[want]
    where = f"parts.{name}"
    if name not in parts:
        raise unknown("a part's name", name, parts)
    if name in _open:
        raise UserError(f"{where} contains itself: {' -> '.join((*_open, name))}")
    values = dict(parts[name])
    kind = values.pop("kind", None)
    if kind is None:
        raise UserError(f"{where}.kind is missing; known {title} kinds: {', '.join(sorted(registry))}")
    if kind not in registry:
        for other, (other_title, other_registry) in _PART_KINDS.items():
            if other is not want and kind in other_registry:
                raise UserError(
                    f"{where}.kind={kind!r} is {_a(other_title)}, where {_a(title)} is needed; known: {', '.join(sorted(registry))}"
                )
        raise unknown_kind(f"{where}.kind", kind, registry)
    make = maker(registry[kind])
    checked = check(make, values, where, parts, (*_open, name))
    try:
        return make(**checked)
    except UserError as error:  # values that are possible alone, not together
        raise UserError(f"{where}: {error}") from error


def _a(title: str) -> str:
    return f"{'an' if title[0] in 'aeiou' else 'a'} {title}"


def maker(entry: Any) -> Callable[..., Any]:
    """The maker of a registry's entry, which may be the maker itself."""
    return getattr(entry, "make", entry)


def bare_kinds(registry: Mapping[str, Any]) -> list[str]:
    """The kinds that do not need a part of their own: their makers require no argument."""
    return [kind for kind, entry in registry.items() if not required(maker(entry))]


def required(make: Callable[..., Any]) -> list[str]:
    """The arguments of a maker that have no default."""
    return [key for key, argument in inspect.signature(make).parameters.items() if argument.default is argument.empty]


@functools.lru_cache(maxsize=1024)
def signature(make: Callable[..., Any]) -> Mapping[str, Any]:
    """{keyword: annotation} of a maker or of a NamedTuple class."""
    hints = typing.get_type_hints(make, include_extras=True)
    return {key: hints[key] for key in inspect.signature(make).parameters}


def check(make, values: Mapping[str, Any], where: str, parts: Mapping[str, Any], _open: tuple[str, ...] = ()) -> dict[str, Any]:
    """The checked keyword arguments of `make`, parts built."""
    schema = signature(make)
    for key in values:
        if key not in schema:
            raise unknown(f"{where}: the key", key, schema)
    missing = [key for key in required(make) if key not in values]
    if missing:
        raise UserError(f"{where}: missing {', '.join(f'{where}.{key} ({describe(schema[key])})' for key in missing)}")
    return {key: _value(schema[key], values[key], f"{where}.{key}", parts, _open) for key in schema if key in values}


def describe(hint: Any) -> str:
    """A type as the user reads it: `int >= 1`, `one of a, b`, `the name of a layer part`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([describe(args[0]), *(str(mark) for mark in args[1:] if isinstance(mark, Range))])
    if origin is Literal:
        return f"one of {', '.join(str(a) for a in args)}"
    if origin is tuple:
        return f"a list of {describe(args[0])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("''" if a is type(None) else describe(a) for a in args)
    if hint in _READERS:
        return _READERS[hint][0]
    if origin is Mapping or _is_section(hint):
        return "a group of values"
    if hint in _PART_KINDS:
        return f"{_a(_PART_KINDS[hint][0])}, or the name of one in config.parts"
    return getattr(hint, "__name__", str(hint))


def numeric(hint: Any) -> bool:
    """True for int, float and intervals of them."""
    return hint in (int, float) or (get_origin(hint) is Annotated and numeric(get_args(hint)[0]))


def marked(hint: Any, mark: Any) -> bool:
    """True if an annotation is marked SAMPLING or TRACED."""
    return get_origin(hint) is Annotated and mark in get_args(hint)[1:]


def _is_section(hint: Any) -> bool:
    """True for a NamedTuple class that is no part."""
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields") and hint not in {*_PART_KINDS, *_READERS}


def _value(hint: Any, value: Any, key: str, parts: Mapping[str, Any], _open: tuple[str, ...]) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if (hint in _PART_KINDS or hint in _READERS or _is_section(hint)) and isinstance(value, hint):
        return value  # made already, in a notebook
    if getattr(value, "shape", None) == () and hasattr(value, "item") and not hasattr(value, "aval"):
        value = value.item()  # a number of numpy
    if origin is Annotated:
        marks = args[1:]
        if TRACED in marks and hasattr(value, "aval"):  # a tracer, whose value is not known
            return value
        bare = next((mark.kind for mark in marks if isinstance(mark, Bare)), "")
        value = _value(args[0], bare if isinstance(value, str) and not value else value, key, parts, _open)
        for mark in marks:
            if isinstance(mark, Range) and value not in mark:
                raise UserError(f"{key}={value!r} is invalid; it must be {mark}")
        return value
    if origin is Literal:
        if value not in args or isinstance(value, bool):
            raise unknown(key, value, args)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{key}={value!r} has the wrong type; it must be {describe(hint)}")
        return tuple(_value(args[0], v, f"{key}[{i}]", parts, _open) for i, v in enumerate(value))
    if origin in (types.UnionType, typing.Union):
        if (value is None or (isinstance(value, str) and not value)) and type(None) in args:
            return None
        choices = [a for a in args if a is not type(None)]
        numbers = [a for a in choices if numeric(a)]
        fits = numbers if isinstance(value, int | float) and not isinstance(value, bool) else [a for a in choices if a not in numbers]
        try:
            return _value((fits or choices)[0], value, key, parts, _open)
        except UnknownKind as error:
            if not numbers:
                raise
            raise UnknownKind(f"{error}; or a number") from None
    if hint is Any:
        return value
    if hint in _READERS:
        return _READERS[hint][1](value, key)
    if hint in _PART_KINDS:
        if not isinstance(value, str):
            shown = f"{value.__name__}, a function that must be called," if inspect.isfunction(value) else repr(value)
            raise UserError(f"{key}={shown} has the wrong type; it must be {describe(hint)}")
        bare = bare_kinds(_PART_KINDS[hint][1])
        if value not in parts and value not in bare:
            kinds, own = _PART_KINDS[hint][1], key.rpartition(".")[2]
            if value in kinds:
                needs = ", ".join(required(maker(kinds[value])))
                raise UserError(f"{key}={value!r} requires {needs}, and so a part: config.parts.{own}.kind={value} with {needs}")
            fitting = [name for name, part in parts.items() if isinstance(part, Mapping | ConfigDict) and part.get("kind") in kinds]
            raise unknown_kind(key, value, dict.fromkeys([*fitting, *kinds]))
        return build(parts if value in parts else {value: {"kind": value}}, value, hint, _open)
    if origin is Mapping or _is_section(hint):
        if not isinstance(value, (Mapping, ConfigDict)):
            raise UserError(f"{key}={value!r} has the wrong type; it must be {describe(hint)}")
        if origin is Mapping:
            return {name: _value(args[1], value[name], f"{key}.{name}", parts, _open) for name in value}
        return hint(**check(hint, dict(value), key, parts, _open))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{key}={value!r} is invalid; it must be a finite number")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{key}={value!r} has the wrong type; it must be {describe(hint)}")
    return value
