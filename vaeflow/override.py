"""Overrides of a config's values on the command line: a text is read by the annotation of its argument.

See vaeflow/schema.py for the order in which a config is made whole.
"""

from __future__ import annotations

import ast
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from ml_collections import ConfigDict

from vaeflow.build import describe, numeric, registry, takes_parts
from vaeflow.config import OF_FROZEN, OPEN, OVER, Overrides, is_frozen, keys, keys_named
from vaeflow.errors import UserError, unknown, unknown_kind
from vaeflow.schema import REQUIRED, Argument, argument_at, argument_of, complete, named_parts, of_kind, of_section

# Keys of kinds: of the model and of parts.
_KIND = re.compile(r"(model|parts\.[^.]+)\.kind")


def overridden(config: ConfigDict, overrides: Overrides) -> tuple[ConfigDict, list[str]]:
    """(the complete config with other values, a line for every key that was dropped with its kind or has no effect).

    Args:
        config: the values of a file, not completed.
        overrides: ("optim.learning_rate", "3e-4"), ...

    Raises:
        UserError: a key is unknown, or a text has the wrong type.
    """
    raw, lines, rest = {"model": {}, "parts": {}, **config.to_dict()}, [], []
    for key, text in overrides:
        if _KIND.fullmatch(key):
            if key == "model.kind" and registry("model") and text not in registry("model"):
                raise unknown_kind(key, text, registry("model"))
            lines += _change_kind(raw, key.removesuffix(".kind"), text)
            continue
        argument = None if _number(text) else argument_at(complete(ConfigDict(raw)), key)
        if argument is not None and takes_parts(argument.hint):
            section, *part, name = key.split(".")
            own = raw.setdefault(section, {})
            own = own.setdefault(part[0], {"kind": part[0]}) if part else own  # a part that is named by its kind alone
            own[name] = read(text, argument.hint, f"config.{key}", own.get(name))
        else:
            rest.append((key, text))
    made = complete(ConfigDict(raw))
    lines += _check_used(config, made, [key for key, _ in overrides])
    for key, text in rest:
        override(made, key, text)
    return made, lines


def _change_kind(raw: dict[str, Any], group: str, kind: str) -> list[str]:
    """Give the model or a part another kind; a line for every key that its maker does not have. A part that does not exist is added."""
    own, kinds = raw["model"], registry("model")
    if group != "model":
        name = group.removeprefix("parts.")
        own = raw["parts"].setdefault(name, {})
        kinds = next((registry(want) for part, want in named_parts(complete(ConfigDict(raw))) if part == name), {})
    known = of_kind(kinds, kind)
    dropped = [name for name in own if name not in known] if kind in kinds else []
    for name in dropped:
        del own[name]
    own["kind"] = kind
    lost = [f"{group}.{name}" for name in dropped]
    if group == "model" and kind in kinds:
        known = of_section(raw, "sample")
        for name in [name for name in raw.get("sample", {}) if name not in known]:
            del raw["sample"][name]
            lost.append(f"sample.{name}")
    return [f"config.{name} is dropped: the kind {kind!r} does not have it" for name in lost]


def _check_used(file: ConfigDict, made: ConfigDict, keys: Sequence[str]) -> list[str]:
    """A line for every part of the file that the overrides change and nothing names. UserError: they add a part that nothing names."""
    known, used = file.get("parts", {}), {name for name, _ in named_parts(made)}
    changed = [key.split(".")[1] for key in keys if key.count(".") > 1 and key.startswith("parts.")]
    unused = [name for name in made.parts if name not in used] if registry("model") else []
    for name in unused:
        if name not in known:
            raise unknown("config.parts: the key", name, sorted({*known, *used}))
    return [f"config.parts.{name} is not used here: what is changed in it has no effect" for name in unused if name in changed]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def override(config: ConfigDict, key: str, text: str, where: str = "config", known: Mapping[str, Argument] | None = None) -> None:
    """config.<key> = text in a complete config, in place.

    Args:
        config: the config, or a group of values.
        key: its key, such as "optim.learning_rate".
        text: the value, which is read by the annotation of the argument, or as the type of the present value where there is none.
        where: what errors call the config.
        known: the arguments of the group, if it is not a whole config.
    """
    if where == "config":
        if _KIND.fullmatch(key):
            raw = config.to_dict()
            _change_kind(raw, key.removesuffix(".kind"), text)
            full = complete(ConfigDict(raw))
            with config.unlocked(), config.ignore_type():
                config.model, config.parts, config.sample = full.model, full.parts, full.sample
            return None
        if any(key.startswith(f"{group}.") for group in OPEN):
            return _add(config, key, _literal(text))
        group, _, name = key.rpartition(".")
        if group in OVER:
            own = of_section(config, OVER[group]) or {name: Argument(type(value), value) for name, value in config[OVER[group]].items()}
            if name not in own or f"{OVER[group]}.{name}" in OVER:
                raise unknown(f"{where}.{group}: the key", name, [name for name in own if f"{OVER[group]}.{name}" not in OVER])
            return _add(config, key, read(text, own[name].hint, f"{where}.{key}", config[OVER[group]].get(name)))
    node, parent, done, last = _find(config, key, where)
    if is_frozen(node):
        kept = {name: node[name] for name in OF_FROZEN if name in node}
        parent[last] = ConfigDict({"from": text, **kept})
        return
    if isinstance(node, ConfigDict):
        raise UserError(f"{done} is a group of values ({', '.join(node)}); name one of them")
    argument = (known or {}).get(key)
    if where == "config":
        argument = argument_at(config, key) or argument_of(config, key.rpartition(".")[0], last)
    value = read(text, type(node) if argument is None else argument.hint, done, node)
    with parent.ignore_type(), parent.unlocked():
        parent[last] = value
    if is_frozen(parent) and last in OF_FROZEN:  # other parameters, which are not known yet
        for name in ("sha256", "config"):
            if name in parent:
                delattr(parent, name)
    if where == "config" and argument is not None and takes_parts(argument.hint):
        full = complete(config)
        with config.unlocked():
            config.parts = full.parts


