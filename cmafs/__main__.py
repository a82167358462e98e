"""``python -m cmafs``."""

from __future__ import annotations

import sys

from cmafs.cli import main

sys.exit(main())
