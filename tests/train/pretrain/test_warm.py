"""Whole runs that start from a trained model, or train a part of one: they resume bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

import hypclip
from tests.support.clip_directories import SHAPE, clip_directory, tokenizer_directory
from tests.support.models import TOWERS
from tests.support.pretraining import (
    assert_refused,
    assert_resumes,
    assert_same_run,
    config_of,
    fresh,
    losses,
    rewind,
    run,
    step_of,
)
from tests.support.training import run_config, without, write_config


@pytest.fixture
def flat(tmp_path) -> Path:
    """A checkpoint file of open_clip."""
    torch.manual_seed(7)
    torch.save(open_clip.CustomTextCLIP(**TOWERS).state_dict(), tmp_path / "flat.pt")
    return tmp_path / "flat.pt"


def test_a_run_starts_from_the_towers_of_a_flat_model_and_resumes(tmp_path, shards, plain, flat, capsys):
    output_dir = assert_resumes(config_of(tmp_path, shards, warm_start={"source": str(flat)}), tmp_path)
    said = capsys.readouterr().out
    assert said.count(f"towers of {flat}\n") == 1  # a run that goes on has its own
    assert losses(output_dir)[0] != losses(plain)[0]


def test_a_run_that_goes_on_needs_its_source_no_more(tmp_path, shards, capsys):
    """Its towers and pixel statistics are in the checkpoints."""
    clip_directory(tmp_path / "clip")
    settings = run_config(tmp_path / "run", shards, warm_start={"source": str(tmp_path / "clip")})
    config = write_config(tmp_path / "config.yaml", without(settings, "model"))
    assert run(config) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "plain")
    rewind(tmp_path / "run", 4)
    shutil.rmtree(tmp_path / "clip")
    assert run(config, "--resume") == 0
    assert_same_run(tmp_path / "run", tmp_path / "plain")
    capsys.readouterr()
    assert_refused(config, capsys, "cannot start from '.*clip': expected an open_clip model and tag")


@pytest.mark.slow
def test_a_run_without_a_whole_checkpoint_reads_its_source_again(tmp_path, shards, flat, capsys):
    config = config_of(tmp_path, shards, warm_start={"source": str(flat)})
    assert run(config) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "plain")
    rewind(tmp_path / "run", 2)
    (step_of(tmp_path / "run", 2) / "state.json").unlink()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    capsys.readouterr()
    assert run(config, "--resume") == 0
    assert f"towers of {flat}\n" in capsys.readouterr().out
    assert_same_run(tmp_path / "run", tmp_path / "plain")


@pytest.mark.slow
def test_a_text_model_reads_the_captions(tmp_path, shards, flat):
    bert = tmp_path / "bert"
    torch.manual_seed(3)
    BertModel(BertConfig(**SHAPE, vocab_size=30, max_position_embeddings=24)).save_pretrained(bert)
    tokenizer_directory(bert, 30)
    source = {"source": str(flat), "text_model": str(bert)}
    output_dir = assert_resumes(config_of(tmp_path, shards, warm_start=source), tmp_path)
    model = hypclip.load(output_dir / "checkpoint")
    assert model.embed_text(["a red square"]).shape == (1, TOWERS["embed_dim"])
    before = load_file(bert / "model.safetensors")["encoder.layer.1.output.dense.weight"]
    after_4 = model.text_tower.transformer.encoder.layer[1].output.dense.weight
    assert 0 < float((after_4.detach() - before).abs().max()) < 0.01


def test_a_source_that_is_not_there_is_refused(tmp_path, shards, capsys):
    config = config_of(tmp_path, shards, warm_start={"source": f"{tmp_path}/none.pt"})
    assert_refused(config, capsys, "cannot start from '.*none.pt': expected an open_clip model and tag")


def moved(output_dir: Path) -> set[str]:
    """Return the names of the weights that a run has changed."""
    first, last = fresh(output_dir), load_file(output_dir / "checkpoint" / "model.safetensors")
    return {name for name, tensor in last.items() if not torch.equal(tensor, first[name])}


def test_adapters_are_trained_merged_and_resumed(tmp_path, shards):
    lora = {"rank": 2, "image_blocks": 1, "text_blocks": 1}
    output_dir = assert_resumes(config_of(tmp_path, shards, tune={"lora": lora}), tmp_path)
    changed = moved(output_dir)
    for tower in ("image_tower", "text_tower"):
        blocks = {name for name in changed if name.startswith(f"{tower}.transformer.resblocks.")}
        parts = ("in_proj_weight", "out_proj.weight")
        assert blocks == {f"{tower}.transformer.resblocks.1.attn.{part}" for part in parts}
    assert {"log_curv", "image_tower.proj", "text_tower.ln_final.weight"} <= changed
    assert "text_tower.token_embedding.weight" not in changed
    written = load_file(step_of(output_dir, 4) / "model.safetensors")
    finished = load_file(output_dir / "checkpoint" / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in finished.items())


@pytest.mark.slow
def test_adapters_with_averages_resume(tmp_path, shards):
    lora = {"rank": 2, "image_blocks": 1, "text_blocks": 1}
    config = config_of(tmp_path, shards, tune={"lora": lora}, train__ema_decay=0.9)
    finished = load_file(assert_resumes(config, tmp_path) / "checkpoint" / "model.safetensors")
    assert not any("parametrizations" in name for name in finished)


@pytest.mark.slow
def test_locked_towers_stay_and_resume(tmp_path, shards):
    tune = {"lock_image": True, "unlocked_image_blocks": 1, "lock_text": True}
    changed = moved(assert_resumes(config_of(tmp_path, shards, tune=tune), tmp_path))
    assert {name for name in changed if name.startswith("text_tower.")} == {"text_tower.text_projection"}
    assert {name.split(".")[1] for name in changed if name.startswith("image_tower.")} == {
        "transformer",
        "ln_post",
        "proj",
    }
    assert not any(name.startswith("image_tower.transformer.resblocks.0.") for name in changed)


@pytest.mark.slow
def test_lower_layers_move_less_and_resume(tmp_path, shards, plain):
    """Adam's first updates have the size of the learning rate: a third of it a layer."""
    layer_decay = {"image_layer_decay": 0.1, "text_layer_decay": 0.1}
    output_dir = assert_resumes(config_of(tmp_path, shards, tune=layer_decay), tmp_path)
    assert losses(output_dir)[0] == losses(plain)[0]
    assert losses(output_dir)[2:] != losses(plain)[2:]
    first, last = fresh(output_dir), load_file(output_dir / "checkpoint" / "model.safetensors")
    for tower in ("image_tower", "text_tower"):
        names = [f"{tower}.transformer.resblocks.{block}.mlp.c_fc.weight" for block in (0, 1)]
        low, high = ((last[name] - first[name]).abs().mean() for name in names)
        assert 5 * low < high
