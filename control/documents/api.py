"""The calls of documents: what is there, what was, and what operators change.

Who calls it: ``control.middleware``. Everything that is read comes from the table in memory, but for the history;
everything that is changed goes through the one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from control.documents import preconditions, schemas, stored_document
from control.documents.changes import Order, Outcome, Plan, refused
from control.documents.listing import Listing, States
from control.documents.parse import JSON, YAML, Problem, Read, Wanted, title
from control.documents.preconditions import Conditions
from control.documents.schemas import applied, generation, shown
from control.documents.state import State
from control.documents.stored_document import HISTORY, Held, history_name, name_of
from control.documents.table import Documents
from control.documents.writer import Check, Writer
from control.middleware import CallRequest, CallResponse
from control.pagination import Mark, page
from control.pagination import Wanted as WantedPage
from control.problems import Invalid
from control.schemas import read as read_body
from control.store import Store
from control.version import Version
from sidecar.resources.documents import Key
from sidecar.resources.kinds import KINDS

SUBJECT_CHARS: Final = 1000  # of the names in a line of the audit log; the history has all of them


class DocumentCalls:
    """See the module. Each method takes what was asked and returns the answer, or raises Refused or Invalid."""

    def __init__(self, store: Store, documents: Documents, writer: Writer) -> None:
        self._store = store
        self._documents = documents
        self._writer = writer
        self._states = States()

    # -- what is there -----------------------------------------------------------------------------------------------

    async def resources_list(self, asked: CallRequest) -> CallResponse:
        """A page of all documents, or of those of a kind, a namespace, with labels."""
        listing = Listing.read(asked.request)
        state = self._states.of(listing.page, self._documents.state)
        found, more = listing.cut(state)
        if more:
            self._states.keep(state)
        answer = schemas.DocumentList(self._version(state.version), [shown(held) for held in found], more)
        return CallResponse(body=answer)

    async def resources_of(self, asked: CallRequest) -> CallResponse:
        """Those of a kind in a namespace."""
        kind = asked.request.path_params["kind"]
        if kind not in KINDS and all(kind != key[0] for key in self._documents.state.held):
            raise Invalid(f"there is no such kind; the kinds are {', '.join(KINDS)}", 404)
        return await self.resources_list(asked)

    async def resources_get(self, asked: CallRequest) -> CallResponse:
        """One document."""
        held = self._held(_key(asked))
        if _conditions(asked).unchanged(_tag(held)):
            return CallResponse(304, etag=_tag(held))
        return CallResponse(body=shown(held), etag=_tag(held))

    async def resources_history(self, asked: CallRequest) -> CallResponse:
        """The generations of one, whether it is there now or not: the newest first."""
        key, wanted = _key(asked), WantedPage.read(asked.request.query_params)
        entries = (await self._store.list(HISTORY, f"{name_of(key)}/")).entries
        if not entries:
            raise _none(key)
        ordered = {f"{10**10 - stored_document.generation_of(entry.name):011d}": entry for entry in entries}
        found, after = page(ordered, str, wanted)
        items = [generation(stored_document.decode(ordered[name].value)) for name in found]
        return CallResponse(body=schemas.History(items, str(Mark(after)) if after else ""))

    # -- what changes ------------------------------------------------------------------------------------------------

    async def resources_put(self, asked: CallRequest) -> CallResponse:
        """Writes one document."""
        key = _key(asked)
        read = await self._read(asked, key[1])
        if len(read.wanted) != 1:
            raise refused([Problem("", f"there are {len(read.wanted)} documents in it; this call takes one")])
        found = read.wanted[0]
        if found.document.key != key:
            why = f"it is this one, and the path says {title(key)}"
            raise refused([Problem(title(found.document.key), why, found.line, "metadata")])
        return await self._put(asked, found)

    async def resources_delete(self, asked: CallRequest) -> CallResponse:
        """Takes one away."""
        return await self._delete(asked, _key(asked))

    async def resources_apply(self, asked: CallRequest) -> CallResponse:
        """Writes several, all or none."""
        dry_run = _flag(asked, "dryRun")
        read = await self._read(asked)
        order = Order(wanted=read.wanted, author=asked.who.name, now=0.0)
        plan, version = await self._writer.apply(order, dry_run=dry_run)
        results = [applied(each) for each in plan.outcomes]
        return CallResponse(
            body=schemas.ApplyResult(self._version(version), dry_run, results, list(plan.notes)),
            subject="dry run" if dry_run else _subject(plan.outcomes),
        )

    async def resources_check(self, asked: CallRequest) -> CallResponse:
        """What an apply would say; nothing is changed, and what is wrong is the answer."""
        try:
            read = await self._read(asked)
            order = Order(wanted=read.wanted, author=asked.who.name, now=0.0)
            plan, _ = await self._writer.apply(order, dry_run=True)
        except Invalid as invalid:
            problems = invalid.more.get("problems")
            if not isinstance(problems, tuple | list):
                raise
            return CallResponse(body=schemas.CheckResult(list(problems), []))
        return CallResponse(body=schemas.CheckResult([], list(plan.notes)))

    async def resources_rollback(self, asked: CallRequest) -> CallResponse:
        """Makes what a document was at a generation what it is, as a new generation."""
        wanted = read_body(asked.body, schemas.RollbackRequest)
        key = wanted.kind, wanted.namespace, wanted.name
        entry = await self._store.get(HISTORY, history_name(key, wanted.generation))
        if entry is None:
            raise Invalid(f"{title(key)} has no generation {wanted.generation} that is kept; see its history", 404)
        was = stored_document.decode(entry.value)
        if was.deleted:
            why = f"generation {wanted.generation} is its deletion; delete it, or name another one"
            raise Invalid(why, 409, kind="deleted")
        read = await self._writer.read(bytes(was.document), JSON)
        if read.problems:
            raise refused(read.problems)
        return await self._put(asked, read.wanted[0])

    async def services_put(self, asked: CallRequest) -> CallResponse:
        """Writes the document of a service, from its spec and labels alone."""
        namespace, name = _place(asked)
        body = read_body(asked.body or b"{}", dict[str, object])
        labels = {"labels": body.pop("labels")} if "labels" in body else {}
        document = {
            "apiVersion": "sidecar/v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, **labels},
            "spec": body,
        }
        read = await self._writer.read(msgspec.json.encode(document), JSON)
        if read.problems:
            raise refused(_without_spec(read.problems))
        return await self._put(asked, read.wanted[0])

    async def services_delete(self, asked: CallRequest) -> CallResponse:
        """Takes the document of a service away."""
        return await self._delete(asked, ("Service", *_place(asked)))

    # -- parts of these ----------------------------------------------------------------------------------------------

    async def _put(self, asked: CallRequest, wanted: Wanted) -> CallResponse:
        key = wanted.document.key
        order = Order(wanted=[wanted], author=asked.who.name, now=0.0)
        outcome = await self._one(order, _checked(_conditions(asked), key))
        status = 201 if outcome.result == "created" else 200
        return CallResponse(status, applied(outcome), _subject([outcome]), etag=str(outcome.generation))

    async def _delete(self, asked: CallRequest, key: Key) -> CallResponse:
        conditional = _checked(_conditions(asked), key)

        def check(state: State) -> None:
            conditional(state)
            if key not in state.held:
                raise _none(key)

        outcome = await self._one(Order(gone=[key], author=asked.who.name, now=0.0), check)
        return CallResponse(200, applied(outcome), _subject([outcome]))

    async def _one(self, order: Order, check: Check) -> Outcome:
        plan: Plan
        plan, _ = await self._writer.apply(order, check)
        return plan.outcomes[0]

    async def _read(self, asked: CallRequest, namespace: str = "") -> Read:
        """The body's documents; Invalid where it has none, or anything is wrong with them."""
        content_type = asked.request.headers.get("content-type", YAML[0]).partition(";")[0].strip().lower()
        if content_type != JSON and content_type not in YAML:
            raise Invalid(f"content-type: write {JSON} or {YAML[0]}", 415)
        read = await self._writer.read(asked.body, content_type, namespace)
        if read.problems:
            raise refused(read.problems, 400 if read.broken else 422)
        return read

    def _held(self, key: Key) -> Held:
        held = self._documents.state.held.get(key)
        if held is None:
            raise _none(key)
        return held

    def _version(self, version: int) -> str:
        return str(Version(self._store.epoch, version))


