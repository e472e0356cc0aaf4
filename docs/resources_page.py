"""docs/reference/resources.md and the JSON Schemas beside it, from the structs by which documents are read."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from sidecar.resources.field_docs import ABOUT
from sidecar.resources.json_schemas import schema_of, schema_of_all
from sidecar.resources.kinds import API_VERSIONS, KINDS, Metadata
from sidecar.resources.unsupported import KNOWN, OTHER_KINDS, SET_BY_SERVERS

_HEAD = """\
# Resources

<!-- Made from sidecar/resources/ by make docs; change that, not this. -->

The documents that operators write, field by field. How to write them, who sees what and which document counts is told
in [documents](../resources.md). A field or kind that is not here is an error, never passed over.

JSON Schemas for editors: {schemas}.

## metadata

The same for every kind. What a server adds to what it shows is left aside, so that it can be applied again: {aside},
and `status`.

"""
_KIND = "\n## {kind}\n\n{about}\n\n`apiVersion`: {versions}\n\n"
_TABLE = "| field | type | default | meaning |\n| --- | --- | --- | --- |\n"
_LATER = "\nKnown, and not taken:\n\n| field | what is said of it |\n| --- | --- |\n"
_OTHERS = """\

## Other kinds

These are known, and each is an error that says so: {kinds}.
"""

_SIMPLE: dict[Any, str] = {str: "text", bool: "true or false", float: "number"}


def text() -> str:
    """The page."""
    files = ", ".join(f"[{_file(kind)}](schemas/{_file(kind)})" for kind in KINDS)
    aside = ", ".join(f"`{name}`" for name in sorted(SET_BY_SERVERS))
    parts = [
        _HEAD.format(schemas=f"[all.json](schemas/all.json) for any kind, {files}", aside=aside),
        *_tables(Metadata, "metadata."),
    ]
    for kind, struct in KINDS.items():
        versions = ", ".join(f"`{each}`" for each in API_VERSIONS[kind])
        about = schema_of(kind)["description"]
        parts += [_KIND.format(kind=kind, about=about, versions=versions), *_tables(struct, "spec.")]
    return "".join([*parts, _OTHERS.format(kinds=", ".join(f"`{kind}`" for kind in sorted(OTHER_KINDS)))])


def _tables(struct: type, prefix: str) -> Iterator[str]:
    rows = list(_rows(struct, prefix))
    yield _TABLE + "".join(rows)
    later = [(field, why) for path, each in _structs(struct, prefix) for field, why in _known(each, path)]
    if later:
        yield _LATER + "".join(f"| `{field}` | {_cell(why)} |\n" for field, why in later)


def _known(struct: type, path: str) -> Iterator[tuple[str, str]]:
    for field, why in KNOWN.get(struct, {}).items():
        yield path + field.replace("=", ": "), why


def _rows(struct: type, prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        name = prefix + field.encode_name
        about = ABOUT[struct][field.encode_name]
        yield f"| `{name}` | {_cell(_type(field.type))} | {_default(field)} | {_cell(about)} |\n"
        inner, mark = _inner(field.type)
        if inner is not None:
            yield from _rows(inner, name + mark + ".")


def _structs(struct: type, prefix: str) -> Iterator[tuple[str, type]]:
    yield prefix, struct
    for field in msgspec.structs.fields(struct):
        inner, mark = _inner(field.type)
        if inner is not None:
            yield from _structs(inner, prefix + field.encode_name + mark + ".")


def _inner(hint: Any) -> tuple[type | None, str]:
    """The struct that a field is made of, and what stands for its place in a path."""
    hint = _plain(hint)
    if get_origin(hint) is list:
        return _inner(get_args(hint)[0])[0], "[]"
    if get_origin(hint) is dict:
        return _inner(get_args(hint)[1])[0], "[KEY]"
    return (hint, "") if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else (None, "")


def _type(hint: Any) -> str:
    hint = _plain(hint)
    origin = get_origin(hint)
    if origin is list:
        return f"list of {_type(get_args(hint)[0])}"
    if origin is dict:
        key, value = get_args(hint)
        return f"mapping from {_type(key)} to {_type(value)}"
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in get_args(hint) if each)
    if origin is Annotated:
        bounds = get_args(hint)[1]
        what = "port" if bounds.le == 65535 else "whole number"
        return f"{what} ({bounds.ge} to {bounds.le})"
    return _SIMPLE.get(hint, "mapping")


def _plain(hint: Any) -> Any:
    """Without the None of a field that may be left out."""
    if get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def _default(field: Any) -> str:
    if field.required:
        return "needed"
    worth = field.default if field.default is not msgspec.NODEFAULT else None
    if isinstance(worth, bool) or worth is None:
        return ""
    return f"`{worth}`" if isinstance(worth, str | int | float) and worth else ""


def _file(kind: str) -> str:
    return f"{kind}.json"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _schema(kind: str) -> Callable[[], str]:
    return lambda: _json(schema_of(kind))


SCHEMAS: dict[str, Callable[[], str]] = {
    "reference/schemas/all.json": lambda: _json(schema_of_all()),
    **{f"reference/schemas/{_file(kind)}": _schema(kind) for kind in KINDS},
}
