"""Where services are reached: endpoints as sidecars register them, whether they are heard, and addresses that stand for
a service.

``registered`` (what an endpoint is, and what a registration may say; pure), ``place`` (whose address; pure),
``ageing`` (who goes; pure), ``virtual`` (which address is free; pure), ``permits`` (who may serve; pure), ``table``
(the view that others read), ``endpoints`` (registered and taken back), ``keeper`` and ``addresses`` (what runs),
``calls`` with ``shown`` (what sidecars and people ask), ``assembly`` (all of it).
"""
