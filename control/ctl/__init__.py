"""``sidecarctl``: what people use of the control plane and of proxies, from a laptop and in scripts.

It is a client: of the control plane it imports nothing but how a private file is written, of the sidecar how a control
plane is called and trusted, and how documents are read. A module each:

================  ====================================================================================================
``cli``           where it begins; ``command``: the table of commands, and how one ends
``command_base``  how commands look here: the flags that all share, examples in ``--help``, the flags of output
``session``       what one run knows: flags, where to call, where output goes
``settings``      flags, environment, the file of ``contexts`` -> whom to call with which token
``api_client``    a call to the control plane; ``proxy``: one to a proxy's admin port
``input_files``   ``-f``: files, directories, standard input -> documents with their lines
``kinds``         the names of kinds: plural, short, in any case
``tables``        which columns a kind has; ``output``: tables, YAML, JSON, colours on a terminal alone
``exit_codes``    exit codes, and the one exception
``commands``      the commands themselves, a module per group
================  ====================================================================================================
"""
