"""``/openapi.json``: the API's own description, made of what it is made of.

``operation_docs`` (what each call takes and gives, beside the table of calls; pure), ``document`` (both as OpenAPI 3.1;
pure), ``api`` (the call). The page of the site is made of the same.
"""
