"""The checks of tests/gpu_check.py, in the order of its table, each with a limit in seconds on a GPU."""

from collections.abc import Callable
from typing import NamedTuple

from tests.gpu_checks import arithmetic, programs, steps
from tests.gpu_checks.kit import Place, Report


class Check(NamedTuple):
    """What measures and judges, and how long it may take; the limits together are those of the whole."""

    run: Callable[[Place, Report], None]
    limit_s: float


CHECKS = {
    "machine": Check(arithmetic.machine, 20),
    "recipes": Check(arithmetic.recipes, 45),
    "blockwise": Check(arithmetic.blockwise, 45),
    "vit_b": Check(steps.vit_b, 50),
    "reproduce": Check(steps.reproduce, 80),
    "compile": Check(steps.compiled, 70),
    "nccl": Check(steps.nccl, 20),
    "resume": Check(programs.resume, 60),
    "data_wait": Check(programs.data_wait, 40),
    "serve": Check(programs.serve, 50),
}
