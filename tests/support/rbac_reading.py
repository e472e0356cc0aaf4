"""AuthorizationPolicies as their documents read, word by word and slowly: what the compiled form is held against.

Written apart from ``sidecar.policy.rbac``: nothing is compiled, indexed or kept. Only the forms of a path are taken
from the product, since they are what the law is about. ``tests.support.rbac_drawing``
draws what the two are judged by.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Sequence

from sidecar.errors import ProxyError
from sidecar.http.paths import forwarded, judged
from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import Judgement
from sidecar.resources.authorization import Condition, Operation, PolicySpec, Rule, Source

OWN = "mesh.test"  # the mesh's own trust domain


class Undecided(Exception):
    """What a request has there can't be decided."""


class Unreadable(Exception):
    """A value of a policy has no meaning."""


def text_matches(pattern: str, seen: str) -> bool:
    if not pattern:
        raise Unreadable
    if pattern == "*":
        return seen != ""
    if pattern[0] == "*":
        return seen.endswith(pattern[1:])
    return seen.startswith(pattern[:-1]) if pattern[-1] == "*" else seen == pattern


class Reading:
    """One request under one policy."""

    def __init__(self, policy: PolicySpec, asked: Asked, identities: bool) -> None:
        self.policy = policy
        self.asked = asked
        self.identities = identities
        self.allows = policy.action == "ALLOW"
        self.http = asked.protocol == "HTTP"

    def matches(self, rule: Rule) -> bool:
        if self.allows and (rule.from_ == [] or rule.to == []):
            return False
        if self.allows and not self.http and self._asks(rule, HTTP):
            return False
        if self.allows and not self.identities and self._asks(rule, IDENTITY):
            return False
        if rule.from_ and not any(self._source(each.source) for each in rule.from_):
            return False
        if rule.to and not any(self._operation(each.operation) for each in rule.to):
            return False
        return all(self._condition(each) for each in rule.when or ())

    def _asks(self, rule: Rule, names: str) -> bool:
        parts: list[Source | Operation] = [each.source for each in rule.from_ or ()]
        parts += [each.operation for each in rule.to or ()]
        given = [name for part in parts for name in part.__struct_fields__ if getattr(part, name)]
        given += [each.key for each in rule.when or () if each.values or each.not_values]
        return any(re.match(names, name) for name in given)

    def _source(self, source: Source) -> bool:
        return (
            self._both(source.principals, source.not_principals, self._principal)
            and self._both(source.namespaces, source.not_namespaces, self._namespace)
            and self._both(source.service_accounts, source.not_service_accounts, self._account)
            and self._both(source.ip_blocks, source.not_ip_blocks, self._block(self.asked.client))
            and self._both(source.remote_ip_blocks, source.not_remote_ip_blocks, self._block(self._remote()))
        )

    def _operation(self, operation: Operation) -> bool:
        return (
            self._both(operation.hosts, operation.not_hosts, self._host)
            and self._both(operation.ports, operation.not_ports, self._port)
            and self._both(operation.methods, operation.not_methods, self._method)
            and self._both(operation.paths, operation.not_paths, self._path)
        )

    def _condition(self, condition: Condition) -> bool:
        header = re.fullmatch(r"request\.headers\[([a-zA-Z-]+)\]", condition.key)
        tests: dict[str, Test] = {
            "source.principal": self._principal,
            "source.namespace": self._namespace,
            "source.ip": self._block(self.asked.client),
            "remote.ip": self._block(self._remote()),
            "destination.ip": self._block(self.asked.place[0]),
            "destination.port": self._port,
            "connection.sni": lambda value, wide: text_matches(value.lower(), self.asked.sni.decode().lower()),
        }
        if header and (condition.values or condition.not_values):
            name = header[1].lower()
            return (not condition.values or self._header(name, condition.values, False)) and (
                not condition.not_values or self._header(name, condition.not_values, True)
            )
        test = tests.get(condition.key)
        if test is None or not (condition.values or condition.not_values):
            return not self.allows
        return self._both(condition.values, condition.not_values, test)

    def _both(self, values: Sequence[str], twin: Sequence[str], test: Test) -> bool:
        return (not values or self._holds(values, test, False)) and (not twin or self._holds(twin, test, True))

    def _holds(self, values: Sequence[str], test: Test, negated: bool) -> bool:
        wide = negated if self.allows else not negated
        hits = []
        for value in values:
            try:
                hits.append(test(value, wide))
            except Unreadable:
                hits.append(wide)
            except Undecided:
                return not self.allows
        if wide or test != self._path:
            return any(hits) is not negated
        # Each form of a path needs a value that matches, not all the same one.
        return all(any(self._one_path(value, form) for value in values) for form in self._forms()) is not negated

    def _remote(self) -> str:
        return self.asked.remote or self.asked.client

    def _id(self) -> re.Match[str] | None:
        """The peer's id; None if it has none."""
        if not self.identities:
            raise Undecided
        if not self.asked.peer:
            return None
        match = re.fullmatch(
            r"spiffe://(?P<all>[a-z.]+(?:/ns/(?P<ns>[a-z]+)/sa/(?P<sa>[a-z]+)|/other)?)", self.asked.peer
        )
        if match is None:
            raise Undecided
        return match

    def _principal(self, value: str, wide: bool) -> bool:
        peer = self._id()
        if not value.startswith("*"):
            value = re.sub(r"^spiffe://", "", value) if wide else value
            if star := re.fullmatch(r"([^/]*)\*((?:/[^/]*){4})", value):
                value = OWN + star[2] if OWN.startswith(star[1]) else value
            value = re.sub(r"^cluster\.local(?=$|/|\*$)", OWN, value)
        return text_matches(value, peer["all"] if peer else "")

    def _namespace(self, value: str, wide: bool) -> bool:
        peer = self._id()
        seen = (peer["ns"] or "") if peer else ""
        if value.count("*") > 1 or re.search(r".\*.", value):
            return seen != "" and re.fullmatch(".*".join(map(re.escape, value.split("*"))), seen) is not None
        return text_matches(value, seen)

    def _account(self, value: str, wide: bool) -> bool:
        peer = self._id()
        wanted = re.fullmatch(r"(?:([^/*]+)/)?([^/*]+)", value)
        if wanted is None:
            raise Unreadable
        return peer is not None and (peer["ns"], peer["sa"]) == (wanted[1] or self.policy.namespace, wanted[2])

    def _block(self, address: str) -> Test:
        def test(value: str, wide: bool) -> bool:
            try:
                seen = _ip(address)
            except ValueError:
                raise Undecided from None
            try:
                block = _network(value)
            except ValueError:
                raise Unreadable from None
            return seen in block or (getattr(seen, "ipv4_mapped", None) or seen) in block

        return test

    def _port(self, value: str, wide: bool) -> bool:
        if not self.asked.place[1]:
            raise Undecided
        if not value.isdigit() or not 0 < int(value) < 65536:
            raise Unreadable
        return int(value) == self.asked.place[1]

    def _method(self, value: str, wide: bool) -> bool:
        if not self.http:
            raise Undecided
        return text_matches(value, self.asked.method.decode())

    def _host(self, value: str, wide: bool) -> bool:
        if not self.http:
            raise Undecided
        seen = re.fullmatch(r"([a-z0-9.-]*|\[[0-9a-f:]+\])(?::([0-9]+))?", self.asked.authority.decode().lower())
        if seen is None:
            raise Undecided
        wanted = re.fullmatch(r"(\*?)([a-z0-9.-]*|\[[0-9a-f:]+\])(?::([0-9]+))?(:?\*)?", value.lower())
        if wanted is None or not value:
            raise Unreadable
        before, name, port, after = wanted.groups()
        if (before and after) or (value != "*" and not name and not (before and port)):
            raise Unreadable
        own_name, own_port = _plain(seen[1]), seen[2] or "80"
        if not own_name:
            return False
        if value == "*":
            return True
        if after and port:
            return f"{own_name}:{own_port}".startswith(f"{name}:{port}")
        if after == "*":
            return own_name.startswith(name)
        if port and port != own_port:
            return False
        return own_name.endswith(name.removesuffix(".")) if before else own_name == _plain(name)

    def _header(self, name: str, patterns: Sequence[str], negated: bool) -> bool:
        wide = negated if self.allows else not negated
        if not self.http:
            return not self.allows

        def one(value: bytes) -> bool:
            hits = []
            for pattern in patterns:
                try:
                    hits.append(pattern == "*" or text_matches(pattern, value.decode("latin-1")))
                except Unreadable:
                    hits.append(wide)
            return any(hits)

        names = (name, name.replace("-", "_")) if wide else (name,)
        seen = [found for key, found in self.asked.fields if key.decode().lower() in names]
        if not wide:
            return (bool(seen) and all(map(one, seen))) is not negated
        readings = [part for each in seen for part in (each, *each.split(b","))]
        readings += [re.sub(rb"^[^!-~]+|[^!-~]+$", b"", each) for each in readings]
        if not readings and "" in patterns:
            return not self.allows  # a pattern that can't be read may be one for what is absent
        return any(map(one, readings)) is not negated

    def _path(self, value: str, wide: bool) -> bool:
        return any(self._one_path(value, form, strict=True) for form in self._forms())

    def _forms(self) -> set[bytes] | frozenset[bytes]:
        if not self.http:
            raise Undecided
        sent = self.asked.path.partition(b"?")[0]
        if sent == b"*":
            return {sent}
        if not sent.startswith(b"/"):
            raise Undecided
        try:
            return judged(sent) | {forwarded(sent)}
        except ProxyError:
            raise Undecided from None

    def _one_path(self, value: str, form: bytes, strict: bool = False) -> bool:
        try:
            return _path_matches(value, form.decode())
        except Unreadable:
            if strict:
                raise
            return False


