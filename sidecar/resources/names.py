"""Names and texts in documents, judged: DNS labels, hosts, labels of workloads, characters. Pure.

Called by ``field_rules`` and by the rules of single kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from sidecar.resources.sni import LABEL
from sidecar.resources.validation import Path, Problem, shown

NAME_CHARS: Final = 253
NOT_A_LABEL: Final = "is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)"
_LABEL: Final = re.compile(LABEL, re.ASCII)
_HOST: Final = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII
)  # a label of a host, as people have them
_KEY: Final = re.compile(r"(?:([a-z0-9.-]{1,253})/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)


def is_label(text: str) -> bool:
    """Return whether this is a DNS label, in lower case."""
    return _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Return whether these are DNS labels joined by dots, in lower case."""
    return len(text) <= NAME_CHARS and all(map(_LABEL.fullmatch, text.split(".")))


def is_host(text: str) -> bool:
    """Return whether this is a host name in lower case, without a dot at the end; what ends in a number many would
    take for an address."""
    labels = text.split(".")
    return len(text) <= NAME_CHARS and all(map(_HOST.fullmatch, labels)) and not labels[-1].isdigit()


def is_key(text: str) -> bool:
    """Return whether this is a key of a label or of an annotation."""
    return _KEY.fullmatch(text) is not None


def check_labels(labels: Mapping[str, str], path: Path) -> Iterator[Problem]:
    """All that is wrong with labels, which are at ``path``."""
    for key, text in labels.items():
        found = _KEY.fullmatch(key)
        if found is None or (found[1] and not is_subdomain(found[1])):
            yield Problem((*path, key), f"{shown(key)} is no key of a label")
        if not _VALUE.fullmatch(text):
            yield Problem(
                (*path, key), f"{shown(text)} is no value of a label (letters, digits, inner - _ . , at most 63)"
            )


def check_characters(value: object, path: Path) -> Iterator[Problem]:
    """All texts in a value at ``path`` that have half of a character: JSON can say that, and no message can carry
    it."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            yield Problem(path, "has a character that no text can have")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from check_characters(key, (*path, key))
            yield from check_characters(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from check_characters(each, (*path, index))
    elif isinstance(value, msgspec.Struct):
        for field, name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            yield from check_characters(getattr(value, field), (*path, name))
