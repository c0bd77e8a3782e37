"""The one exception that a user sees: one line that names the key, the value and what is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """A wrong command, configuration, argument or file. `experiments/` and notebooks print its message alone, without a stack trace."""

    def _render_traceback_(self) -> list[str]:  # what IPython prints of it
        return [f"{type(self).__name__}: {self}"]


# Common names of other codebases for a config's keys, where the spelling alone does not lead to the key.
ALIASES = {
    **{"lr": "learning_rate", "wd": "weight_decay", "beta1": "b1", "beta2": "b2"},
    **{"bs": "batch", "batch_size": "batch", "epochs": "steps", "n_epochs": "steps", "num_epochs": "steps", "iterations": "steps"},
    **{"z_dim": "latent", "n_samples": "n", "num_samples": "n", "temp": "temperature"},
}


def nearest(value: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that `value` probably stands for: by ALIASES, else as the last word of a dotted name, else by its spelling; "" where
    there is none.

    Args:
        value: the name that was given.
        known: the names to choose from.
        cutoff: the least similarity of the spelling, from 0 to 1 (difflib).
    """
    names = list(known)
    if value in ALIASES:
        return ALIASES[value] if ALIASES[value] in names else ""
    if last := [name for name in names if name.rpartition(".")[2] == value]:
        return last[0]
    return next(iter(difflib.get_close_matches(value, names, n=1, cutoff=cutoff)), "")


def question(value: str, names: Sequence[str]) -> str:
    """did you mean NAME, NAME or NAME? At most four of `names` are written out. `value` is the name that was given."""
    shown = [*names] if len(names) <= 4 else [*names[:3], f"one of {len(names) - 3} more"]
    remark = " Training is measured in steps, not in epochs." if value.endswith("epochs") else ""
    return f"did you mean {' or '.join(filter(None, (', '.join(shown[:-1]), shown[-1])))}?{remark}"


def unknown(key: str, value: object, known: Iterable[object], elsewhere: Sequence[str] = ()) -> UserError:
    """The error for a name outside a closed set: `key=value is unknown (did you mean ...?); known: ...`.

    elsewhere: names outside the set, which are proposed if no known name is similar.
    """
    names = [str(k) for k in known]
    near = nearest(str(value), names)
    proposed = [near] if near else elsewhere
    hint = f" ({question(str(value), [repr(name) for name in proposed])})" if proposed else ""
    return UserError(f"{key}={value!r} is unknown{hint}; known: {', '.join(sorted(names)) or 'none'}")


class UnknownKind(UserError):
    """A kind that is not in its registry, where a file of the user's own (--import) may register it."""


def unknown_kind(key: str, value: object, known: Iterable[object]) -> UnknownKind:
    """`unknown` for a name in a registry: the line also names the flag that adds kinds."""
    return UnknownKind(f"{unknown(key, value, known)}; a kind of your own needs --import=FILE")


class RunFailed(UserError):
    """A run that started and failed: a non-finite loss, a full disk."""


class Stopped(UserError):
    """A run that a signal ended after it was saved; the exit code is 128 + signal."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = signal
