"""`python -m mergevq` is the command `mergevq`."""

from __future__ import annotations

import sys

from mergevq.cli import main

if __name__ == "__main__":
    sys.exit(main())
