"""Runs that an output directory holds already: to resume, to refuse, or to move aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypclip import checkpoint
from hypclip.errors import ConfigError, TrainingError
from hypclip.files import aside_of, is_empty, set_aside
from hypclip.model import HypCLIP
from hypclip.training.checkpointing.manifest import newest

LOG = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MODEL = "checkpoint"
_PARTS = (MODEL, CHECKPOINTS, LOG, "tensorboard")
"""The entries that a run writes in its output directory. Others, such as data and an index, belong to the user."""


def look(output_dir: Path, *, resume: bool, overwrite: bool, warn: Callable[[str], Any]) -> Path | None:
    """Return the checkpoint that a run goes on from, or None where it begins; nothing is written.

    Args:
        output_dir: of the run; it need not exist.
        resume: go on from the newest whole checkpoint, if there is one.
        overwrite: what is there is to be moved aside.
        warn: told of damaged checkpoints.

    Raises:
        ConfigError: a run is there, which is neither to be resumed nor to be moved; or there is a finished model to
            resume and no whole checkpoint.
    """
    found = newest(output_dir, warn) if resume else None
    held = _held(output_dir)
    if found is not None or overwrite or not held:
        return found
    if not resume:
        raise ConfigError(
            f"{output_dir} holds a run already ({', '.join(held)}): go on with it by --resume, or begin anew by "
            "--overwrite, which moves it to a dated folder beside it, or give another output_dir"
        )
    if f"{MODEL}/" in held:
        raise ConfigError(
            f"{output_dir} holds a finished model and no whole checkpoint to resume from: train another with "
            "--overwrite in place of --resume, which moves what is there to a dated folder beside it, or give another "
            "output_dir"
        )
    return None


def move_aside(output_dir: Path) -> Path | None:
    """Move the files of a run to a dated folder beside it, and return that; None where there is no run.

    Raises:
        TrainingError: it cannot be moved.
    """
    if not _held(output_dir):
        return None
    place = output_dir.resolve()
    aside = aside_of(place)
    try:
        aside.mkdir()
        for name in _PARTS:
            if (place / name).exists():
                (place / name).rename(aside / name)
    except OSError as error:
        if aside.is_dir() and is_empty(aside):
            aside.rmdir()
        raise TrainingError(
            f"the run in {output_dir} cannot be moved to {aside} ({error}): give another output_dir"
        ) from error
    return aside


def write_model(model: HypCLIP, output_dir: Path, notes: Mapping[str, Any]) -> Path | None:
    """Write a finished model; one that is there is left as it is if it is the same, else moved aside: return where.

    Raises:
        OSError: it cannot be written.
    """
    place, aside = output_dir / MODEL, None
    if not checkpoint.is_saved(model, place, **notes):
        with checkpoint.atomic_directory(place) as folder:
            checkpoint.save(model, folder, **notes)
            aside = None if is_empty(place) else set_aside(place)
    return aside


def _held(output_dir: Path) -> list[str]:
    """Return the entries of a run that are there; tensorboard's alone are no run: they are added to, not replaced."""
    log = output_dir / LOG
    held = [f"{name}/" for name in (MODEL, CHECKPOINTS) if _visible(output_dir / name)]
    return held + ([LOG] if log.is_file() and log.stat().st_size else [])


def _visible(folder: Path) -> bool:
    """Return whether a folder holds more than the scratch folders of killed writers."""
    return folder.is_dir() and any(not inside.name.startswith(".") for inside in folder.iterdir())
