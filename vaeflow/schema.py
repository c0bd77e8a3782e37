"""The keys of a config, from the signatures of the makers: their annotations and their defaults.

A default stands in a maker's signature and nowhere else, and a config names what it changes. A whole config is made in this order:

    1. the values of the file
    2. overrides that choose a kind or a part; of a part of another kind the keys that its maker has are kept
    3. `complete`: every argument that is not named gets its default, and every bare kind is written out as a part
    4. the other overrides (override.py)

A part-typed argument (a network, a layer, an objective, ...) that is not named is the part of its own name, if `config.parts` has one. The
event and the levels of a model are not defaults: training/setup.py takes them from the data.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from ml_collections import ConfigDict

from vaeflow import build
from vaeflow.build import SAMPLING, TRACED, Bare, maker, marked, part_of, parts_in, registry
from vaeflow.config import plain

# Arguments of a model that are taken from the data where the config does not name them.
FROM_DATA = ("event", "levels")
REQUIRED = inspect.Parameter.empty

# {section: NamedTuple class or function whose arguments are its keys}, filled by `section`; "" has the keys outside all sections.
_SECTIONS: dict[str, Callable[..., Any]] = {}


def section(name: str, make: Callable[..., Any]) -> None:
    """Say that the arguments of `make` are the keys of a config's section."""
    _SECTIONS[name] = make


class Argument(NamedTuple):
    """An argument of a maker: its annotation, and its default or REQUIRED."""

    hint: Any
    default: Any


@functools.cache
def arguments(make: Callable[..., Any]) -> dict[str, Argument]:
    """{keyword: Argument} of a maker or of a NamedTuple class."""
    defaults = inspect.signature(make).parameters
    return {name: Argument(hint, defaults[name].default) for name, hint in build.signature(make).items()}


def of_kind(kinds: Mapping[str, Any], kind: Any) -> dict[str, Argument]:
    """The arguments of a kind in a registry, after `kind`; none for an unknown one."""
    known = arguments(maker(kinds[kind])) if isinstance(kind, str) and kind in kinds else {}
    return {"kind": Argument(str, REQUIRED)} | known


def of_section(config: Any, name: str) -> dict[str, Argument]:
    """The arguments whose values a section of a config has; none where its schema is not imported."""
    section = config.get("model")
    model = of_kind(registry("model"), section.get("kind") if isinstance(section, Mapping | ConfigDict) else "")
    if name == "model":
        return {key: argument for key, argument in model.items() if not marked(argument.hint, SAMPLING)}
    known = arguments(_SECTIONS[name]) if name in _SECTIONS else {}
    if name != "sample":
        return known
    return known | _sampling(model) | {key: argument for options in passed_on(config).values() for key, argument in options.items()}


def _sampling(known: Mapping[str, Argument]) -> dict[str, Argument]:
    return {key: argument for key, argument in known.items() if marked(argument.hint, SAMPLING)}


def passed_on(config: Any) -> dict[str, dict[str, Argument]]:
    """{part: its sampling arguments} of the models that a config's model is made of. They are keys of the section sample, as those of the
    model itself are; where two models have one of the same name, the key is the outer model's."""
    kinds, found = registry("model"), {}
    parts: Any = plain(config.get("parts", {}))
    opened: list[Any] = [config.get("model")]
    taken = {*_sampling(of_kind(kinds, opened[0].get("kind")))} if isinstance(opened[0], Mapping | ConfigDict) else set()
    for own in opened:  # which grows
        known = of_kind(kinds, own.get("kind")) if isinstance(own, Mapping | ConfigDict) else {}
        for key, argument in known.items() if isinstance(parts, Mapping) else ():
            value = own[key] if key in own else default_of(key, argument, parts)
            for name, want in parts_in(argument.hint, value):
                part = parts.get(name, {"kind": name})
                if registry(want) is not kinds or name in found or not isinstance(part, Mapping):
                    continue
                options = _sampling(of_kind(kinds, part.get("kind")))
                found[name] = {key: argument for key, argument in options.items() if key not in taken}
                taken |= {*options}
                opened.append(part)
    return found


