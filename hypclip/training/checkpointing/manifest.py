"""The training checkpoints of a run: OUTPUT/checkpoints/step-NNNNNNNN, each whole or passed over.

manifest.json has the size and the sha256 of every other file. It is written last, so that a directory without one, or
with a file that is not what it says, is known to be damaged, on an object store too, where nothing can be renamed.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypclip.checkpoint import read_config, sha256
from hypclip.errors import CheckpointError

MANIFEST = "manifest.json"
_NAME = "step-{:08d}"
_PATTERN = re.compile(r"step-(\d{8,})")


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Return the path of the training checkpoint of a step."""
    return output_dir / "checkpoints" / _NAME.format(step)


def write_manifest(folder: Path) -> None:
    """Write the size and sha256 of each file of a folder into its manifest."""
    files = {file.name: _entry(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def verify(folder: Path) -> None:
    """Check every file against the manifest.

    Raises:
        CheckpointError: no manifest, or a file that is missing, cut short or altered, by name.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {MANIFEST}: it was not written to the end") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} cannot be read: {error}") from error
    for name, (size, digest) in expected.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != size:
            raise CheckpointError(f"{file} has {file.stat().st_size:,} bytes, {size:,} were written")
        if sha256(file) != digest:
            raise CheckpointError(f"{file} was altered: its sha256 is not that of the manifest")


def newest(output_dir: Path, warn: Callable[[str], Any]) -> Path | None:
    """Return the checkpoint of the highest step that is whole, or None; `warn` is told of each that is not."""
    for folder in _newest_first(output_dir):
        try:
            verify(folder)
        except CheckpointError as error:
            warn(f"passed over a damaged checkpoint: {error}")
        else:
            return folder
    return None


def begun_model(output_dir: Path) -> dict[str, Any] | None:
    """Return the model's config as the newest checkpoint that can be read has it, whole or not; None without any."""
    for folder in _newest_first(output_dir):
        with contextlib.suppress(CheckpointError):
            model: dict[str, Any] = read_config(folder)["model"]
            return model
    return None


def _by_step(output_dir: Path) -> dict[int, Path]:
    """Return the checkpoints by step; other things beside them, such as copies by another name, are the user's."""
    named = ((_PATTERN.fullmatch(folder.name), folder) for folder in (output_dir / "checkpoints").glob("step-*"))
    return {int(match[1]): folder for match, folder in named if match}


def _newest_first(output_dir: Path) -> list[Path]:
    return [folder for _, folder in sorted(_by_step(output_dir).items(), reverse=True)]


def prune(output_dir: Path, step: int, keep: int, keep_every: int | None = None, spared: Path | None = None) -> None:
    """Delete checkpoints of a run at `step`, but the newest `keep`, and those of multiples of `keep_every`.

    Later ones stay: they are damaged ones, which the run skipped and will write again. One can be spared.
    """
    found = _by_step(output_dir)
    ours = sorted(done for done in found if done <= step)
    lasting = {done for done in ours if keep_every and done % keep_every == 0}
    for old in {*ours} - {*ours[-keep:]} - lasting:
        if found[old] != spared:
            shutil.rmtree(found[old])


def files_to_copy(folder: Path) -> Iterator[Path]:
    """Yield the files of a checkpoint in the order of a copy: the manifest last, so that it marks a whole copy."""
    yield from sorted(file for file in folder.iterdir() if file.name != MANIFEST)
    yield folder / MANIFEST


def _entry(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}
