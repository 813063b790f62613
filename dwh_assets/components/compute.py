"""Find and describe the Python function that computes a table.

Its parameters say what it needs. `partition` is the `PartitionSlice` that the run computes, `previous`
the table as it is (a PyIceberg `Table`, or None before the first write); every other parameter is an
input table, which arrives as the parameter's annotation says.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from dwh_assets.errors import ConfigurationError

PARTITION = "partition"
PREVIOUS = "previous"


@dataclass(frozen=True)
class Computation:
    """A function, and the annotations of its input parameters by name."""

    function: Callable[..., Any]
    inputs: dict[str, Any]
    takes_partition: bool
    takes_previous: bool


def load_computation(path: str, table: str) -> Computation:
    """Import `package.module.function`.

    Raises `ConfigurationError` when there is no such module or function.
    """
    module_name, _, function_name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{table}: compute names {path!r}, which cannot be imported: {error}.",
            remedy="Write package.module.function, importable from where Dagster runs.",
        ) from error
    if not callable(function):
        raise ConfigurationError(f"{table}: compute names {path!r}, which is not a function.")
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    return Computation(
        function=function,
        inputs={name: hints.get(name) for name in parameters if name not in (PARTITION, PREVIOUS)},
        takes_partition=PARTITION in parameters,
        takes_previous=PREVIOUS in parameters,
    )