def _find(config: ConfigDict, key: str, where: str) -> tuple[Any, ConfigDict, str, str]:
    """(the value at a key, the group that has it, its full name, its last name). UserError: there is no such key."""
    node: Any = config
    parent, done, last = config, where, ""
    final = key.rpartition(".")[2]
    for last in key.split("."):
        model = key.startswith(("model.", "sample.")) and not key.startswith("model.kind.")
        if model and isinstance(node, str) and last == final and last in OF_FROZEN:  # a model that was named by its workdir alone
            node = ConfigDict({"from": node, **OF_FROZEN})
            with parent.ignore_type():
                parent[done.rpartition(".")[2]] = node
        if not isinstance(node, ConfigDict):
            hint = f"; it names a part: config.parts.{node}.{last}" if isinstance(node, str) and node in config.get("parts", {}) else ""
            raise UserError(f"{done} is one value ({node!r}), not a group of values: it has no key {last!r}{hint}")
        if last not in node and (where != "config" or argument_of(config, done.removeprefix("config."), last) is None):
            known = [f"{where}.{name}" for name in keys_named(list(keys(config)), last)]
            raise unknown(f"{done}: the key", last, node, known)
        done = f"{done}.{last}"
        parent, node = node, node.get(last, REQUIRED)
    return node, parent, done, last


def _add(config: ConfigDict, key: str, value: Any) -> None:
    """config.<key> = value below a group of free keys, where keys are added; who reads them checks name and type."""
    *parents, last = key.split(".")
    if not all((*parents, last)):
        raise UserError(f"config.{key}: a key has no name")
    node: Any = config
    with config.unlocked():
        for name in parents:
            if name not in node:
                node[name] = ConfigDict()
            node = node[name]
            if not isinstance(node, ConfigDict):
                raise UserError(f"config.{key}: {name} is one value ({node!r}), not a group of values")
        if isinstance(node.get(last), ConfigDict):
            raise UserError(f"config.{key} is a group of values ({', '.join(node[last])}); name one of them")
        if last in node:
            delattr(node, last)  # the new value may have another type
        node[last] = value


def read(text: str, hint: Any, key: str, old: Any) -> Any:
    """The value of a text on the command line.

    Args:
        text: the text.
        hint: the annotation of the argument, or the type of the present value.
        key: the config key, for errors.
        old: the present value, or REQUIRED.

    Raises:
        UserError: the text is not of the type.

    Example:
        >>> read("1e4", int, "config.train.steps", 1000)
        10000
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return read(text, args[0], key, old)
    if origin in (types.UnionType, typing.Union):
        choices = [a for a in args if a is not type(None)]
        numbers = [a for a in choices if numeric(a)]
        if numbers and (_number(text) or len(numbers) == len(choices)):
            return read(text, numbers[0], key, old)
        return text if text == "" or numbers else read(text, choices[0], key, old)
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UserError(f"{key}={text!r} has the wrong type; it must be true or false")
        return text.lower() in ("true", "1")
    if hint in (int, float):
        if not _number(text) or (hint is int and not float(text).is_integer()):
            now = "" if old is REQUIRED else f" (now {old!r})"
            raise UserError(f"{key}={text!r} has the wrong type; it must be {describe(hint)}{now}")
        return float(text) if hint is float else int(text) if text.lstrip("+-").isdigit() else int(float(text))
    if origin is Literal:
        return next((choice for choice in args if str(choice) == text), text)  # build.py names the known ones
    if origin is tuple or hint in (tuple, list):
        items = [t.strip() for t in text.strip().strip("()[]").split(",") if t.strip()]
        return tuple(read(item, args[0], f"{key}[{i}]", REQUIRED) if args else _literal(item) for i, item in enumerate(items))
    return _literal(text) if hint is Any else text


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
