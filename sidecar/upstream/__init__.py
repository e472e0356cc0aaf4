"""The destinations of requests and connections: clusters, their endpoints, and the connections to those.

``cluster``     a destination: its endpoints, the choice of the next one, and the check of the permit
``endpoint``    one of them, with its pools of connections and its cool-down
``clusters``    the clusters that the app calls, kept in step with the Snapshot
``transport``   the two ways to reach an endpoint
``mtls``        dialing an endpoint over mutual TLS; imports OpenSSL
``plaintext``   dialing an endpoint without TLS of our own, or the app beside this proxy
``pool_stats``  totals of a cluster's pools, for people

A cluster is keyed by its identity, never by how it was called: a service's name, its address and the addresses of its
endpoints lead to one cluster. ``policy.balance`` chooses the next endpoint.
"""
