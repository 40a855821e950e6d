"""``python -m ippmpi.engine``: one MPI rank that runs users' code."""

from __future__ import annotations

import sys

from ippmpi.engine.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
