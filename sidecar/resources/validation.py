"""Plain values -> structs, or every problem at once, each with its path.

Who calls it: ``load`` and ``documents``. msgspec makes the structs in one go and stops at the first thing that is
wrong; only then the values are walked a second time, by the same types, for all of it.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from sidecar.resources.schema import KNOWN

T = TypeVar("T", bound=msgspec.Struct)
Path = tuple[str | int, ...]
Known = Mapping[type, Mapping[str, str]]
SHOWN = 60  # characters of a value that is named in a problem


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, and at which field or item: keys and indices from the root down."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{path_text(self.path)}: {self.why}" if self.path else self.why


def path_text(path: Path) -> str:
    """``services[3].ports[0].name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: object) -> str:
    """A value as it is named in a problem: on one line, and short."""
    text = ascii(value) if isinstance(value, str | int | float | bool) else ""
    if text:
        return text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return "nothing" if value is None else "a mapping" if isinstance(value, dict) else "a list"


def shape(kind: type[T], value: object, known: Known = KNOWN) -> tuple[T | None, list[Problem]]:
    """The value as that struct, or None and all that is wrong with it. ``known``: what to say of fields that are
    known and not taken, and of values, as ``field=value``."""
    try:
        return msgspec.convert(value, kind, str_keys=True), []
    except msgspec.ValidationError as error:
        return None, list(_problems(kind, value, (), known)) or [Problem((), str(error))]


def _problems(hint: Any, value: object, path: Path, known: Known) -> Iterator[Problem]:
    """All that keeps the value from being what the type hint asks for."""
    origin = get_origin(hint)
    if origin is UnionType and value is not None:
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        origin = get_origin(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if isinstance(value, dict):
            yield from _fields(hint, value, path, known)
        else:
            yield Problem(path, f"{shown(value)} is not a mapping")
    elif origin is list:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _problems(get_args(hint)[0], item, (*path, index), known)
        else:
            yield Problem(path, f"{shown(value)} is not a list")
    elif origin is dict:
        if isinstance(value, dict):
            yield from _entries(get_args(hint), value, path, known)
        else:
            yield Problem(path, f"{shown(value)} is not a mapping")
    else:
        yield from _leaf(hint, value, path)


def _fields(kind: type[msgspec.Struct], value: Mapping[Any, object], path: Path, known: Known) -> Iterator[Problem]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    said = known.get(kind, {})
    for key, item in value.items():
        if key not in fields:
            yield Problem((*path, key), said.get(key) or f"is not a field here; there are {', '.join(fields)}")
        elif isinstance(item, str) and f"{key}={item}" in said:
            yield Problem((*path, key), f"{item} {said[f'{key}={item}']}")
        else:
            yield from _problems(fields[key].type, item, (*path, key), known)
    for name, field in fields.items():
        if field.required and name not in value:
            yield Problem(path, f"{name} is missing")


def _entries(hints: tuple[Any, ...], value: Mapping[Any, object], path: Path, known: Known) -> Iterator[Problem]:
    for key, item in value.items():
        if not _fits(dict[hints[0], None], {key: None}):  # type: ignore[valid-type]
            yield Problem((*path, key), f"the key {shown(key)} is not {_wanted(hints[0])}")
        yield from _problems(hints[1], item, (*path, key), known)


def _leaf(hint: Any, value: object, path: Path) -> Iterator[Problem]:
    if not _fits(hint, value):
        yield Problem(path, f"{shown(value)} is not {_wanted(hint)}")


def _fits(hint: Any, value: object) -> bool:
    try:
        msgspec.convert(value, hint, str_keys=True)
    except msgspec.ValidationError:
        return False
    return True


def _wanted(hint: Any) -> str:
    """What a type hint asks for, in words."""
    if get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(each) for each in get_args(hint) if each)
    if get_origin(hint) is Annotated:
        bounds = get_args(hint)[1]
        what = "a port" if bounds.le == 65535 else "a whole number"
        return f"{what} from {bounds.ge} to {bounds.le}"
    if hint is str:
        return "text; put it in quotes"
    if hint is float:
        return "a number"
    if hint is bool:
        return "true or false, without quotes"
    return _wanted(get_args(hint)[0])  # a union with None, which nobody has to write
