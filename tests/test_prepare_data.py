"""The command that writes the quickstart data; what it writes is tested in test_quickstart_shards.py."""

import json

import pytest

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
