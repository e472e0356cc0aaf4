"""``python -m control`` is the command ``sidecar-control``."""

import sys

from control.cli import main

if __name__ == "__main__":
    sys.exit(main())
