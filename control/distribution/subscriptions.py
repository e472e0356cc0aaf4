"""Who is told of what: identities, what each sees, and the encoded pieces that this is made of. Pure.

Who calls it: ``control.distribution.push``, one task at a time. Identities that see the same services share a
``View``; an index leads from a service to the views that it is in. A piece is kept while a view has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from msgspec.structs import replace

from control.distribution.content import Content, Snapshot
from control.watchable import Watchable
from sidecar.resources.documents import Key
from sidecar.resources.mesh_documents import Place
from sidecar.resources.visibility import Visibility

Places = tuple[Place, ...]
Scope = tuple[Places, Places, Places, Places, Places, Places, Places]  # of each of KINDS

KINDS: Final = (
    "Service",
    "ServiceEntry",
    "AuthorizationPolicy",
    "RateLimitPolicy",
    "VirtualService",
    "DestinationRule",
    "BackendTrafficPolicy",
)


@dataclass(eq=False, slots=True)
class View:
    """What some identities see: ``scope`` has (namespace, name) of what is of each of KINDS, in the order of the
    snapshot, and is by what the view is found again."""

    scope: Scope
    content: Content = field(default_factory=Content)  # without rules
    members: set[Member] = field(default_factory=set)

    @property
    def keys(self) -> Iterator[Key]:
        """All of them, as documents' keys."""
        for kind, places in zip(KINDS, self.scope, strict=True):
            yield from ((kind, *place) for place in places)


@dataclass(eq=False, slots=True)
class Member:
    """An identity that has asked. ``asked``: when it did so last, in seconds on the monotonic clock."""

    identity: str
    namespace: str
    account: str
    view: View
    rules: bytes
    published: Watchable[Snapshot]
    asked: float
    waiting: int = 0

    @property
    def content(self) -> Content:
        """What it is to be told by now."""
        return replace(self.view.content, rules=self.rules)


@dataclass(slots=True)
class _Slot:
    """A piece and who has it."""

    piece: bytes
    views: set[View] = field(default_factory=set)


class Subscriptions:
    """See the module. ``encode`` gives the piece of a document's key."""

    def __init__(self, encode: Callable[[Key], bytes]) -> None:
        self._encode = encode
        self.members: dict[str, Member] = {}
        self._namespaces: dict[str, set[Member]] = {}
        self._views: dict[Scope, View] = {}
        self._slots: dict[Key, _Slot] = {}

    @property
    def pieces(self) -> int:
        """How many there are."""
        return len(self._slots)

    @property
    def bytes(self) -> int:
        """How long they are together."""
        return sum(len(slot.piece) for slot in self._slots.values())

    def in_namespaces(self, namespaces: Collection[str]) -> list[Member]:
        """Identities of these namespaces."""
        return [member for name in namespaces for member in self._namespaces.get(name, ())]

    def seen(self, keys: Collection[Key]) -> list[Key]:
        """Those of the keys that anybody sees."""
        return [key for key in keys if key in self._slots]

    def seen_in(self, kind: str, namespace: str) -> list[Key]:
        """All of a kind and a namespace that anybody sees."""
        return [key for key in self._slots if key[:2] == (kind, namespace)]

    # -- views -------------------------------------------------------------------------------------------------------

    def view(self, scope: Visibility) -> tuple[View, Iterator[None]]:
        """The view of a scope, and the steps that it takes to fill it; it is not to be used before they are done."""
        policies = tuple((each.namespace, each.name) for each in scope.authorization)
        limits = tuple((each.namespace, each.name) for each in scope.rate_limits)
        routing = scope.virtual_services, scope.destination_rules, scope.backend_policies
        fresh = View((scope.services, scope.entries, policies, limits, *routing))
        found = self._views.get(fresh.scope)
        if found is not None:
            return found, iter(())
        return fresh, self._fill(fresh)

    def abandon(self, view: View) -> None:
        """Nobody has it, or it was not filled to the end."""
        for key in view.keys:
            slot = self._slots.get(key)
            if slot is not None:
                slot.views.discard(view)
                if not slot.views:
                    del self._slots[key]

    def renew(self, key: Key) -> set[View]:
        """Encodes a piece anew; the views whose content is another one by that, which want :meth:`gather`."""
        slot = self._slots[key]
        fresh = self._encode(key)
        if fresh == slot.piece:
            return set()
        slot.piece = fresh
        return slot.views

    def gather(self, view: View) -> None:
        """Makes a view's content of its pieces."""
        pieces = iter([self._slots[key].piece for key in view.keys])
        services, entries, *others = [tuple(islice(pieces, len(places))) for places in view.scope]
        view.content = Content(services, entries, b"", *others)

    def _fill(self, view: View) -> Iterator[None]:
        for key in view.keys:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot(self._encode(key))
            slot.views.add(view)
            yield
        self.gather(view)
        self._views[view.scope] = view

    # -- members -----------------------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Takes one in, whose view is filled."""
        self.members[member.identity] = member
        self._namespaces.setdefault(member.namespace, set()).add(member)
        member.view.members.add(member)

    def move(self, member: Member, view: View) -> None:
        """It sees something else from now on."""
        if view is not member.view:
            before, member.view = member.view, view
            view.members.add(member)
            self._leave(member, before)

    def remove(self, member: Member) -> None:
        """Forgets one."""
        del self.members[member.identity]
        siblings = self._namespaces[member.namespace]
        siblings.discard(member)
        if not siblings:
            del self._namespaces[member.namespace]
        self._leave(member, member.view)

    def _leave(self, member: Member, view: View) -> None:
        view.members.discard(member)
        if not view.members:
            self._views.pop(view.scope, None)
            self.abandon(view)
