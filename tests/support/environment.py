"""The environment of the programs that tests start."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LEFT_OUT = ("ACCELERATE_", "HYPCLIP_", "MASTER_", "PYTEST_")


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment for a program: one thread, the code of this checkout, and these settings.

    What a launcher or pytest has set, and settings of the server, are left out.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **settings}
