"""The documents of operators: what the mesh is to be, who said so and when.

``stored_document`` (an entry's form; pure), ``placeholders`` (what stands for a document that can't be read; pure),
``table`` (the view that others follow), ``parse`` (bodies to documents; pure), ``changes`` (what an apply amounts to,
or all that is wrong with it; pure), ``writer`` (one after the other, whole or not at all), ``listing`` (pages; pure),
``api`` (the API).
"""
