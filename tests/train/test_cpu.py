"""Tuning of a run on a CPU."""

import subprocess
import sys

import pytest
import torch

from tests.support.checks import is_fused
from tests.support.pretraining import after, config_of, run
from train import cpu

# In a process of its own, since it cannot be undone.
PROGRAM = """
import ctypes, resource, sys, torch
from train.cpu import keep_freed_memory
PR_SET_THP_DISABLE = 41  # else one fault may be 512 pages
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
NUMBERS = 10_000_000
fresh = 0
for step in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(NUMBERS)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    fresh += step >= 10 and faults * resource.getpagesize() > NUMBERS
print(fresh)
"""


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a run here is on another device")
def test_a_run_is_tuned(shards, tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(cpu, "tune", after(cpu.tune, models.append))
    assert run(config_of(tmp_path, shards, train__steps=1)) == 0
    (model,) = models
    assert not is_fused(model.encode_text(model.tokenizer(["a dog"])))


def test_threads_are_told_before_torch_is_loaded():
    program = "import sys, train.cpu; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def tensors_of_fresh_pages(how: str) -> int:
    """Return how many of 30 tensors of 40 MB, each freed before the next and after ten others, were fresh pages."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], stdout=subprocess.PIPE, check=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_tensors_are_no_fresh_pages():
    # Kept memory may be cut by a small allocation of any thread: then one tensor does not fit, and the heap grows once.
    assert tensors_of_fresh_pages("kept") <= 3
    assert tensors_of_fresh_pages("given back") >= 27
