"""A model on disk: a directory with model.safetensors and config.yaml, written atomically, loaded without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from yaml import YAMLError

from hypclip.config import build
from hypclip.errors import CheckpointError, ConfigError
from hypclip.model import HypCLIP, ModelConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
FORMAT = 1


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> HypCLIP:
    """Load a model that hypclip saved, in evaluation mode.

    Args:
        path: the checkpoint directory.
        device: where to put the parameters.

    Raises:
        CheckpointError: nothing there, damaged, of another format, or of other towers than its config says.
    """
    folder = Path(path)
    config = read_config(folder)
    try:
        model = HypCLIP(build(ModelConfig, config["model"], "model"))
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    load_weights(model, folder)
    model.model_id = f"{config.get('name', 'hypclip')}-{config['weights_sha256'][:12]}"
    model.revision = config["weights_sha256"]
    return model.to(device).eval()


def load_weights(model: HypCLIP, folder: Path) -> None:
    """Fill a model with the weights of a checkpoint directory; every tensor must be there and fit.

    Raises:
        CheckpointError: unreadable, or of other towers. The message names the first tensors that do not fit.
    """
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / WEIGHTS}: {error}") from error
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"{name} is not in this model" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, the model needs {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{folder} holds other towers than this model: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(weights)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.yaml of a checkpoint directory as plain data.

    Raises:
        CheckpointError: no such directory or file, or not ours.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a checkpoint directory: expected {CONFIG} and {WEIGHTS} inside")
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG), resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise CheckpointError(f"cannot read {folder / CONFIG}: {error}") from error
    if not isinstance(config, dict) or not {"format", "model", "weights_sha256"} <= config.keys():
        raise CheckpointError(f"{folder / CONFIG} is not a hypclip checkpoint config")
    if config["format"] != FORMAT:
        raise CheckpointError(f"{folder / CONFIG} has format {config['format']}; this version reads format {FORMAT}")
    return {str(k): v for k, v in config.items()}


def save(model: HypCLIP, folder: Path, **notes: Any) -> None:
    """Write a model into an existing folder; wrap in `atomic_directory` so that no reader sees half of it.

    Args:
        model: the model to save.
        folder: existing directory.
        notes: plain data kept in config.yaml, such as name, step, objective.
    """
    weights = {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    config = {"format": FORMAT, "weights_sha256": digest, "model": asdict(model.config), **notes}
    (folder / CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a scratch directory that becomes `path`, whole and on disk, when the block ends without an error.

    An existing `path` stays in place until the new one is complete.
    """
    scratch = path.with_name(f".{path.name}.writing")
    retired = path.with_name(f".{path.name}.retired")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        for file in scratch.iterdir():
            sync(file)
        sync(scratch)
        shutil.rmtree(retired, ignore_errors=True)
        if path.exists():
            path.rename(retired)
        scratch.rename(path)
        sync(path.parent)
        shutil.rmtree(retired, ignore_errors=True)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        if retired.exists() and not path.exists():
            retired.rename(path)
        raise


def sync(path: Path) -> None:
    """Have the system write a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
