"""Everything of the project that the checks use, imported here and nowhere else: what moves is mended in this file."""

from hypclip.checkpoint import atomic_directory, load, save
from hypclip.config import read
from hypclip.data.batch import Batch
from hypclip.model import HypCLIP, ModelConfig
from hypclip.objective import RECIPES, Objective
from hypclip.roles import BOX_ROLES
from hypclip.training.monitoring.throughput import model_flops
from hypclip.training.settings import RunConfig, configure
from hypclip.training.step import forward_backward
from serve.inference.engine import ModelEngine
from serve.settings import Settings
from serve.telemetry.metrics import Metrics
from tests.support.models import TOWERS, tiny_model
from tests.support.objective import apply, gradients, leaves, samples
from tests.support.pretraining import run as pretrain
from tests.support.serving import quadrants
from tests.support.training import (
    HIERARCHY,
    ROOT,
    logged_steps,
    make_batch,
    passes_of,
    read_log,
    run_config,
    started,
    state_bits,
    wait_for,
    with_taxonomy,
    write_config,
    write_shards,
)
from train.pretrain import Run

__all__ = [
    "BOX_ROLES",
    "HIERARCHY",
    "RECIPES",
    "ROOT",
    "TOWERS",
    "Batch",
    "HypCLIP",
    "Metrics",
    "ModelConfig",
    "ModelEngine",
    "Objective",
    "Run",
    "RunConfig",
    "Settings",
    "apply",
    "atomic_directory",
    "configure",
    "forward_backward",
    "gradients",
    "leaves",
    "load",
    "logged_steps",
    "make_batch",
    "model_flops",
    "passes_of",
    "pretrain",
    "quadrants",
    "read",
    "read_log",
    "run_config",
    "samples",
    "save",
    "started",
    "state_bits",
    "tiny_model",
    "wait_for",
    "with_taxonomy",
    "write_config",
    "write_shards",
]
