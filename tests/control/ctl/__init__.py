"""``sidecarctl``, as people and scripts use it: a process against processes."""
