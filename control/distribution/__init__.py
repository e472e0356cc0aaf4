"""What each proxy is to know, made once per change and sent to each reader that waits for it.

**From a change to a proxy.** Documents and the registry say which keys changed (``invalidation``: which services must
be written anew, whose scope may be another one). 100 ms after the first change of a quiet time a round is made of all
that came meanwhile (``push``): a burst is one round, and there is never a task per change. A service is encoded once
per round, whoever sees it; who sees what is known by an index (``subscriptions``), so that a change costs what it
concerns. Where the bytes of an identity's content are other ones, it gets a version, and its waiting calls are woken;
nobody else is.

**What is held.** Pieces: one run of bytes per service that anybody sees. Views: which pieces, in which order;
identities that see the same share one. Contents (``content``): a view and an identity's own rules. A body exists only
while it is sent, in parts of 64 KiB; so memory goes with the size of the mesh and the number of identities, not with
their product.

**Who is told of.** Identities that have asked within the last minutes. Who comes later is placed when it asks, in
some milliseconds, by the same lock as rounds: one task at a time changes anything here. Each step is short, and
between steps everybody else has a turn (``cooperative_steps``).

**Versions** are the store's. A content that was not the same before gets the version of the store at the round; it
never goes back, and never stands for two contents of one identity. Where the store's has not risen since (documents
and endpoints come by two watches, and one may be behind), a number is taken from the store by a write.

What proxies say of themselves is in ``proxies``; the calls are in ``api``.
"""
