"""What an output directory holds of a run, and how it is moved."""

from pathlib import Path

import pytest

from hypclip.errors import ConfigError
from hypclip.training.checkpointing.output_dir import look, move_aside

PARTS = {
    "checkpoint/": "checkpoint/model.safetensors",
    "checkpoints/": "checkpoints/step-00000002/model.safetensors",
    "metrics.jsonl": "metrics.jsonl",
}


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(("held", "name"), PARTS.items())
def test_each_part_of_a_run_is_worth_keeping(tmp_path, held, name):
    folder = write(tmp_path / "run", name)
    with pytest.raises(ConfigError, match=rf"run holds a run already \({held}\): .*--resume, .*--overwrite, .* dated"):
        look(folder, resume=False, overwrite=False, warn=print)
    assert files(folder) == [name]


def test_other_things_in_the_folder_are_no_run(tmp_path):
    names = ("data/train/00000.tar", "tensorboard/events", "checkpoints/.step-00000002.writing/a")
    folder = write(tmp_path / "run", *names)
    (folder / "metrics.jsonl").write_text("")
    assert look(folder, resume=False, overwrite=False, warn=print) is None
    assert move_aside(folder) is None
    assert files(folder) == sorted([*names, "metrics.jsonl"])


@pytest.mark.parametrize("there", [False, True])
def test_overwriting_needs_nothing_to_be_there(tmp_path, there):
    if there:
        (tmp_path / "run").mkdir()
    assert look(tmp_path / "run", resume=False, overwrite=True, warn=print) is None
    assert move_aside(tmp_path / "run") is None
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if there else [])


def test_a_run_is_moved_and_nothing_else(tmp_path):
    folder = write(tmp_path / "run", *PARTS.values(), "tensorboard/events", "data/a.tar")
    assert look(folder, resume=False, overwrite=True, warn=print) is None
    aside = move_aside(folder)
    assert aside is not None
    assert files(aside) == sorted([*PARTS.values(), "tensorboard/events"])
    assert files(folder) == ["data/a.tar"]
