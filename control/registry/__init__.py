"""Where services are reached: endpoints as sidecars register them, whether they are heard, and addresses that stand for
a service.

``registration`` (what an endpoint is, and what a registration may say; pure), ``address_check`` (whose address; pure),
``liveness`` (who goes; pure), ``virtual_address_allocator`` (which address is free; pure), ``serving_rights`` (who may
serve; pure), ``endpoint_table`` (the view that others read), ``endpoints`` (registered and taken back), ``reconciler``
and ``virtual_addresses`` (what runs), ``api`` with ``views`` (what sidecars and people ask), ``wiring`` (all of it).
"""
