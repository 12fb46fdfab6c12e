"""``python -m etnpot`` is the command ``etnpot``."""

from __future__ import annotations

import sys

from etnpot.cli import main

if __name__ == "__main__":
    sys.exit(main())
