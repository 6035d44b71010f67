"""A run started again where one was before: nothing of the one before is lost, whatever is asked for."""

import re
import shutil
from pathlib import Path

import pytest

import hypclip
from tests.support.pretraining import assert_refused, assert_same_run, config_of, rewind, run, step_of, steps_in
from tests.support.training import read_log, state_bits
from train import parts


@pytest.fixture
def config(tmp_path, shards) -> Path:
    """The config of a run of four steps into tmp_path/run."""
    return config_of(tmp_path, shards)


@pytest.fixture
def finished(tmp_path, plain) -> Path:
    """The folder tmp_path/run of that run, with things of the user in it."""
    shutil.copytree(plain, tmp_path / "run")
    (tmp_path / "run" / "data").mkdir()
    (tmp_path / "run" / "data" / "a.tar").write_text("mine")
    return tmp_path / "run"


def bits(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def asides(folder: Path) -> list[Path]:
    return sorted(path for path in folder.parent.iterdir() if path.name.startswith(f"{folder.name}."))


# Without a word on it -------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_refused_with_both_ways_out(config, finished, capsys):
    before = bits(finished)
    ways = r"run holds a run already \(checkpoint/, checkpoints/, metrics.jsonl\): .*--resume, .*--overwrite, .* dated"
    assert_refused(config, capsys, ways)
    assert bits(finished) == before
    assert asides(finished) == []


def test_it_is_refused_before_a_model_is_built(config, finished, capsys, monkeypatch):
    monkeypatch.setattr(parts, "HypCLIP", None)
    assert_refused(config, capsys, "holds a run already")


# Anew -----------------------------------------------------------------------------------------------------------------


def test_overwrite_moves_the_run_to_a_dated_folder_and_nothing_else(config, finished, plain, capfd):
    assert run(config, "--overwrite", "train.steps=2", "train.seed=1") == 0
    (aside,) = asides(finished)
    assert re.fullmatch(r"run\.\d{4}-\d\d-\d\dT\d{6}", aside.name)
    assert bits(aside) == bits(plain)
    assert f"what was there of an earlier run is now in {aside}\n" in capfd.readouterr().out
    assert (finished / "data" / "a.tar").read_text() == "mine"
    assert steps_in(finished) == [2]
    assert [line["step"] for line in read_log(finished)] == [1, 2]
    assert run(config, "--resume", "train.steps=3", "train.seed=1") == 0
    assert [line["step"] for line in read_log(finished)] == [1, 2, 3]
    assert asides(finished) == [aside]


def test_a_mistake_moves_nothing(config, finished, capsys):
    before = bits(finished)
    assert_refused(config, capsys, "there is no shard nowhere", "--overwrite", "data.shards=nowhere")
    assert_refused(config, capsys, "more workers|need at least", "--overwrite", "data.workers=3")
    assert bits(finished) == before
    assert asides(finished) == []


def test_resume_and_overwrite_are_two_things(config, finished, capsys):
    before = bits(finished)
    with pytest.raises(SystemExit) as caught:
        run(config, "--overwrite", "--resume")
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
    assert bits(finished) == before


def test_a_folder_that_cannot_be_moved_is_left_as_it_is(config, finished, capsys, monkeypatch):
    before = bits(finished)
    monkeypatch.setattr(
        Path, "rename", lambda self, to: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link"))
    )
    assert_refused(config, capsys, "cannot be moved to .*cross-device link.*: give another output_dir", "--overwrite")
    assert bits(finished) == before
    assert asides(finished) == []


# Going on -------------------------------------------------------------------------------------------------------------


def test_a_finished_run_that_is_resumed_stays_as_it_is(config, finished, plain):
    notes = finished / "checkpoint" / "notes.md"
    notes.write_text("mine")
    assert run(config, "--resume") == 0
    assert notes.read_text() == "mine"
    notes.unlink()
    assert_same_run(finished, plain)
    assert asides(finished / "checkpoint") == []


def test_the_model_of_fewer_steps_is_kept(config, finished, plain, capfd):
    assert run(config, "--resume", "train.steps=5") == 0
    (aside,) = asides(finished / "checkpoint")
    assert state_bits(aside) == state_bits(plain / "checkpoint")
    assert f"the model that was there is now {aside}\n" in capfd.readouterr().out
    assert hypclip.checkpoint.read_config(finished / "checkpoint")["step"] == 5


def test_a_resume_that_finds_no_run_says_so(config, finished, capfd):
    """As where output_dir has a slip in it."""
    assert run(config, "--resume", "train.steps=1", f"output_dir={finished.parent}/rum") == 0
    assert f"nothing to resume in {finished.parent}/rum: this run begins anew\n" in capfd.readouterr().out
    assert run(config, "--resume") == 0
    assert "nothing to resume" not in capfd.readouterr().out


def test_log_lines_of_a_run_killed_before_its_first_checkpoint_are_kept(config, finished, plain, capfd):
    rewind(finished, 0)
    log = (finished / "metrics.jsonl").read_bytes()
    assert run(config, "--resume") == 0
    (aside,) = asides(finished)
    assert (aside / "metrics.jsonl").read_bytes() == log
    assert_same_run(finished, plain)


def test_checkpoints_that_are_all_damaged_are_kept(config, finished, plain, capfd):
    rewind(finished, 2)
    (step_of(finished, 2) / "manifest.json").unlink()
    damaged = bits(step_of(finished, 2))
    assert run(config, "--resume") == 0
    (aside,) = asides(finished)
    assert bits(step_of(aside, 2)) == damaged
    assert_same_run(finished, plain)
    assert "passed over a damaged checkpoint" in capfd.readouterr().err


def test_a_finished_model_without_checkpoints_is_not_trained_again(config, finished, capsys):
    shutil.rmtree(finished / "checkpoints")
    before = bits(finished)
    wanted = "holds a finished model and no whole checkpoint to resume from: .*--overwrite .*another output_dir"
    assert_refused(config, capsys, wanted, "--resume")
    assert bits(finished) == before


def test_copies_of_another_run_are_not_written_over(config, tmp_path, capsys):
    copies = f"train.upload_to=file://{tmp_path}/copies"
    assert run(config, copies) == 0
    before = bits(tmp_path / "copies")
    for again in ("--overwrite", f"output_dir={tmp_path}/other"):
        capsys.readouterr()
        assert_refused(
            config, capsys, "train.upload_to: .*copies/checkpoints holds .* another run: name", copies, again
        )
    assert bits(tmp_path / "copies") == before
    assert asides(tmp_path / "run") == []
    assert run(config, copies, "--resume") == 0


# By another name ------------------------------------------------------------------------------------------------------


def test_a_text_without_quotes_is_named_before_anything_else(config, tmp_path, capsys):
    assert_refused(config, capsys, "^error: name: a: b is no text without quotes in YAML: put it in", "name=a: b")
    assert not (tmp_path / "run").exists()
