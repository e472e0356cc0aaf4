"""``python -m control.ctl`` is the command ``sidecarctl``."""

import sys

from control.ctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
