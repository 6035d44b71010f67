"""A model on disk: a directory with model.safetensors and config.yaml, written atomically, loaded without pickle."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialise
from torch import Tensor
from yaml import YAMLError

from hypclip.config import build
from hypclip.errors import CheckpointError, ConfigError, DataError, InputError, first_few
from hypclip.files import read_text
from hypclip.geometry.entailment import Cone
from hypclip.model import HypCLIP, ModelConfig
from hypclip.pretrained.published import load_published

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
FORMAT = 1
logger = logging.getLogger(__name__)
_NEVER_PUBLISHED = {".safetensors", ".onnx", ".yaml", ".json"}


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> HypCLIP:
    """Load a model that hypclip saved, or a published checkpoint (see hypclip.pretrained), in evaluation mode.

    Args:
        path: the checkpoint directory, or a published .pth file; a leading ~ is the home folder.
        device: where to put the parameters.

    Raises:
        InputError: no path, or a device that is not there.
        CheckpointError: nothing there, damaged, of another format, or of other towers than its config says. Of the
            folder of a run or an export the message says what to load in its place.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise InputError(f"a model is loaded from the path of a checkpoint directory or a .pth file, got {path!r}")
    _check_device(device)
    folder = Path(os.path.expanduser(path))  # noqa: PTH111, since Path fails on ~tmp, which is a name
    if folder.is_file():
        return _load_file(folder).to(device)
    config = read_config(folder)
    try:
        model = HypCLIP(build(ModelConfig, config["model"], "model"))
        if model.metric.has_cones and "entailment" not in config["model"]:
            say_what_is_assumed(folder)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    load_weights(model, folder)
    if sha256(folder / WEIGHTS) != config["weights_sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS} is damaged: its sha256 is not the one in {CONFIG}")
    model.model_id = f"{config.get('name', 'hypclip')}-{config['weights_sha256'][:12]}"
    model.revision = config["weights_sha256"]
    return model.to(device).eval()


@functools.cache  # once for each
def say_what_is_assumed(folder: str | os.PathLike[str]) -> None:
    """Warn that a folder holds a model without a rule of entailment, and name the rule that is assumed."""
    rule = Cone()
    logger.warning(
        "%s does not say what entails what: it is taken to be by the cones of MERU, eta %g and min_radius %g",
        folder, rule.eta, rule.min_radius,
    )  # fmt: skip


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # by how torch was built and what the machine has
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"device {device!r} cannot be used here, expected such as 'cpu' or 'cuda': {reason}"
        ) from error


def _load_file(path: Path) -> HypCLIP:
    """Convert a published checkpoint; it has the name and revision that it would have once converted and saved."""
    if path.suffix in _NEVER_PUBLISHED:
        raise CheckpointError(f"{path} is not a checkpoint directory or a published .pth file{_instead(path)}")
    published = load_published(path)
    model = published.model
    model.revision = hashlib.sha256(serialise(_weights_of(model))).hexdigest()
    model.model_id = f"{published.name}-{model.revision[:12]}"
    return model


def load_weights(model: HypCLIP, folder: Path) -> None:
    """Fill a model with the weights of a checkpoint directory; every tensor must be there and fit.

    Raises:
        CheckpointError: unreadable, or of other towers. The message names the first tensors that do not fit.
    """
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / WEIGHTS}: {error}") from error
    fill(model, weights, folder)


def fill(model: HypCLIP, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Fill a model with weights that were read from `folder`; every tensor must be there and fit.

    Raises:
        CheckpointError: they are of other towers.
    """
    if problems := misfits(weights, model.state_dict()):
        raise CheckpointError(f"{folder} holds other towers than this model: {first_few(problems)}")
    model.load_state_dict(weights)


def misfits(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the reasons why weights do not fit a model, one line per tensor: missing, unknown, or of another shape."""
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - weights.keys())),
        *(f"{name} is not in this model" for name in sorted(weights.keys() - expected.keys())),
        *(
            f"{name} has shape {tuple(weights[name].shape)}, the model needs {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
    ]


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.yaml of a checkpoint directory as plain data.

    Raises:
        CheckpointError: no such directory or file, or not ours.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a checkpoint directory: expected {CONFIG} and {WEIGHTS} inside{_instead(folder)}"
        )
    try:
        config = OmegaConf.to_container(OmegaConf.load(io.StringIO(read_text(folder / CONFIG))), resolve=True)
    except (OSError, DataError, YAMLError, OmegaConfBaseException) as error:
        raise CheckpointError(f"cannot read {folder / CONFIG}: {error}{_instead(folder)}") from error
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
    write(_weights_of(model), folder, make_config(model, notes))


def is_saved(model: HypCLIP, folder: Path, **notes: Any) -> bool:
    """Return whether a folder holds already what `save` would write."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return False
    digest = hashlib.sha256(serialise(_weights_of(model))).hexdigest()
    config = OmegaConf.to_yaml(OmegaConf.create({**make_config(model, notes), "weights_sha256": digest}))
    return (folder / CONFIG).read_bytes() == config.encode() and sha256(folder / WEIGHTS) == digest


def make_config(model: HypCLIP, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.yaml for a model, without the hash of its weights."""
    return {"format": FORMAT, "model": asdict(model.config), **notes}


def write(weights: dict[str, Tensor], folder: Path, config: Mapping[str, Any]) -> None:
    """Write weights in host memory, and the config of `make_config`, into an existing folder."""
    save_file(weights, folder / WEIGHTS)
    hashed = {**config, "weights_sha256": sha256(folder / WEIGHTS)}
    (folder / CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(hashed)), encoding="utf-8")


def sha256(file: Path) -> str:
    """Return the sha256 of a file in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _instead(path: Path) -> str:
    """Return the end of a message: what is there in place of a checkpoint directory, and what to load."""
    if not path.exists():
        return "; there is nothing of this name on this machine"
    folder = path.parent if path.is_file() else path
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return f"; load its folder, {folder}" if path.is_file() else ""
    for run in (folder, folder.parent, folder.parent.parent):  # also of its checkpoints/ and checkpoints/step-…
        if (run / "checkpoint" / CONFIG).is_file() and (run == folder or folder.is_relative_to(run / "checkpoints")):
            return f"; it is the folder of a run, whose model is {run / 'checkpoint'}"
    if steps := sorted([*folder.glob(f"checkpoints/step-*/{CONFIG}"), *folder.glob(f"step-*/{CONFIG}")]):
        return f"; it belongs to a run without a finished model, whose newest checkpoint is {steps[-1].parent}"
    if (folder / "image.onnx").is_file():
        return "; it is an export to ONNX, for onnxruntime: load the checkpoint that it was made of"
    if (folder / "config.json").is_file():
        return "; it is a directory of transformers, for AutoModel: load the checkpoint that it was made of"
    return ""


def _weights_of(model: HypCLIP) -> dict[str, Tensor]:
    return {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a scratch directory that becomes `path`, whole and on disk, when the block ends without an error.

    An existing `path` stays in place until the new one is complete.
    """
    scratch = path.with_name(f".{path.name}.writing")
    retired = path.with_name(f".{path.name}.retired")
    if retired.exists() and not path.exists():  # killed while they changed places
        retired.rename(path)
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