def complete(config: ConfigDict) -> ConfigDict:
    """The locked config with the default of every argument that it does not name.

    Keys that no maker has stay, for the checks to name. A config that is complete is equal to the result.
    """
    values = config.to_dict()
    values = {name: argument.default for name, argument in of_section(values, "").items()} | values
    if not isinstance(values.get("parts", {}), Mapping):
        return ConfigDict(values).lock()  # which config.check_sections reports
    values["parts"] = parts = dict(values.get("parts", {}))
    for part, options in passed_on(values).items():  # where a part has them, they move to the section sample
        own, sample = parts.get(part, {}), values.get("sample", {})
        if isinstance(sample, Mapping) and (moved := {key: own[key] for key in options if key in own and key not in sample}):
            values["sample"] = {**sample, **moved}
            parts[part] = {key: value for key, value in own.items() if key not in moved}
    for name in dict.fromkeys([*(name for name in _SECTIONS if name), "model", "sample"]):
        known, own = of_section(values, name), values.get(name, {})
        if isinstance(own, Mapping) and (known or own):
            leave_out = FROM_DATA if name == "model" else ()
            values[name] = _completed(known, own, parts, (), leave_out)
    return ConfigDict(values).lock()


def _completed(
    known: Mapping[str, Argument], own: Mapping[str, Any], parts: dict[str, Any], opened: tuple[str, ...], leave_out: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of some arguments with their defaults, in the order of the signature. `parts` is completed in place."""
    out: dict[str, Any] = {}
    for name, argument in known.items():
        if name in own and not (own[name] == "" and _bare(argument)):
            out[name] = own[name]
        elif (value := default_of(name, argument, parts, opened)) is not REQUIRED and name not in leave_out:
            out[name] = value
        value, want = out.get(name), part_of(argument.hint)
        if isinstance(value, str) and value not in parts and value in build.bare_kinds(registry(want)) and len(build.part_types(value)) > 1:
            out[name] = name if name not in parts else f"{name}_{value}"  # a part cannot be of two types
            parts.setdefault(out[name], {"kind": value})
        for part, want in parts_in(argument.hint, out.get(name)):
            _complete_part(part, registry(want), parts, opened)
    return out | {name: value for name, value in own.items() if name not in out}


def default_of(name: str, argument: Argument, parts: Mapping[str, Any], opened: tuple[str, ...] = ()) -> Any:
    """The value of an argument that a config does not name: of a part-typed one the part of its own name; REQUIRED if there is none."""
    if part_of(argument.hint) is not None and name in parts and name not in opened:
        return name
    if argument.default is None:
        return _bare(argument)
    value = argument.default
    return dict(value) if isinstance(value, Mapping) else value


def _bare(argument: Argument) -> str:
    """The kind that stands for None in an argument's annotation, or ""."""
    marks = get_args(argument.hint)[1:] if get_origin(argument.hint) is Annotated else ()
    return next((mark.kind for mark in marks if isinstance(mark, Bare)), "")


def _complete_part(name: str, kinds: Mapping[str, Any], parts: dict[str, Any], opened: tuple[str, ...]) -> None:
    """Complete the part called `name`, or write the kind of that name out as a part. A kind without arguments needs no part."""
    if name in opened:  # it contains itself, which build.py reports
        return
    if name not in parts and (name not in build.bare_kinds(kinds) or not arguments(maker(kinds[name]))):
        return
    own = parts.get(name, {"kind": name})
    if isinstance(own, Mapping) and own.get("kind") in kinds:
        known = of_kind(kinds, own["kind"])
        leave_out = tuple(_sampling(known)) if kinds is registry("model") else ()  # the section sample has them
        parts[name] = _completed(known, own, parts, (*opened, name), leave_out)


def described(config: Any) -> Iterator[tuple[str, Argument, Any]]:
    """(key, argument, value) of every value of a complete config that an argument has, parts by their names: parts.encoder.hidden."""
    config = plain(config)
    for name in ("", *(key for key in config if isinstance(config[key], Mapping) and key != "parts")):
        own = config[name] if name else config
        for key, argument in of_section(config, name).items():
            if key in own:
                yield f"{name}.{key}" if name else key, argument, own[key]
    done: set[str] = set()
    open_parts = []
    for name in ("model", "sample"):
        own = config.get(name)
        for key, argument in of_section(config, name).items() if isinstance(own, Mapping) else ():
            open_parts += parts_in(argument.hint, own.get(key))
    while open_parts:
        part, want = open_parts.pop(0)
        own = config.get("parts", {}).get(part)
        if part in done or not isinstance(own, Mapping):
            continue
        done.add(part)
        for key, argument in of_kind(registry(want), own.get("kind")).items():
            if key in own:
                yield f"parts.{part}.{key}", argument, own[key]
                open_parts += parts_in(argument.hint, own[key])


def defaults(config: ConfigDict) -> dict[str, Any]:
    """{key: default} of the values of a complete config whose arguments have one, as JSON has it; of a part that `complete` writes out
    under the name of its kind, the kind too."""
    known = {key: default_of(key.rpartition(".")[2], argument, config.parts) for key, argument, _ in described(config)}
    kinds = {f"parts.{name}.kind": name for name in config.parts if name == config.parts[name].get("kind")}
    return {key: plain(value) for key, value in known.items() if value is not REQUIRED} | kinds


def value_at(config: Any, key: str) -> Any:
    """The value of a config's key."""
    for name in key.split("."):
        config = config[name]
    return config


def traced(config: ConfigDict) -> dict[str, float]:
    """{key: value} of the numbers that cells of one program may differ in, see build.TRACED."""
    numbers = {key: value for key, argument, value in described(config) if marked(argument.hint, TRACED)}
    return {key: value for key, value in numbers.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def named_parts(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    """(name, part type) of every part that an argument names."""
    for _, argument, value in described(config):
        yield from parts_in(argument.hint, value)


def argument_at(config: Any, key: str) -> Argument | None:
    """The argument that a config's key is the value of; None for keys of free groups and where a schema is not imported."""
    return next((argument for name, argument, _ in described(config) if name == key), None)


def argument_of(config: ConfigDict, group: str, name: str) -> Argument | None:
    """An argument of a group that has no value yet: a required one, or one that is taken from the data."""
    if group.startswith("parts."):
        part = group.removeprefix("parts.")
        known = next((of_kind(registry(want), config.parts[part].get("kind")) for other, want in named_parts(config) if other == part), {})
        return None if name in passed_on(config).get(part, {}) else known.get(name)
    return of_section(config, group).get(name) if group in ("model", "sample") else None


def aligned(old: Any, new: Any) -> dict[str, Any]:
    """The values of a config `old` with its parts called as the same parts are in `new`: the name of a part is not a value of a run."""
    old, new = copy.deepcopy(plain(old)), plain(new)
    parts, names = old.get("parts", {}), {}
    if not all(isinstance(config.get(section, {}), Mapping) for config in (old, new) for section in ("model", "sample", "parts")):
        return old  # which config.check_sections reports
    groups = [(of_section(old, section), old.get(section, {}), new.get(section, {})) for section in ("model", "sample")]
    for known, mine, other in groups:  # which grows
        for key, argument in known.items():
            for (a, want), (b, _) in zip(parts_in(argument.hint, mine.get(key)), parts_in(argument.hint, other.get(key)), strict=False):
                if isinstance(parts.get(a), Mapping) and a not in names:
                    names[a] = b
                    groups.append((of_kind(registry(want), parts[a].get("kind")), parts[a], new.get("parts", {}).get(b, {})))
    if len({*names.values(), *(name for name in parts if name not in names)}) < len(parts):
        return old  # two parts would get one name
    for known, mine, _ in groups:
        for key, argument in known.items():
            if parts_in(argument.hint, value := mine.get(key)):
                mine[key] = [names.get(name, name) for name in value] if isinstance(value, list) else names.get(value, value)
    return {**old, "parts": {names.get(name, name): part for name, part in parts.items()}}