def _key(asked: CallRequest) -> Key:
    namespace, name = _place(asked)
    return asked.request.path_params["kind"], namespace, name


def _place(asked: CallRequest) -> tuple[str, str]:
    return asked.request.path_params["namespace"], asked.request.path_params["name"]


def _none(key: Key) -> Invalid:
    kind = "" if key[0] in KINDS else f"; the kinds are {', '.join(KINDS)}"
    return Invalid(f"there is no such document{kind}", 404)


def _conditions(asked: CallRequest) -> Conditions:
    headers = asked.request.headers
    return preconditions.read(headers.getlist("if-match"), headers.getlist("if-none-match"))


def _checked(wanted: Conditions, key: Key) -> Callable[[State], None]:
    return lambda state: wanted.check(_tag(state.held.get(key)))


def _tag(held: Held | None) -> str:
    return "" if held is None else str(held.generation)


def _flag(asked: CallRequest, name: str) -> bool:
    unknown = [key for key in asked.request.query_params if key != name]
    if unknown:  # a dryRun that is misspelled must not become an apply
        raise Invalid(f"{unknown[0][:63]!r} is not known here; there is {name}")
    text = asked.request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise Invalid(f"{name}: true or false")
    return text == "true"


def _subject(outcomes: Iterable[Outcome]) -> str:
    """Who was changed, for the audit log."""
    changed = [
        f"{title(each.key)} {each.result} generation {each.generation}"
        for each in outcomes
        if each.result != "unchanged"
    ]
    told: list[str] = []
    for each in changed:
        if sum(map(len, told)) + len(each) > SUBJECT_CHARS:
            return f"{', '.join(told)} and {len(changed) - len(told)} more"
        told.append(each)
    return ", ".join(told) or "nothing changed"


def _without_spec(problems: Iterable[Problem]) -> list[Problem]:
    """With paths as they are in the body of a service."""
    return [msgspec.structs.replace(each, path=each.path.removeprefix("spec").lstrip(".")) for each in problems]
