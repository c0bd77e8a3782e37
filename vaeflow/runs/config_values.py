"""Whether two configs are one run: their values by key, and how they differ in what is learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vaeflow.config import DATA_PLACES, OF_FROZEN, is_frozen, plain
from vaeflow.runs.files import text_of
from vaeflow.schema import defaults

# What does not decide what is learned: where the data lie and how fast they come, the devices, all that comes after training.
_FREE = (
    *("profile", "sample", "devices"),
    *(f"eval.{key}" for key in ("params", "batch", "k", "chunk", "measures", "settings", "examples")),  # select and validate choose `best`
    *(*DATA_PLACES, "data.place", "data.workers", "data.prefetch"),
    *("train.dispatch_seconds", "train.max_dispatch"),
)
# Of these, what a measure that selects `best` reads.
_SELECTING = ("eval.k", "eval.settings", "sample")
# Groups whose keys the config chooses: they are compared as one value.
_WHOLE = ("optim.groups", "eval.settings", "eval.validate", "data.x", "data.x0")


def changed(old: Any, new: Any) -> list[str]:
    """KEY=VALUE of every value of the config `new` that differs from `old` and changes what is learned, sorted: what names a new run."""
    before, after = flat(plain(old)), flat(plain(new))
    select = after.get("eval.select", "loss")
    known = defaults(new)
    keys = [key for key in sorted(after) if not is_free(key, select) and not _same(before.get(key), after[key])]
    keys = [key for key in keys if key in before or key not in known or known[key] != after[key]]  # defaults follow from the others
    return [f"{key}={text_of(brief(after[key]))}" for key in keys]


def differences(old: Any, new: Any, by_hash: bool = True, without: Sequence[str] = ()) -> list[str]:
    """How a run's stored config `old` differs from `new` in what is learned: one phrase per key, none for the same run.

    Args:
        by_hash: whether frozen models are compared by their parameters, or by their names alone.
        without: keys that are not compared.
    """
    old, new = flat(plain(old), whole=_WHOLE), flat(plain(new), whole=_WHOLE)
    words = []
    for key in [*new, *(k for k in old if k not in new)]:
        if key in without or is_free(key, new.get("eval.select", "loss")):
            continue
        if key not in old:
            words.append(f"{key} is {json.dumps(new[key])} here, and that run has no such key")
        elif key not in new:
            words.append(f"{key} was {json.dumps(old[key])}, and is no key of this config")
        elif not _same(old[key], new[key], by_hash):
            words.append(f"{key} was {json.dumps(brief(old[key]))}, is now {json.dumps(brief(new[key]))}")
    return words


def is_free(key: str, select: str) -> bool:
    """True if the config key does not decide what is learned; select: the run's eval.select."""
    bound = select != "loss" and key != "sample.n" and _is(key, _SELECTING)
    return _is(key, _FREE) and not bound


def _is(key: str, some: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(one + ".") for one in some)


def _same(old: Any, new: Any, by_hash: bool = True) -> bool:
    """True if two values of a key mean the same. A frozen model is the same if its parameters are, wherever its workdir is; one that is
    named and not resolved yet is compared by its name."""
    if not is_frozen(old) and not is_frozen(new):
        return old == new
    pair = [value if is_frozen(value) else {"from": value} for value in (old, new)]
    named = ("from", *OF_FROZEN)
    if by_hash and all(value.get("sha256") for value in pair):
        named = ("train", "sha256")
        if any(pair[0]["config"].get(section) != pair[1]["config"].get(section) for section in ("model", "parts")):
            return False
    return all(pair[0].get(name, OF_FROZEN.get(name)) == pair[1].get(name, OF_FROZEN.get(name)) for name in named)


def has_frozen(config: Any) -> bool:
    """True if an argument of the config is a frozen model."""
    return any(is_frozen(value) for value in flat(plain(config)).values())


def brief(value: Any) -> Any:
    """A value as one line shows it: of a frozen model its workdir and the start of its hash."""
    if not is_frozen(value):
        return value
    return " ".join(filter(None, (value["from"], value.get("sha256", "")[:8])))


def flat(tree: Any, prefix: str = "", whole: tuple[str, ...] = ()) -> dict[str, Any]:
    """{"optim.ema": 0.999}; an empty group is a value, and so is a group in `whole` and that of a frozen model
    (without the places of data)."""
    if not isinstance(tree, dict) or not tree or prefix in whole or is_frozen(tree):
        return {prefix: {k: v for k, v in tree.items() if f"{prefix}.{k}" not in DATA_PLACES} if isinstance(tree, dict) else tree}
    return {k: v for name, sub in tree.items() for k, v in flat(sub, f"{prefix}.{name}" if prefix else name, whole).items()}
