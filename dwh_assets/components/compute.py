"""Find and describe the Python function that computes a table.

Its parameters say what it needs. `partition` is the `PartitionSlice` that the run computes, `previous`
the table as it is (a PyIceberg `Table`, or None before the first write), `offset` the number of rows of its
stream that the table holds; every other parameter is an
input table, which arrives as the parameter's annotation says. A parameter with a default is an input only
where the declaration says so.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, get_type_hints

from dwh_assets.errors import ConfigurationError

PARTITION = "partition"
PREVIOUS = "previous"
OFFSET = "offset"
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Computation:
    """A function, and the annotations of its input parameters by name."""

    function: Callable[..., Any]
    inputs: dict[str, Any]
    takes_partition: bool
    takes_previous: bool
    takes_offset: bool


def load_computation(path: str, table: str, declared_inputs: Collection[str] = ()) -> Computation:
    """Import `package.module.function`.

    Raises `ConfigurationError` when there is no such function, or its parameters do not say what it needs.
    """
    function = _import(path, table)
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError) as error:
        raise ConfigurationError(
            f"{table}: the annotations of {path} cannot be read: {error}.",
            remedy="Import what they name where Python runs it, not for the type checker alone.",
        ) from None
    parameters = inspect.signature(function).parameters
    vague = [name for name, parameter in parameters.items() if parameter.kind in _ANY_NUMBER]
    if vague:
        raise ConfigurationError(
            f"{table}: {path} takes any number of arguments ({', '.join(vague)}).",
            remedy="Name each input table as a parameter.",
        )
    inputs = [
        name
        for name, parameter in parameters.items()
        if name in declared_inputs or parameter.default is parameter.empty
    ]
    return Computation(
        function=function,
        inputs={name: hints.get(name) for name in inputs if name not in (PARTITION, PREVIOUS, OFFSET)},
        takes_partition=PARTITION in parameters,
        takes_previous=PREVIOUS in parameters,
        takes_offset=OFFSET in parameters,
    )


def _import(path: str, table: str) -> Callable[..., Any]:
    module_name, _, function_name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # a module may raise anything while it is imported
        raise ConfigurationError(
            f"{table}: compute names {path!r}, which cannot be imported: {type(error).__name__}: {error}.",
            remedy="Write package.module.function, importable from where Dagster runs.",
        ) from (None if _is_wrong_path(error, module_name) else error)
    if not callable(function) or inspect.isclass(function):
        raise ConfigurationError(
            f"{table}: compute names {path!r}, which is not a function but {type(function).__name__}.",
            remedy="Write package.module.function.",
        )
    found: Callable[..., Any] = function
    return found


def _is_wrong_path(error: Exception, module: str) -> bool:
    """Tell a path that leads nowhere from an error of the module itself, whose traceback shows the line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{module}.".startswith(f"{error.name}.")
    return isinstance(error, AttributeError) and getattr(error.obj, "__name__", None) == module
