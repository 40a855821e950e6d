"""``python -m ippmpi.cli`` is the command ``ippmpi``."""

from __future__ import annotations

import sys

from ippmpi.cli import main

sys.exit(main())
