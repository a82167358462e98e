"""``python -m cmafs``."""

from __future__ import annotations

import sys

from cmafs.cli.main import main

sys.exit(main())
