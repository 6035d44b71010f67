"""The command that writes the quickstart data; what it writes is tested in test_quickstart_shards.py."""

import json
import shutil

import pytest

from hypclip.data.quickstart.art import concepts
from train import prepare_data
from train.prepare_data import main


def run(folder, *more):
    return main(
        ["quickstart", "--output", str(folder), "--scenes", "4", "--validation-scenes", "2", "--workers", "1", *more]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--scenes", "0"], "count and shard_size must be at least 1, got 0"),
        (["--validation-scenes", "-1"], "count and shard_size must be at least 1, got -1"),
        (["--styles", "noto", "fluent-flat"], "styles ['fluent-flat'] are held out for evaluation"),
        (
            ["--styles", "nato"],
            "styles must name some of noto, noto-v1, twemoji, emojione, fluent, fluent-flat, got nato",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(tmp_path, capsys, arguments, message):
    assert run(tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not (tmp_path / "zero_shot").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert run(tmp_path / "taken") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path / "taken") in error


@pytest.mark.parametrize(
    "arguments", [[], ["quickstart"], ["kitti", "--output", "x"], ["quickstart", "--output", "x", "--n", "3"]]
)
def test_a_wrong_command_line_is_exit_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_seed_and_styles_reach_the_scenes(tmp_path, capsys):
    assert run(tmp_path, "--seed", "3", "--styles", "twemoji") == 0
    assert capsys.readouterr().out.startswith("6 scenes in ")
    for split, count in (("train", 4), ("validation", 2)):
        manifest = json.loads((tmp_path / split / "manifest.json").read_text())
        assert (manifest["seed"], manifest["styles"], manifest["samples"]) == (3, ["twemoji"], count)


# Again ----------------------------------------------------------------------------------------------------------------


def states(folder):
    return {
        str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.rglob("*") if f.is_file()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    assert run(folder) == 0
    return folder


@pytest.fixture
def written(data, tmp_path):
    return shutil.copytree(data, tmp_path / "data")


def test_what_is_there_is_not_written_again(written, capsys):
    (written / "train" / "mine.tar").write_text("mine")
    before = states(written)
    assert run(written) == 0
    assert states(written) == before
    assert capsys.readouterr().out == f"already in {written}: train, validation, zero_shot\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "part", "kept"),
    [
        (lambda folder: None, "train", ["--seed", "1", "--validation-scenes", "2"]),
        (lambda folder: (folder / "train" / "00000.tar").write_text("mine"), "train", []),
        (lambda folder: (folder / "train" / "manifest.json").unlink(), "train", []),
        (lambda folder: (folder / "train" / "manifest.json").write_text("[]"), "train", []),
        (lambda folder: (folder / "zero_shot" / "classes.json").write_text("{}"), "zero_shot", []),
        (lambda folder: shutil.rmtree(folder / "zero_shot" / "images"), "zero_shot", []),
    ],
)
def test_other_data_is_refused_or_moved(written, capsys, change, part, kept):
    change(written)
    before = states(written)
    assert run(written, *kept) == 1
    assert capsys.readouterr().err.startswith(f"error: {written / part} holds something else than is to be written: ")
    assert states(written) == before
    old = states(written / part)
    assert run(written, *kept, "--overwrite") == 0
    (aside,) = written.glob(f"{part}.*")
    assert states(aside) == old
    assert f"what was in {written / part} is now {aside}\n" in capsys.readouterr().out
    assert run(written, *kept) == 0


def test_the_shards_of_the_user_are_no_stale_ones(tmp_path, capsys):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
    (tmp_path / "train" / "00007.tar").write_text("mine")
    assert run(tmp_path) == 1
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["00007.tar"]
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "train" / "00007.tar").unlink()
    assert run(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "validation", "zero_shot"]


def test_a_killed_command_goes_on_with_the_part_it_was_in(tmp_path, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_data, "write_zero_shot", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as kill -9 leaves it
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    (tmp_path / ".writing" / "zero_shot").mkdir()
    (tmp_path / ".writing" / "zero_shot" / "half").touch()
    before = states(tmp_path / "train")
    assert run(tmp_path) == 0
    assert states(tmp_path / "train") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "validation", "zero_shot"]
    assert not (tmp_path / "zero_shot" / "half").exists()


def test_a_link_to_another_disk_stays_and_the_data_goes_there(written, tmp_path):
    shutil.rmtree(written / "train")
    (tmp_path / "disk").mkdir()
    (written / "train").symlink_to(tmp_path / "disk")
    assert run(written) == 0
    assert (written / "train").is_symlink()
    assert json.loads((tmp_path / "disk" / "manifest.json").read_text())["samples"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "disk"]


def test_drawings_are_written_in_a_folder_a_class(tmp_path, capsys):
    place = tmp_path / "drawings"
    given = ["drawings", "--output", str(place), "--styles", "emojione"]
    assert main([*given, "--leave-out-every", "5"]) == 0
    names = json.loads((place / "classes.json").read_text())
    assert len(names) == len(concepts())
    drawn = {c.code for c in concepts() if "emojione" in c.styles and c.index % 5}
    assert {path.parent.name for path in place.glob("images/*/emojione.png")} == drawn
    assert f"{len(drawn)} drawings" in capsys.readouterr().out
    assert main(given) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "said"),
    [(["--styles", "noto", "oil"], "got oil"), (["--leave-out-every", "1"], "must be at least 2, got 1")],
)
def test_drawings_that_are_not_there_are_refused(tmp_path, capsys, extra, said):
    assert main(["drawings", "--output", str(tmp_path / "drawings"), *extra]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
