"""Directories of training checkpoints: whole ones are found, damaged ones passed over, old ones deleted."""

import json
from pathlib import Path

import pytest

from hypclip.errors import CheckpointError
from hypclip.training.checkpointing.manifest import (
    checkpoint_path,
    files_to_copy,
    newest,
    prune,
    verify,
    write_manifest,
)


def fill(output_dir: Path, *steps: int) -> None:
    for step in steps:
        folder = checkpoint_path(output_dir, step)
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "state.json"):
            (folder / name).write_text(f"{name} of {step}")
        write_manifest(folder)


def left(output_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (output_dir / "checkpoints").iterdir())


def found(output_dir: Path) -> tuple[Path | None, list[str]]:
    told: list[str] = []
    return newest(output_dir, told.append), told


def truncate(folder: Path) -> str:
    (folder / "state.json").write_text("state")
    return "state.json has 5 bytes, 18 were written"


def alter(folder: Path) -> str:
    (folder / "state.json").write_text("stale.json of 3000")
    return "state.json was altered"


def remove(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "model.safetensors is missing"


def without_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "has no manifest.json: it was not written to the end"


def broken_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": [1]}')
    return "manifest.json cannot be read"


def test_the_newest_is_found(tmp_path):
    assert found(tmp_path) == (None, [])
    fill(tmp_path, 900, 1000, 20)
    (tmp_path / "checkpoints" / ".step-00003000.writing").mkdir()
    assert found(tmp_path) == (checkpoint_path(tmp_path, 1000), [])


@pytest.mark.parametrize("damage", [truncate, alter, remove, without_manifest, broken_manifest])
def test_a_damaged_one_is_passed_over_with_a_warning(damage, tmp_path):
    fill(tmp_path, 1000, 2000, 3000)
    what = damage(checkpoint_path(tmp_path, 3000))
    with pytest.raises(CheckpointError, match=what):
        verify(checkpoint_path(tmp_path, 3000))
    path, (warning,) = found(tmp_path)
    assert path == checkpoint_path(tmp_path, 2000)
    assert warning.startswith("passed over a damaged checkpoint: ")
    assert what in warning


def test_where_none_is_whole_there_is_none(tmp_path):
    fill(tmp_path, 1000, 2000)
    truncate(checkpoint_path(tmp_path, 1000))
    remove(checkpoint_path(tmp_path, 2000))
    path, warnings = found(tmp_path)
    assert path is None
    assert len(warnings) == 2


def test_files_beside_those_of_the_manifest_do_no_harm(tmp_path):
    fill(tmp_path, 5)
    (checkpoint_path(tmp_path, 5) / "notes.txt").write_text("mine")
    verify(checkpoint_path(tmp_path, 5))


def test_a_copy_is_whole_once_its_last_file_has_come(tmp_path):
    fill(tmp_path, 5)
    files = [file.name for file in files_to_copy(checkpoint_path(tmp_path, 5))]
    assert files == ["model.safetensors", "state.json", "manifest.json"]
    assert json.loads((checkpoint_path(tmp_path, 5) / "manifest.json").read_text())["files"].keys() == set(files[:2])


def test_only_the_newest_are_kept(tmp_path):
    fill(tmp_path, 10, 20, 30, 40)
    prune(tmp_path, 40, 2)
    assert left(tmp_path) == [30, 40]
    prune(tmp_path, 40, 2)
    assert left(tmp_path) == [30, 40]


def test_every_so_often_one_is_kept_for_good(tmp_path):
    fill(tmp_path, 10, 20, 30, 40, 50, 60, 70)
    prune(tmp_path, 70, 2, 30)
    assert left(tmp_path) == [30, 60, 70]


def test_later_ones_stay(tmp_path):
    """Damaged ones, which the run passed over."""
    fill(tmp_path, 900, 1000, 50, 100)
    prune(tmp_path, 100, 1)
    assert left(tmp_path) == [100, 900, 1000]


@pytest.mark.parametrize("name", ["step-00000010.bak", "step-00000010-best", "step-10", "step-best", "10", "notes"])
def test_what_is_named_otherwise_is_the_users(tmp_path, name):
    fill(tmp_path, 10, 20, 30)
    mine = tmp_path / "checkpoints" / name
    checkpoint_path(tmp_path, 10).rename(mine)
    prune(tmp_path, 30, 1)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {name, "step-00000030"}
    assert len(list(mine.iterdir())) == 3
    assert found(tmp_path)[0] == checkpoint_path(tmp_path, 30)


def test_steps_are_compared_as_numbers(tmp_path):
    fill(tmp_path, 99_999_999, 100_000_000)
    assert found(tmp_path)[0] == checkpoint_path(tmp_path, 100_000_000)
    prune(tmp_path, 100_000_000, 1)
    assert left(tmp_path) == [100_000_000]