Test = Callable[[str, bool], bool]
_ip = functools.lru_cache(ipaddress.ip_address)
_network = functools.lru_cache(functools.partial(ipaddress.ip_network, strict=False))
HTTP = r"(not_)?(hosts|methods|paths)$|request\.headers\["
IDENTITY = r"(not_)?(principals|namespaces|service_accounts)$|source\.(principal|namespace)$"


def _plain(host: str) -> str:
    return str(ipaddress.ip_address(host[1:-1])) if host[:1] == "[" else host.removesuffix(".")


def _path_matches(pattern: str, path: str) -> bool:
    if "{*}" not in pattern and "{**}" not in pattern:
        return text_matches(pattern, path)
    if not re.fullmatch(r"(?:(?:^|/)(?:\{\*\}|[^/{}*]*))*(?:(?:^|/)\{\*\*\})?(?:/[^/{}*]*)*", pattern):
        raise Unreadable
    pieces = re.split(r"(\{\*\*?\})", pattern)
    whole = {"{*}": "[^/]+", "{**}": ".*"}
    return re.fullmatch("".join(whole.get(each) or re.escape(each) for each in pieces), path, re.DOTALL) is not None


def read(policies: Sequence[PolicySpec], asked: Asked, identities: bool = True) -> Judgement:
    """Return the verdict, by one look at each rule of each policy."""
    hits: list[tuple[str, bool, str, int]] = []
    for policy in policies:
        reading = Reading(policy, asked, identities)
        found = [index for index, rule in enumerate(policy.rules) if reading.matches(rule)]
        hits += [(policy.action, policy.dry_run, policy.title, index) for index in found]
    allowed, title, index = _verdict([each for each in policies if not each.dry_run], [h for h in hits if not h[1]])
    audited = next((hit[2] for hit in hits if hit[:2] == ("AUDIT", False)), "")
    if not any(policy.dry_run for policy in policies):
        return Judgement(allowed, title, index, audited)
    would, by, _ = _verdict(policies, hits)
    if not would and not by:
        by = next((each.title for each in policies if each.dry_run and each.action == "ALLOW"), "")
    return Judgement(allowed, title, index, audited, would, by)


def _verdict(policies: Sequence[PolicySpec], hits: list[tuple[str, bool, str, int]]) -> tuple[bool, str, int]:
    for action, _, title, index in hits:
        if action == "DENY":
            return False, title, index
    if not any(policy.action == "ALLOW" for policy in policies):
        return True, "", -1
    for action, _, title, index in hits:
        if action == "ALLOW":
            return True, title, index
    return False, "", -1
