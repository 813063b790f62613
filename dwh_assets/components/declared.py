"""A component that is declared in YAML, and says where in the YAML a mistake is.

Dagster derives a second model from a component's own, in which every attribute may also be a string; what
only the first one refuses is then reported without file and line. Here the YAML is validated by the
component itself, once, after its templates are resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, RootModel, ValidationError

from dwh_assets.errors import ConfigurationError, DwhError

# The names and indexes that lead to an attribute, as pydantic gives them.
AttributePath = Sequence[str | int]
_TEMPLATE_MARKS = ("{{", "{%")
_SHOWN_VALUE = 120


class DeclaredComponent(dg.Component, BaseModel):
    """A component whose attributes are its own fields."""

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return what Dagster validates the attributes with: anything, under the component's own schema."""
        component = cls

        class Attributes(RootModel[dict[str, Any]]):
            """Attributes as they stand in the YAML."""

            @classmethod
            def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
                return component.model_json_schema(*arguments, **options)

        return Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Make the component that the YAML describes.

        Raises `ConfigurationError` that says of each mistake where it is, what was found, what is expected.
        """
        given = attributes.root if isinstance(attributes, RootModel) else {}
        resolved = _without_templates(given, context.resolution_context.at_path("attributes"))
        try:
            return cls.model_validate(resolved)
        except ValidationError as error:
            mistakes = [_mistake(cls, context, found, resolved) for found in error.errors(include_url=False)]
            raise ConfigurationError("\n".join(mistakes)) from None


@contextmanager
def declared_at(context: dg.ComponentLoadContext, name: str, *path: str | int) -> Iterator[None]:
    """Say which attribute, at which line of which file, an error concerns that is raised in this block.

    `name` is the name of what is declared, for example of the table.
    """
    try:
        yield
    except DwhError as error:
        where = _place(context, path)
        raise ConfigurationError(f"{where}: {error.message}", remedy=error.remedy) from error.__cause__
    except Exception as error:
        raise ConfigurationError(f"{_place(context, path)}: {name}: {error}") from error


def _without_templates(value: Any, context: dg.ResolutionContext) -> Any:
    """Resolve templates; a text without one stays as it is (Dagster's own way would make "1" a number)."""
    if isinstance(value, Mapping):
        return {key: _without_templates(inner, context.at_path(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_templates(inner, context.at_path(index)) for index, inner in enumerate(value)]
    if isinstance(value, str) and any(mark in value for mark in _TEMPLATE_MARKS):
        return context.resolve_value(value)
    return value


def _mistake(
    component: type[BaseModel], context: dg.ComponentLoadContext, found: Mapping[str, Any], given: Any
) -> str:
    """Say where one mistake is, what was found and what is expected."""
    expected = found["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    path = _written(found["loc"], given)
    if found["type"] == "missing":
        missing = ".".join(map(str, [*path, found["loc"][-1]]))
        return f"{_place(context, path)}: {missing} is missing"
    if not path:  # a rule about several attributes; it stands at the first one that it names
        named = [name for name in found["input"] if re.search(rf"\b{name}\b", expected)]
        return f"{_place(context, named[:1])}: {expected}"
    attribute = ".".join(map(str, path))
    if found["type"] == "extra_forbidden":
        similar = _similar(component, found["loc"])
        return f"{_place(context, path)}: {attribute} is not an attribute{similar}"
    return f"{_place(context, path)}: {attribute} is {_shortened(found['input'])}: {expected}"


def _written(path: AttributePath, given: Any) -> AttributePath:
    """Leave out what pydantic adds to a path: which of an attribute's types it tried, or took."""
    written = []
    for part in path:
        try:
            given = given[part]
        except (KeyError, IndexError, TypeError):
            continue
        written.append(part)
    return written


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}…"


def _similar(component: type[BaseModel], path: AttributePath) -> str:
    """Suggest the attribute that may be meant, or name those of the component."""
    *_, name = map(str, path)
    known = _names(component.model_json_schema(), path[:-1])
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _names(schema: Mapping[str, Any], path: AttributePath) -> list[str]:
    """Follow a path through a JSON schema, and return the names of the attributes that it leads to."""
    place: Mapping[str, Any] = schema
    for part in path:
        place = _attributes_of(schema, place)
        if "discriminator" in place:
            place = {"$ref": place["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            place = place.get("items", {})
        else:
            place = place.get("properties", {}).get(part, place.get("additionalProperties") or {})
    return list(_attributes_of(schema, place).get("properties", {}))


def _attributes_of(schema: Mapping[str, Any], place: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, and pass over the null of an optional attribute."""
    for option in place.get("anyOf", []):
        if option.get("type") != "null":
            place = option
    reference = place.get("$ref", "")
    found: Mapping[str, Any] = schema["$defs"][reference.rpartition("/")[2]] if reference else place
    return found


def _place(context: dg.ComponentLoadContext, path: AttributePath) -> str:
    """Return file:line of an attribute, or of the closest one around it."""
    tree = getattr(context.component_decl, "source_tree", None)
    if tree is None:
        return str(context.component_loc.get_display_key(context.project_root))
    position, _ = tree.source_position_tree.lookup_closest_and_path(["attributes", *path], None)
    return str(position)
