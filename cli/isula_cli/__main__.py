"""``python -m isula_cli``."""

from __future__ import annotations

import sys

from isula_cli.main import main

sys.exit(main())
