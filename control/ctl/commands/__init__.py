"""The commands of ``sidecarctl``, a module per group; each has ``COMMANDS``, which ``control.ctl.cli`` takes in."""
