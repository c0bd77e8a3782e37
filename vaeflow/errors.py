"""The one exception that a user sees: one line that names the key, the value and what is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong command, configuration or file. `experiments/` prints its message alone, without a stack trace."""


def unknown(key: str, value: object, known: Iterable[object]) -> UserError:
    """The error for a name outside a closed set: `key=value is unknown; did you mean ...; known: ...`."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
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
