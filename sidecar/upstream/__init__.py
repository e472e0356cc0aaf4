"""Where requests and connections go: clusters, their endpoints, and the connections to those.

``cluster``    a destination: its endpoints, which of them is next, and what one permit lets through
``endpoint``   one of them, with its pools of connections and its cool-down
``clusters``   the clusters that the app calls, kept in step with the Snapshot
``transport``  the two ways in which an endpoint is reached
``mtls``       how it is dialed over mutual TLS; imports OpenSSL
``plaintext``  how it is dialed as the app speaks, or beside this proxy
``pool_stats``    what the pools of a cluster come to, for people

A cluster is keyed by what it is, never by how it was called: a service's name, its address and the addresses of its
endpoints lead to one cluster. Which endpoint is next is decided by ``policy.balance``.
"""
