"""Feed: what brings the proxy what it obeys, from wherever that is, and keeps the last good of it.

Who calls it: ``app`` starts it; the data plane reads ``snapshot_holder.SnapshotHolder``. It waits and reads; what a
text means is for ``resources`` to decide.

=================  ===================================================================================================
``snapshot_holder``  the Snapshot of this moment, and the tally of what was taken and what was refused
``file_watcher``     files that are read at start, then watched: when they are read, and what is taken
``mesh_file``        ``--mesh FILE``
``config_files``     ``--config FILE|DIR``
=================  ===================================================================================================
"""
