"""What the command line does beside running the proxy: a module per command, with ``run(words) -> exit code``."""
