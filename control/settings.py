"""Settings: everything that the control plane was told, as one frozen value. The only reader of the environment.

Who calls it: ``control.cli``. A value comes from its flag, else from its twin ``SIDECAR_CONTROL_...``, else it is the
default; whatever is wrong becomes one line, which names where the value stood and what to write instead.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from control.option_table import OPTIONS, Option
from sidecar.addresses import Address
from sidecar.value_parsers import Networks

SHORTEST_LEAF = 10.0  # seconds: a certificate that is renewed at half of what is left has to be issued in between
LONGEST_LEAF = 90 * 86400.0  # revoked serials are kept as long as a leaf lives


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process was told. Durations in seconds; no addresses: no listener; an empty path: none."""

    listen: tuple[Address, ...]
    tls_listen: tuple[Address, ...]
    trust_domain: str
    ca: str  # "dir" or "memory"
    ca_dir: str
    ca_cert: str
    ca_key: str
    leaf_ttl: float
    kube_jwks: str  # a path or a URL
    kube_audience: str
    kube_api: str
    kube_api_ca: str
    kube_api_token_file: str
    workload_networks: Networks
    store: str  # "dir", "memory", or a path
    audit_log: str
    log_level: str
    log_format: str


def examine(
    flags: Mapping[str, str], environ: Mapping[str, str] | None = None, earlier: Sequence[str] = ()
) -> tuple[Settings | None, list[str]]:
    """Settings from the flags given ({field: text}) and the environment, or None and every problem, a line each.

    ``earlier`` are problems found before. What contradicts what is looked for once each value is right alone.
    """
    told = os.environ if environ is None else environ
    found: dict[str, Any] = {}
    problems = list(earlier)
    for option in OPTIONS:
        text = flags.get(option.field, told.get(option.twin, option.default))
        try:
            found[option.field] = option.parse(text)
        except ValueError as error:
            problems.append(f"{_source(option, flags, told)}: {error}; write {_form(option)}")
    if problems:
        return None, problems
    settings = Settings(**found)
    problems = [f"{_source(_option(field), flags, told)}: {problem}" for field, problem in _contradictions(settings)]
    return (None, problems) if problems else (settings, [])


def unknown_twins(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each SIDECAR_CONTROL_... variable that is no twin of a flag: a typo must not pass in silence."""
    told = os.environ if environ is None else environ
    twins = [option.twin for option in OPTIONS]
    sentences = []
    for name in sorted(name for name in told if name.startswith("SIDECAR_CONTROL_") and name not in twins):
        near = difflib.get_close_matches(name, twins, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        sentences.append(f"the environment's {name} is not a setting and has no effect{hint}")
    return sentences


def _source(option: Option, flags: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Where a value stood: the flag, with its twin where it was that."""
    if option.field not in flags and option.twin in environ:
        return f"{option.flag} (from {option.twin})"
    return option.flag


def _form(option: Option) -> str:
    """How to write a value: the words to choose from, or the form with an example."""
    words = option.metavar.split("|")
    if all(word.islower() for word in words):
        return "one of " + ", ".join(words)
    return f"{', or '.join(words)}, for example {option.example}"


def _option(field: str) -> Option:
    return next(option for option in OPTIONS if option.field == field)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Values that are right alone and wrong together: (the field to name, what is wrong; what to do)."""
    if not SHORTEST_LEAF <= settings.leaf_ttl <= LONGEST_LEAF:
        yield "leaf_ttl", f"{settings.leaf_ttl:g} s can't be served; write a duration from 10s to 2160h (90 days)"
    if settings.ca_cert and not settings.ca_key:
        yield "ca_key", "is missing; name the file with the key of --ca-cert"
    if settings.ca_key and not settings.ca_cert:
        yield "ca_cert", "is missing; name the file with the certificate of --ca-key"
    if settings.ca_cert and settings.ca == "memory":
        yield "ca", "memory makes a CA, and --ca-cert brings one; leave one of them out"
    if settings.kube_jwks and settings.kube_api:
        yield "kube_api", "asks for what --kube-jwks decides already; leave one of them out"
    if (settings.kube_jwks or settings.kube_api) and not settings.kube_audience:
        yield "kube_audience", "is missing: a token made for somebody else would do; name it, as in the pods' volumes"
    if settings.kube_audience and not (settings.kube_jwks or settings.kube_api):
        yield "kube_audience", "has no use without --kube-jwks or --kube-api; add one of them, or leave it out"
