"""The rules of an AuthorizationPolicy, judged: every problem, each with its path. Pure.

Called by ``field_rules`` for documents, and by ``incremental_compile`` for what the control plane sends: a proxy takes
no rule that it can't judge requests by. The rules are those of Istio's ``ValidateAuthorizationPolicy``, and stricter
where Istio takes a value that can never match (port 0, a template that does not begin with a slash).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.resources.authorization import Condition, Operation, PolicySpec, Rule, Source
from sidecar.resources.kinds import DRY_RUN, AuthorizationPolicy, Metadata
from sidecar.resources.unsupported import KEYS
from sidecar.resources.validation import Path, Problem, shown

Found = Iterator[Problem]

MOST_ACCOUNTS: Final = 16  # in one list, and their length: Istio's bounds
ACCOUNT_CHARS: Final = 320
ONE: Final = "{*}"
ANY: Final = "{**}"
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_PREFIX: Final = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]+", re.ASCII)  # RFC 3986 pchar, without the asterisk
_HEADER: Final = re.compile(r"request\.headers\[([!#$%&'*+.^_`|~0-9A-Za-z-]+)\]", re.ASCII)  # RFC 9110 token


def check_policy(metadata: Metadata, spec: AuthorizationPolicy) -> Found:
    """All that is wrong with the rules of a document, and with its annotation; paths are from its root."""
    said = metadata.annotations.get(DRY_RUN)
    if said not in (None, "true", "false"):
        yield Problem(("metadata", "annotations", DRY_RUN), f'{shown(said)} is neither "true" nor "false"')
    yield from check_rules(spec.rules, ("spec", "rules"))


def policy_of(metadata: Metadata, spec: AuthorizationPolicy) -> PolicySpec:
    """The policy as proxies are told it."""
    dry_run = metadata.annotations.get(DRY_RUN) == "true"
    return PolicySpec(metadata.name, metadata.namespace, spec.action, spec.rules, dry_run)


def check_rules(rules: Sequence[Rule], path: Path) -> Found:
    """All that is wrong with these rules, which are at ``path``."""
    for index, rule in enumerate(rules):
        at: Path = (*path, index)
        if rule.from_ == []:
            yield Problem((*at, "from"), "is empty; leave it out to mean any source")
        for number, source in enumerate(rule.from_ or []):
            yield from _source(source.source, (*at, "from", number, "source"))
        if rule.to == []:
            yield Problem((*at, "to"), "is empty; leave it out to mean any operation")
        for number, operation in enumerate(rule.to or []):
            yield from _operation(operation.operation, (*at, "to", number, "operation"))
        for number, condition in enumerate(rule.when or []):
            yield from _condition(condition, (*at, "when", number))


def _source(source: Source, at: Path) -> Found:
    if source == Source():
        yield Problem(at, "has no field; leave out the source to mean any")
    named = [*source.principals, *source.not_principals, *source.namespaces, *source.not_namespaces]
    for field, values in (
        ("serviceAccounts", source.service_accounts), ("notServiceAccounts", source.not_service_accounts),
    ):  # fmt: skip
        if values and named:
            yield Problem((*at, field), "can't be together with principals or namespaces; write one of them")
        yield from _accounts(values, (*at, field))
    for field, values in (
        ("principals", source.principals), ("notPrincipals", source.not_principals),
        ("namespaces", source.namespaces), ("notNamespaces", source.not_namespaces),
    ):  # fmt: skip
        yield from check_texts(values, (*at, field))
    for field, values in (
        ("ipBlocks", source.ip_blocks), ("notIpBlocks", source.not_ip_blocks),
        ("remoteIpBlocks", source.remote_ip_blocks), ("notRemoteIpBlocks", source.not_remote_ip_blocks),
    ):  # fmt: skip
        yield from _blocks(values, (*at, field))


def _operation(operation: Operation, at: Path) -> Found:
    if operation == Operation():
        yield Problem(at, "has no field; leave out the operation to mean any")
    for field, values in (
        ("hosts", operation.hosts), ("notHosts", operation.not_hosts),
        ("methods", operation.methods), ("notMethods", operation.not_methods),
    ):  # fmt: skip
        yield from check_texts(values, (*at, field))
    yield from _ports(operation.ports, (*at, "ports"))
    yield from _ports(operation.not_ports, (*at, "notPorts"))
    yield from check_paths(operation.paths, (*at, "paths"))
    yield from check_paths(operation.not_paths, (*at, "notPaths"))


def _condition(condition: Condition, at: Path) -> Found:
    key, check = condition.key, _KEYS.get(condition.key)
    if check is None and _HEADER.fullmatch(key):
        check = check_texts
    if check is None:
        yield Problem((*at, "key"), _unknown(key))
    if not condition.values and not condition.not_values:
        yield Problem(at, "has neither values nor notValues; add one of them")
    for field, values in (("values", condition.values), ("notValues", condition.not_values)):
        yield from (check or check_texts)(values, (*at, field))


def _unknown(key: str) -> str:
    if not key:
        return "is empty; name what is looked at, for example source.ip"
    if key.startswith("request.headers"):
        return f"{shown(key)} names no header; write request.headers[NAME]"
    for beginning, why in KEYS.items():
        if key.startswith(beginning):
            return f"{shown(key)} {why}"
    return f"{shown(key)} is not a key; there are request.headers[NAME], {', '.join(_KEYS)}"


def check_texts(values: Sequence[str], path: Path) -> Found:
    """All that is wrong with texts, which are exact, or have a ``*`` at one end."""
    for index, text in enumerate(values):
        if not text:
            yield Problem((*path, index), 'is empty; write a value, or "*" for any that is not empty')


def _ports(values: Sequence[str], path: Path) -> Found:
    for index, text in enumerate(values):
        if not _PORT.fullmatch(text) or int(text) > 65535:
            yield Problem((*path, index), f"{shown(text)} is not a port from 1 to 65535")


def _blocks(values: Sequence[str], path: Path) -> Found:
    for index, text in enumerate(values):
        if not is_block(text):
            yield Problem((*path, index), f"{shown(text)} is neither an IP address nor a CIDR")


def is_block(text: str) -> bool:
    """Return whether this is an IP address or a CIDR, whose host bits may be set. A zone belongs to one machine."""
    address, slash, bits = text.partition("/")
    if "%" in text or (slash and not _PREFIX.fullmatch(bits)):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return bool(address)


def _accounts(values: Sequence[str], path: Path) -> Found:
    if len(values) > MOST_ACCOUNTS:
        yield Problem(path, f"has {len(values)} entries; at most {MOST_ACCOUNTS} are allowed")
    for index, text in enumerate(values):
        if "*" in text:
            yield Problem((*path, index), f"{shown(text)} has a *, which is not allowed here; write principals")
        elif len(text) > ACCOUNT_CHARS:
            yield Problem((*path, index), f"is longer than {ACCOUNT_CHARS} characters")
        elif len(text.split("/")) > 2 or not all(text.split("/")):
            yield Problem((*path, index), f"{shown(text)} is neither NAMESPACE/ACCOUNT nor ACCOUNT")


def check_paths(values: Sequence[str], path: Path) -> Found:
    """All that is wrong with paths and path templates."""
    for index, text in enumerate(values):
        why = "is empty; write a path" if not text else _bad_template(text)
        if why:
            yield Problem((*path, index), why)


def _bad_template(text: str) -> str:
    """Why a path is no template, where it has braces; empty for one that is, and for a path without braces.

    Istio's ``CheckValidPathTemplate``, for Envoy's URI templates."""
    if "{" not in text and "}" not in text:
        return ""
    segments = text.strip("/").split("/")
    for number, segment in enumerate(segments):
        if segment in (ONE, ANY):
            if ANY in segments[:number]:
                return f"{shown(text)} has {segment} after {ANY}, which has to be the last of them"
        elif "{" in segment or "}" in segment:
            return f"{shown(text)} has braces that are not a whole segment {ONE} or {ANY}"
    if not text.startswith("/"):
        return f"{shown(text)} does not begin with /, so the template matches no path"
    for segment in segments:
        if segment not in (ONE, ANY) and not _LITERAL.fullmatch(segment):
            what = "a *" if "*" in segment else "an empty segment" if not segment else "a character no path can have"
            return f"{shown(text)} has {what} beside {ONE} or {ANY}"
    return ""


_KEYS: Final[dict[str, Callable[[Sequence[str], Path], Found]]] = {
    "source.ip": _blocks,
    "remote.ip": _blocks,
    "source.namespace": check_texts,
    "source.principal": check_texts,
    "source.serviceAccount": _accounts,
    "destination.ip": _blocks,
    "destination.port": _ports,
    "connection.sni": check_texts,
}
