"""Where services are reached: endpoints as sidecars register them, whether they are heard, and addresses that stand for
a service.

``registered`` (what an endpoint is, and what a registration may say; pure), ``place`` (whose address; pure),
``virtual`` (which address is free; pure), ``services`` (who may serve, from documents),
``table`` (the view that others read), ``keeper`` (what runs), ``calls`` (what sidecars and people ask).
"""
