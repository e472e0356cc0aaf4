"""Resources: what operators write, and what the proxy obeys. It decides, and waits for nothing.

Who calls it: ``sidecar.feed`` (which reads and watches), ``sidecar check-config``; the data plane reads the
:class:`~sidecar.resources.snapshot.Snapshot` that comes out. Texts and values are handed in; nothing here opens a file,
knows the time, or takes a chance. The way of a document, a module each:

==============  ======================================================================================================
``yamltext``    text -> plain values, each with its line; strict, with bounds on size, depth and aliases
``schema``      what may be written, as frozen structs, and which fields are known but not supported
``shape``       plain values -> those structs, or every problem at once
``tables``      the tables of a Snapshot in the making, and what was found wrong
``services``    a service -> its rows there
``entries``     a service entry, whose hosts are spoken to in plaintext -> its rows there
``compile``     a mesh file and "who am I" -> Snapshot, or every problem at once
``slices``      the same of what the control plane sends, in steps of less than a millisecond
``virtual``     addresses that stand for services, where no control plane gives them
``load``        all of these in a row, for a file
``snapshot``    the one immutable value that the data plane reads; its tables, and the rule on modes
``sni``         the name that says which service port a connection is for
``protocols``   what a port speaks, from its name
``dump``        a Snapshot as JSON, for people
==============  ======================================================================================================
"""
