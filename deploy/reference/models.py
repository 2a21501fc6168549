"""Describe a file that people write: every key of its model, what may stand there, and what it means."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from textwrap import dedent
from typing import Any

from pydantic import BaseModel

from deploy.reference.markdown import prose, sentence, table
from policies.model.patterns import PATTERNS

FORMATS = {
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "ipv4network": "an IPv4 network like `10.80.0.0/20`",
    "ipv6network": "an IPv6 network like `fd80::/64`",
    "time": "a time of day like `22:00`",
    "path": "a path",
    "date-time": "a time like `2030-01-31T12:00:00Z`",
}
PLAIN = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}

_ISO = re.compile(r"-?P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")
_BOUNDS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
)
_LENGTHS = (("minItems", "at least {}"), ("maxLength", "at most {} characters"))


@dataclass(frozen=True)
class Key:
    """One key as the reference shows it; `default` is empty where the file has to say it."""

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """The keys that stand together, where they stand, and what they are together."""

    places: tuple[str, ...]
    model: type[BaseModel]
    keys: tuple[Key, ...]


def sections(model: type[BaseModel]) -> Iterator[Section]:
    """Yield the keys of a file's content and of everything in it, outermost first, each kind once."""
    described = model.model_json_schema(by_alias=True)
    kinds = _kinds(model)
    pending, places, schemas = [("", described)], dict[str, list[str]](), dict[str, dict[str, Any]]()
    while pending:
        place, schema = pending.pop(0)
        title = schema["title"]
        places.setdefault(title, []).append(place)
        if title in schemas:
            continue
        schemas[title] = schema
        for name, value in schema.get("properties", {}).items():
            pending += [
                (f"{place}.{name}{steps}".lstrip("."), described["$defs"][inner])
                for inner, steps in _inner(value)
                if "properties" in described["$defs"][inner]
            ]
    for title, schema in schemas.items():
        found = kinds[title]
        yield Section(tuple(dict.fromkeys(places[title])), found, tuple(_keys(found, schema)))


def text_of(model: type[BaseModel], headings: str = "##", whole: str = "The file") -> str:
    """Return the tables of a file, one for each section; `whole` is the title of the outermost."""
    parts = []
    for section in sections(model):
        about = prose(inspect.getdoc(section.model) or "")
        rows = [(f"`{key.name}`", key.kind, key.default, key.meaning) for key in section.keys]
        tag = next((f" (`kind: {key.kind.strip('`')}`)" for key in section.keys if _is_tag(key)), "")
        title = ", ".join(f"`{place}`" for place in section.places if place) + tag or whole
        parts.append(f"{headings} {title}\n\n{about}\n\n{table(('Key', 'Value', 'Default', 'Means'), rows)}")
    return "\n\n".join(parts)


def _is_tag(key: Key) -> bool:
    return key.name == "kind" and not key.default and key.kind.startswith("`") and " " not in key.kind


def _keys(model: type[BaseModel], schema: dict[str, Any]) -> Iterator[Key]:
    required = set(schema.get("required", ()))
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    for name, value in schema.get("properties", {}).items():
        own = names.get(name, name)
        meaning = value.get("description") or _attribute_docstrings(model).get(own, "")
        default = "" if name in required else _default(value.get("default"))
        yield Key(name, _kind(value), default, sentence(meaning))


def _kind(value: dict[str, Any]) -> str:
    """Return what may stand there, in words."""
    choices = value.get("anyOf") or value.get("oneOf")
    if "discriminator" in value:
        return "one of the kinds below"
    if choices:
        said = [_kind(choice) for choice in choices if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(said))
    return _chosen(value) or _written(value) or _plain(value)


def _chosen(value: dict[str, Any]) -> str:
    """Return the words that may stand there, where these are all."""
    if "$ref" in value:
        values = _ENUMS.get(value["$ref"].rpartition("/")[2])
        return _choices(values) if values else "keys, see below"
    return _choices(value["enum"] if "enum" in value else [value["const"]] if "const" in value else [])


def _choices(values: list[str]) -> str:
    return ", ".join(f"`{one}`" for one in values)


def _written(value: dict[str, Any]) -> str:
    """Return how it is written, where text alone does not say so."""
    if "PT8H" in value.get("examples", ()):
        return "a duration like `90s`, `30m`, `8h`"
    pattern = value.get("pattern")
    return (
        PATTERNS.get(pattern, f"text that matches `{pattern}`")
        if pattern
        else FORMATS.get(value.get("format", ""), "")
    )


def _plain(value: dict[str, Any]) -> str:
    match value.get("type"):
        case "array":
            if pair := value.get("prefixItems"):
                return f"list of {len(pair)}: {_kind(pair[0])}"
            return _bounded(f"list of {_kind(value.get('items', {}))}", value, _LENGTHS)
        case "object":
            inner = value.get("additionalProperties") or next(
                iter(value.get("patternProperties", {}).values()), None
            )
            return f"entries: a name and {_kind(inner)}" if isinstance(inner, dict) else "entries"
        case str(plain) if plain in PLAIN:
            return _bounded(PLAIN[plain], value, (*_LENGTHS, *_BOUNDS))
        case _:
            return "nothing"


def _bounded(said: str, value: dict[str, Any], bounds: tuple[tuple[str, str], ...]) -> str:
    found = [words.format(value[bound]) for bound, words in bounds if bound in value]
    return ", ".join([said, *found])


_ENUMS: dict[str, list[str]] = {}


def _default(value: Any) -> str:
    if value is None or (isinstance(value, list | dict | str) and not value):
        return "none"
    if isinstance(value, dict):
        return "as below"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, str) and (found := _ISO.fullmatch(value)):
        return f"`{_duration(found)}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _duration(found: re.Match[str]) -> str:
    parts = zip(found.groups(), "dhms", strict=True)
    return " ".join(f"{float(number):g}{unit}" for number, unit in parts if number) or "0s"


def _inner(value: Any, steps: str = "") -> Iterator[tuple[str, str]]:
    """Yield the models that a value may hold, and how one gets there."""
    if "$ref" in value:
        yield value["$ref"].rpartition("/")[2], steps
    for choice in (*value.get("anyOf", ()), *value.get("oneOf", ())):
        yield from _inner(choice, steps)
    if isinstance(items := value.get("items"), dict):
        yield from _inner(items, f"{steps}[]")
    if isinstance(values := value.get("additionalProperties"), dict):
        yield from _inner(values, f"{steps}.NAME")


def _kinds(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return every model by the name that its schema has for it."""
    found: dict[str, type[BaseModel]] = {}
    pending = [model]
    while pending:
        one = pending.pop()
        if one.__name__ not in found:
            found[one.__name__] = one
            for field in one.model_fields.values():
                pending += _models_in(field.annotation)
    for name, definition in model.model_json_schema().get("$defs", {}).items():
        if "enum" in definition:
            _ENUMS[name] = [json.dumps(one).strip('"') for one in definition["enum"]]
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    found = [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    return found


@cache
def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return what stands in quotes below a field, in the class itself or one that it is made of."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            (body,) = ast.parse(dedent(inspect.getsource(kind))).body
            assert isinstance(body, ast.ClassDef)
            for field, said in zip(body.body, body.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    match said:
                        case ast.Expr(value=ast.Constant(value=str(text))):
                            found[field.target.id] = text
                        case _:
                            pass
    return found
