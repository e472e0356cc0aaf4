"""Resources: what operators write, and what the proxy obeys. It decides, and waits for nothing.

Who calls it: ``sidecar.feed`` (which reads and watches), ``sidecar check-config``, the control plane and
``sidecarctl``; so that all of them take and refuse the same. The data plane reads the
:class:`~sidecar.resources.snapshot.Snapshot` that comes out. Texts and values are handed in; nothing here opens a file,
knows the time, or takes a chance. A module each:

=======================  =============================================================================================
``yaml_reader``          text -> plain values, each with its line; strict, with bounds on size, depth and aliases
``schema``               what may be written, as frozen structs, and which fields are known but not supported
``validation``           plain values -> those structs, or every problem at once
``kinds``                the kinds of documents as structs, by the field's names
``unsupported``          what is known of them, and not supported
``field_rules``          what stands in the fields of one document, judged
``..._rules``            the same for one kind, or for a part of one that several rooms judge
``documents``            plain values or text -> documents, or every problem at once
``mesh_documents``       all documents as one value, and tables of who may see what
``visibility``           what a proxy is to see of it, by who it is
``proxy_config``         that, as the control plane sends it
``conflicts``            documents that contradict each other
``lint``                 what is only odd; ``..._lint``: with one kind
``routing_index``        routing documents by host and label, for such notes
``document_files``       files of documents -> all of that in a row, down to a Snapshot
``snapshot_builder``     the tables of a Snapshot in the making, and what was found wrong
``services``             a service -> its rows there
``service_entries``      a service entry, whose hosts are spoken to in plaintext -> its rows there
``compile``              a mesh file and "who am I" -> Snapshot, or every problem at once
``incremental_compile``  the same of what the control plane sends, in steps of less than a millisecond
``virtual_addresses``    addresses that stand for services, where no control plane gives them
``load``                 all of these in a row, for a file
``snapshot``             the one immutable value that the data plane reads; its tables, and the rule on modes
``sni``                  the name that says which service port a connection is for
``protocols``            what a port speaks, from its name
``dump``                 a Snapshot as JSON, for people
=======================  =============================================================================================
"""
