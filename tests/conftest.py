"""What every test runs under: checked shapes, fixed seeds, one thread."""

import os
import random
from pathlib import Path

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

from tests.support import shapes

# The shapes in the signatures of hypclip are checked in tests only. This must precede the first import of hypclip.
install_import_hook("hypclip", f"{shapes.__name__}.check_signature")

# Servers start at once; tests of ONNX Runtime ask for it.
os.environ.setdefault("HYPCLIP_BACKEND", "torch")

# One thread: sums come out in the same order on every machine, and parallel test processes do not crowd each other.
torch.set_num_threads(1)

# Cases that are drawn at import are the same in every process of pytest-xdist.
torch.manual_seed(0)

hypothesis.settings.register_profile("hypclip", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("hypclip")


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of two raw GRIT shards of ten samples."""
    from tests.support.training import write_shards  # which imports hypclip: after the hook above

    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory, shards) -> Path:
    """The folder of a run of train/pretrain.py of four steps, without options, that nothing disturbed."""
    from tests.support.pretraining import config_of, run

    folder = tmp_path_factory.mktemp("plain")
    assert run(config_of(folder, shards)) == 0
    return folder / "run"
