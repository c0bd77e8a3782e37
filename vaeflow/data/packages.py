"""Packages that only some data need: extras of pyproject.toml."""

from __future__ import annotations

import importlib
from typing import Any

from vaeflow.errors import UserError


def package(name: str, key: str, extra: str) -> Any:
    """The module of a package that only some data need.

    Args:
        name: of the module.
        key: the config key with its value that needs it, such as "data.kind='hdf5'".
        extra: the extra of pyproject.toml that installs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f'{key} needs the package {name}, which is not installed: pip install -e ".[{extra}]"') from None
