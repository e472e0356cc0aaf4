"""Redirects and rewritten targets: where a request is sent instead, by a route's rule. Pure.

Called by ``proxy.routed_request``. ``target`` is the path and query of the request as it would go on.

Source: Istio's reference of HTTPRedirect and HTTPRewrite; Envoy's ``RedirectAction`` and ``prefix_rewrite``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from sidecar.http.paths import forwarded
from sidecar.policy.string_match import check_length, compile_regex_rewrite
from sidecar.resources.virtual_service import HTTPMatchRequest, HTTPRedirect, HTTPRewrite

_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


def matched_length(match: HTTPMatchRequest | None, path: bytes) -> int:
    """Return how many bytes of ``path`` a rewrite replaces: the matched prefix; all of it after an exact or a regex
    match. A rule that does not look at the path matches the prefix ``/``."""
    uri = None if match is None else match.uri
    if uri is None or (uri.exact is None and uri.regex is None and uri.prefix is None):
        return 1
    return len(path) if uri.prefix is None else len(uri.prefix.encode("utf-8", "surrogatepass"))


class Rewrite(msgspec.Struct, frozen=True, gc=False):
    """Another target and authority for the upstream; b"" and None leave them."""

    uri: bytes = b""
    authority: bytes = b""
    replace: Callable[[bytes], bytes] | None = None

    def target(self, target: bytes, match: HTTPMatchRequest | None) -> bytes:
        """Return the target for the upstream, in the form in which targets are forwarded: what is left of a path must
        not become a way out of the new one. Raises ProxyError(BAD_REQUEST, REQUEST_LINE_TOO_LONG) if it is none."""
        if not self.uri and self.replace is None:
            return target
        path, mark, query = target.partition(b"?")
        new = self.uri + path[matched_length(match, path) :] if self.replace is None else self.replace(path)
        whole = forwarded(new if new.startswith(b"/") else b"/" + new) + mark + query
        check_length(len(whole))
        return whole


NO_REWRITE: Final = Rewrite()


def compile_rewrite(spec: HTTPRewrite | None) -> Rewrite:
    """Return the rewrite that a rule asks for."""
    if spec is None:
        return NO_REWRITE
    regex = spec.uri_regex_rewrite
    replace = None if regex is None else compile_regex_rewrite(regex.match, regex.rewrite)
    return Rewrite(_bytes(spec.uri), _bytes(spec.authority), replace)


class Redirect(msgspec.Struct, frozen=True, gc=False):
    """The answer of a rule that redirects: its status, and the parts of ``location`` that are not the request's own.
    ``port`` 0: that of the authority."""

    status: int
    uri: bytes
    replaces_prefix: bool
    authority: bytes
    scheme: bytes
    port: int
    of_request: bool  # the port that the request was sent to

    def location(
        self, target: bytes, authority: bytes, port: int, match: HTTPMatchRequest | None, scheme: bytes = b"http"
    ) -> bytes:
        """Return the value of ``location`` for a request to ``authority`` that was sent to ``port``."""
        if not target.startswith(b"/"):
            target = b""  # OPTIONS * is about the server, and has no path
        new_scheme = self.scheme or scheme
        new_port = port if self.of_request else self.port
        suffix = b":%d" % new_port if new_port else b""
        if suffix == _DEFAULT_PORTS.get(new_scheme):
            suffix = b""  # the default of the scheme is left out
        host = self.authority or _without_port(authority, scheme, new_scheme, replaced=bool(suffix))
        return b"%b://%b%b%b" % (new_scheme, host, suffix, self._path(target, match))

    def _path(self, target: bytes, match: HTTPMatchRequest | None) -> bytes:
        if not self.uri:
            return target
        path, mark, query = target.partition(b"?")
        if self.replaces_prefix:
            return self.uri + path[matched_length(match, path) :] + mark + query
        return self.uri if b"?" in self.uri else self.uri + mark + query


def compile_redirect(spec: HTTPRedirect) -> Redirect:
    """Return the redirect that a rule asks for."""
    return Redirect(
        spec.redirect_code or 301,
        _bytes(spec.uri or spec.prefix_rewrite),
        bool(spec.prefix_rewrite),
        _bytes(spec.authority),
        _bytes(spec.scheme),
        spec.port or 0,
        spec.derive_port == "FROM_REQUEST_PORT",
    )


def _without_port(authority: bytes, scheme: bytes, new_scheme: bytes, *, replaced: bool) -> bytes:
    """Return the authority without its port if another one takes its place, or if it was the default of a scheme that
    changes."""
    name, colon, port = authority.rpartition(b":") if not authority.endswith(b"]") else (authority, b"", b"")
    if not colon:
        return authority
    default = new_scheme != scheme and _DEFAULT_PORTS.get(scheme) == b":" + port
    return name if replaced or default else authority


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
