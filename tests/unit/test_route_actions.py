"""What a rule does with a request: edits of fields, rewritten targets, redirects, faults, direct responses, mirrors."""

from __future__ import annotations

import pytest

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field
from sidecar.policy.faults import compile_faults
from sidecar.policy.header_edits import compile_edits
from sidecar.policy.redirect import compile_redirect, compile_rewrite
from sidecar.policy.route_actions import compile_action
from sidecar.resources.virtual_service import (
    Abort,
    Delay,
    Destination,
    HeaderOperations,
    Headers,
    HTTPBody,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPMirrorPolicy,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    Percent,
    PortSelector,
    RegexRewrite,
    StringMatch,
)

FIELDS: list[Field] = [(b"X-A", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]


@pytest.mark.parametrize(
    ("operations", "after"),
    [
        (HeaderOperations(), [(b"X-A", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]),
        (HeaderOperations(set={"x-a": "n"}), [(b"x-b", b"2"), (b"x-a", b"n")]),
        (HeaderOperations(set={"x-c": "n"}), [*FIELDS, (b"x-c", b"n")]),
        (HeaderOperations(add={"x-a": "n"}), [*FIELDS, (b"x-a", b"n")]),
        (HeaderOperations(remove=["X-A"]), [(b"x-b", b"2")]),
        (HeaderOperations(set={"x-a": "n"}, add={"x-a": "m"}, remove=["x-b"]), [(b"x-a", b"n"), (b"x-a", b"m")]),
        (HeaderOperations(set={"x-p": "100%%"}), [*FIELDS, (b"x-p", b"100%")]),
        (HeaderOperations(set={"x-a": ""}, add={"x-b": ""}), FIELDS),  # without a value there is nothing to do
    ],
)
def test_fields_are_removed_then_set_then_added(operations: HeaderOperations, after: list[Field]) -> None:
    assert compile_edits(operations).apply(FIELDS) == after
    assert FIELDS == [(b"X-A", b"1"), (b"x-b", b"2"), (b"x-a", b"3")], "the request's own list is left as it was"


def test_edits_one_after_the_other_are_one_edit() -> None:
    first = compile_edits(HeaderOperations(set={"x-a": "first", "host": "one"}, add={"x-c": "first"}))
    second = compile_edits(HeaderOperations(set={"x-a": "second"}, remove=["x-c"]))
    both = first.then(second)
    assert both.apply(FIELDS) == second.apply(first.apply(FIELDS)) == [(b"x-b", b"2"), (b"x-a", b"second")]
    assert both.authority == b"one"


@pytest.mark.parametrize(
    ("rewrite", "match", "target", "after"),
    [
        (HTTPRewrite(uri="/new"), HTTPMatchRequest(uri=StringMatch(prefix="/old")), b"/old/x?q=1", b"/new/x?q=1"),
        (HTTPRewrite(uri="/"), HTTPMatchRequest(uri=StringMatch(prefix="/old/")), b"/old/x", b"/x"),
        (HTTPRewrite(uri="/new"), HTTPMatchRequest(uri=StringMatch(exact="/old")), b"/old?q=1", b"/new?q=1"),
        (HTTPRewrite(uri="/new"), HTTPMatchRequest(uri=StringMatch(regex="/o.*")), b"/old/x?q", b"/new?q"),
        (
            HTTPRewrite(uri="/new"),
            HTTPMatchRequest(uri=StringMatch(prefix="/OLD"), ignore_uri_case=True),
            b"/old/x",
            b"/new/x",
        ),
        (HTTPRewrite(uri="/new"), None, b"/old", b"/newold"),  # as in Istio: a rule without a path matches the prefix /
        (
            HTTPRewrite(uri_regex_rewrite=RegexRewrite("^/a/([^/]+)/(.*)$", "/\\2/by/\\1")),
            None,
            b"/a/b/c?d=/a/x/y",
            b"/c/by/b?d=/a/x/y",
        ),
        (HTTPRewrite(uri_regex_rewrite=RegexRewrite("^/a/", "")), None, b"/a/b", b"/b"),  # a path begins with a slash
        (HTTPRewrite(authority="other"), None, b"/a", b"/a"),
        (HTTPRewrite(), None, b"/a", b"/a"),
    ],
)
def test_a_target_is_rewritten(
    rewrite: HTTPRewrite, match: HTTPMatchRequest | None, target: bytes, after: bytes
) -> None:
    assert compile_rewrite(rewrite).target(target, match) == after


def test_what_is_left_of_a_path_is_no_way_out_of_the_new_one() -> None:
    """``/old../x`` begins with ``/old``: behind ``/new/`` the rest would be ``/new/../x``."""
    rewrite = compile_rewrite(HTTPRewrite(uri="/new/"))
    assert rewrite.target(b"/old../admin", HTTPMatchRequest(uri=StringMatch(prefix="/old"))) == b"/admin"
    with pytest.raises(ProxyError):
        compile_rewrite(HTTPRewrite(uri="/new/")).target(b"/old..;/x", HTTPMatchRequest(uri=StringMatch(prefix="/old")))


@pytest.mark.parametrize(
    ("spec", "authority", "location"),
    [
        (HTTPRedirect(uri="/b"), b"web", b"http://web/b?q=1"),
        (HTTPRedirect(authority="other"), b"web:8080", b"http://other/a/x?q=1"),
        (HTTPRedirect(authority="there:81"), b"web", b"http://there:81/a/x?q=1"),
        (HTTPRedirect(scheme="https"), b"web", b"https://web/a/x?q=1"),
        (HTTPRedirect(scheme="https"), b"web:80", b"https://web/a/x?q=1"),  # the default of the scheme that changes
        (HTTPRedirect(scheme="https"), b"web:8080", b"https://web:8080/a/x?q=1"),
        (HTTPRedirect(port=9090), b"web:8080", b"http://web:9090/a/x?q=1"),
        (HTTPRedirect(derive_port="FROM_REQUEST_PORT"), b"web", b"http://web:8080/a/x?q=1"),
        (HTTPRedirect(port=80), b"web:8080", b"http://web:8080/a/x?q=1"),  # the default port is never written
        (HTTPRedirect(scheme="https", port=443), b"web", b"https://web/a/x?q=1"),
        (HTTPRedirect(derive_port="FROM_PROTOCOL_DEFAULT", scheme="https"), b"web", b"https://web/a/x?q=1"),
        (HTTPRedirect(prefix_rewrite="/b"), b"web", b"http://web/b/x?q=1"),
        (HTTPRedirect(uri="/b?own=1"), b"web", b"http://web/b?own=1"),
        (HTTPRedirect(uri="/b"), b"[2001:db8::1]:8080", b"http://[2001:db8::1]:8080/b?q=1"),
        (HTTPRedirect(port=9090), b"[2001:db8::1]", b"http://[2001:db8::1]:9090/a/x?q=1"),
    ],
)
def test_a_redirect_says_where_to(spec: HTTPRedirect, authority: bytes, location: bytes) -> None:
    match = HTTPMatchRequest(uri=StringMatch(prefix="/a"))
    assert compile_redirect(spec).location(b"/a/x?q=1", authority, 8080, match) == location


def test_a_redirect_of_a_request_without_a_path() -> None:
    assert compile_redirect(HTTPRedirect(scheme="https")).location(b"*", b"web", 80, None) == b"https://web"
    assert compile_redirect(HTTPRedirect(prefix_rewrite="/b")).location(b"*", b"web", 80, None) == b"http://web/b"
    assert compile_redirect(HTTPRedirect(uri="/b")).location(b"*", b"web", 80, None) == b"http://web/b"


@pytest.mark.parametrize(
    "rewrite",
    [
        HTTPRewrite(uri_regex_rewrite=RegexRewrite("x*", "y" * 1000)),
        HTTPRewrite(uri_regex_rewrite=RegexRewrite("^(.*)$", "\\1\\1\\1\\1")),
        HTTPRewrite(uri="/" + "y" * 8192),
    ],
)
def test_a_rewritten_path_has_a_bound(rewrite: HTTPRewrite) -> None:
    """A small path is rewritten; one that a client made long does not become megabytes."""
    compiled = compile_rewrite(rewrite)
    assert len(compiled.target(b"/a", None)) <= 16384
    with pytest.raises(ProxyError) as refused:
        compiled.target(b"/" + b"a" * 30_000, None)
    assert refused.value.reason is Reason.REQUEST_LINE_TOO_LONG


def test_faults_are_for_a_share_of_requests() -> None:
    spec = HTTPFaultInjection(Delay("5s", Percent(10.0)), Abort(500, Percent(5.0)))
    faults = compile_faults(spec)
    assert [faults.delay(drawn) for drawn in (0.0, 0.0999, 0.1, 0.9)] == [5.0, 5.0, 0.0, 0.0]
    assert [faults.status(drawn) for drawn in (0.0, 0.0499, 0.05, 0.9)] == [500, 500, 0, 0]
    without = compile_faults(HTTPFaultInjection(Delay("100ms"), Abort(500)))  # a share: none, as in Istio
    assert without.delay(0.0) == 0.0 and without.status(0.0) == 0
    assert compile_faults(HTTPFaultInjection(Delay("1s", percent=50))).delayed == 0.5
    none = compile_faults(HTTPFaultInjection(Delay("1s", Percent(0.0))))
    assert none.delay(0.0) == 0.0


def test_the_action_of_a_rule() -> None:
    one = HTTPRouteDestination(
        Destination("a", "v1", PortSelector(81)), 90, Headers(HeaderOperations(set={"x-a": "destination", "x-b": "b"}))
    )
    spec = HTTPRoute(
        route=[one, HTTPRouteDestination(Destination("b"), 10)],
        headers=Headers(HeaderOperations(set={"x-a": "route"}), HeaderOperations(remove=["server"])),
        timeout="1.5s",
        retries=HTTPRetry(3, per_try_timeout="500ms"),
        mirrors=[HTTPMirrorPolicy(Destination("c", "v9"), Percent(25.0))],
    )
    action = compile_action(spec)
    assert [(each.host, each.subset, each.port) for each in action.targets] == [("a", "v1", 81), ("b", "", 0)]
    assert action.split is not None and action.split.share(0) == 0.9
    assert (action.timeout, action.per_try) == (1.5, 0.5)
    assert [(each.host, each.subset, each.share) for each in action.mirrors] == [("c", "v9", 0.25)]
    assert dict(action.targets[0].request.apply([])) == {b"x-a": b"route", b"x-b": b"b"}, "the rule's counts"
    assert action.targets[1].response.apply([(b"Server", b"x")]) == []
    assert not action.replies


def test_the_operations_of_the_only_destination_and_of_its_rule_are_one_list() -> None:
    own = Headers(
        HeaderOperations(set={"x-a": "destination", "host": "own"}, add={"x-b": "destination"}, remove=["x-c"])
    )
    rule = Headers(HeaderOperations(set={"x-a": "route", "x-c": "route"}, add={"x-b": "route"}))
    (target,) = compile_action(
        HTTPRoute(route=[HTTPRouteDestination(Destination("a"), None, own)], headers=rule)
    ).targets
    assert target.request.apply([(b"x-c", b"app")]) == [
        (b"x-a", b"destination"), (b"x-c", b"route"), (b"x-b", b"route"), (b"x-b", b"destination"),
    ]  # fmt: skip
    assert target.request.authority == b"own"


def test_a_direct_response() -> None:
    text = compile_action(HTTPRoute(direct_response=HTTPDirectResponse(503, HTTPBody(string="later"))))
    assert text.direct is not None and text.replies
    assert (text.direct.status, text.direct.body) == (503, b"later")
    assert text.direct.fields == [(b"content-type", b"text/plain")]
    coded = compile_action(HTTPRoute(direct_response=HTTPDirectResponse(200, HTTPBody(bytes="aGk="))))
    assert coded.direct is not None and coded.direct.body == b"hi"
    empty = compile_action(HTTPRoute(direct_response=HTTPDirectResponse(204)))
    assert empty.direct is not None and (empty.direct.fields, empty.direct.body) == ([], b"")
