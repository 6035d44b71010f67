"""Read the files of a published checkpoint without running anything in them."""

from __future__ import annotations

import collections
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
import yaml
from torch import Tensor

from hypclip.errors import CheckpointError
from hypclip.files import read_text

CONFIG = "config.yaml"


class Inert:
    """Stand in for an object of a library that is of no use here: made from anything, keeps nothing."""

    def __new__(cls, *_: object) -> Inert:
        """Make one, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        """Keep nothing of the state."""


_OMEGACONF = (
    "base.ContainerMetadata",
    "base.Metadata",
    "dictconfig.DictConfig",
    "listconfig.ListConfig",
    "nodes.AnyNode",
    "nodes.BooleanNode",
    "nodes.FloatNode",
    "nodes.IntegerNode",
    "nodes.StringNode",
)
# What the optimiser settings in these files are made of. Under protocol 2, pickle writes builtins by their old name.
_ALLOWED: list[Any] = [
    *((Inert, f"omegaconf.{name}") for name in _OMEGACONF),
    (Inert, "typing.Any"),
    (collections.defaultdict, "collections.defaultdict"),
    *((kind, f"{module}.{kind.__name__}") for kind in (dict, list, int) for module in ("builtins", "__builtin__")),
]


class Weights(NamedTuple):
    """The tensors of a file by name, and the number of steps they were trained for where it says."""

    tensors: dict[str, Tensor]
    step: int | None


def read_weights(path: Path) -> Weights:
    """Read the state dict of a file that torch.save wrote, which may hold an optimiser's besides, under other keys.

    Raises:
        CheckpointError: not such a file, damaged, or with code or objects that no checkpoint of these needs.
    """
    _require_torch_zip(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how the file was written: it is read or refused
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} is refused: it holds {named[1]!r}, which is no part of a checkpoint and could run code"
            if named
            else f"{path} is refused: its pickle holds more than weights"
        ) from error
    except Exception as error:  # whatever a damaged pickle makes of the reader
        raise CheckpointError(f"cannot read {path}: {error or type(error).__name__}") from error
    return _weights(content, path)


def kind_beside(path: Path) -> str | None:
    """Return the class of model that the config.yaml beside a checkpoint names, in lower case, if there is one."""
    try:
        text = read_text(path.with_name(CONFIG))
        config = yaml.load(text, Loader=_TagBlindLoader)  # noqa: S506  it is a SafeLoader
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    model = config.get("model") if isinstance(config, Mapping) else None
    target = model.get("_target_") if isinstance(model, Mapping) else None
    return target.rpartition(".")[2].lower() if isinstance(target, str) else None


class _TagBlindLoader(yaml.SafeLoader):
    """YAML's safe loader, reading values with a Python tag as plain data."""


def _without_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    match node:
        case yaml.MappingNode():
            return loader.construct_mapping(node, deep=True)
        case yaml.SequenceNode():
            return loader.construct_sequence(node, deep=True)
        case _:
            return node.value or suffix


_TagBlindLoader.add_multi_constructor("tag:yaml.org,2002:python/", _without_tag)


def _require_torch_zip(path: Path) -> None:
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
    except BadZipFile as error:
        raise CheckpointError(
            f"{path} is not a checkpoint directory, and not a file that torch.save wrote, or it is cut short: expected "
            "the directory of a hypclip model or a published .pth file"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise CheckpointError(f"{path} is a zip file, but torch.save did not write it: expected a published .pth file")
    if any(entry.compress_type != ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path} was packed again, compressed; torch.save does not: download it again")


def _weights(content: Any, path: Path) -> Weights:
    step = None
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        step, content = content.get("iteration"), content["model"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{path} holds no state dict: expected {{'model': state dict, ...}} or a state dict, got "
            f"{type(content).__name__}{f' of {len(content)}' if isinstance(content, Mapping) else ''}"
        )
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name!r} must be a tensor, got {type(value).__name__}")
    tensors = {str(name): value.detach() for name, value in content.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return Weights(tensors, step if type(step) is int and step >= 0 else None)
