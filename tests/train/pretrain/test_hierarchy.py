"""Whole runs with a taxonomy: what their log tells of it, that they resume, and which taxonomies are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import hypclip
from hypclip.geometry.entailment import Plane
from hypclip.taxonomy import load as load_taxonomy
from hypclip.training.calibration import calibrate_threshold
from tests.support.pretraining import assert_same_run, config_of, rewind, run
from tests.support.training import COLOURS, HIERARCHY, read_log

LINEAGE = {"lineage/box_text", "lineage/box_image", "lineage/concept", "order/concept-box_text", "anchor/concept"}


def edges(folder: Path, pairs: list[tuple[str, str]] | None = None) -> Path:
    """Write a taxonomy, by default that of the shards' phrases."""
    of_shards = [(f"a {colour} square", "a square") for colour in COLOURS] + [("a square", "a shape")]
    file = folder / "is_a.json"
    file.write_text(json.dumps(of_shards if pairs is None else pairs))
    return file


def config(folder: Path, shards: Path, **changes: object) -> Path:
    usual = {"objective": HIERARCHY, "train__first_radii": {"image": 1.5, "text": 0.5}, "data__concepts": 4}
    return config_of(folder, shards, **{**usual, **changes})


def test_a_run_with_a_taxonomy_learns_and_tells_its_levels(tmp_path, shards):
    given = config(tmp_path, shards, train__steps=30, train__calibrate_threshold=True)
    assert run(given, f"data.taxonomy={edges(tmp_path)}") == 0
    lines = read_log(tmp_path / "run")
    for line in lines:
        assert line.keys() > LINEAGE
        assert {"radius/level0/q50", "radius/level1/q50", "cosine/text-image", "gap/text-image"} < line.keys()
        assert line["warnings"] == []
    for name in ("lineage/box_text", "lineage/box_image", "lineage/concept"):
        assert sum(line[name] for line in lines[-5:]) < sum(line[name] for line in lines[:5]), name
    first = lines[0]
    assert first["radius/image/q50"] == pytest.approx(1.5, abs=0.3)
    assert first["radius/text/q50"] == pytest.approx(0.5, abs=0.2)
    model = hypclip.load(tmp_path / "run" / "checkpoint")
    again = hypclip.load(tmp_path / "run" / "checkpoint")
    calibrate_threshold(again, load_taxonomy(tmp_path / "is_a.json"))
    assert model.config.entailment == again.config.entailment != Plane()
    assert run(given, f"data.taxonomy={edges(tmp_path)}", "--resume") == 0  # and nothing changes
    shape, square = model.embed_text(["a shape", "a square"])
    assert shape.norm() < square.norm()


def test_a_run_with_a_taxonomy_resumes_bit_for_bit(tmp_path, shards):
    file = edges(tmp_path)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        assert run(config(tmp_path / name, shards), f"data.taxonomy={file}") == 0
    rewind(tmp_path / "stopped" / "run", 2)
    assert run(config(tmp_path / "stopped", shards), f"data.taxonomy={file}", "--resume") == 0
    assert_same_run(tmp_path / "stopped" / "run", tmp_path / "whole" / "run")


def test_another_taxonomy_is_another_run(tmp_path, shards, capsys):
    file = edges(tmp_path)
    assert run(config(tmp_path, shards), f"data.taxonomy={file}") == 0
    rewind(tmp_path / "run", 2)
    assert run(config(tmp_path, shards), "data.taxonomy=emoji", "--resume") == 1
    assert f"data.taxonomy was '{file}' and is 'emoji'" in capsys.readouterr().err


def test_a_run_with_wordnet_learns_of_phrases_that_are_no_names(tmp_path, shards):
    """The phrases are "a red square" and the like: above them is "square", and above that what WordNet says."""
    given = config(tmp_path, shards, train__steps=20, data__concepts=12, data__workers=1)
    assert run(given, "data.taxonomy=wordnet", "train.calibrate_threshold=true") == 0
    lines = read_log(tmp_path / "run")
    for name in ("lineage/box_text", "lineage/box_image", "lineage/concept", "order/concept-box_text"):
        assert lines[0][name] > 0, name
        assert all(math.isfinite(line[name]) for line in lines), name
    for name in ("lineage/box_text", "lineage/box_image"):
        assert sum(line[name] for line in lines[-5:]) < sum(line[name] for line in lines[:5]), name
    assert all(line["warnings"] == [] for line in lines)
    assert hypclip.load(tmp_path / "run" / "checkpoint").config.entailment != Plane()


@pytest.mark.parametrize("taxonomy", [None, [("a boat", "a vehicle")]])
def test_without_a_taxonomy_or_with_one_of_other_phrases_the_rest_is_trained(tmp_path, shards, taxonomy):
    more = [] if taxonomy is None else [f"data.taxonomy={edges(tmp_path, taxonomy)}"]
    assert run(config(tmp_path, shards), *more) == 0
    for line in read_log(tmp_path / "run"):
        assert line["lineage/box_text"] == line["lineage/box_image"] == line["order/concept-box_text"] == 0
        assert (line["anchor/concept"] == 0) == (taxonomy is None)
        assert line["entail/text-image"] > 0
    weights = hypclip.load(tmp_path / "run" / "checkpoint").state_dict()
    assert all(x.isfinite().all() for x in weights.values() if torch.is_floating_point(x))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([("a", "b"), ("b", "a")], "the taxonomy has a cycle"),
        ([], "at least one is-a edge"),
        ("emojis", "there is no taxonomy 'emojis': expected one of emoji, emoji-held-out"),
    ],
)
def test_a_taxonomy_that_cannot_be_used_is_named_before_anything_is_made(tmp_path, shards, content, said, capsys):
    given = content if isinstance(content, str) else edges(tmp_path, content)
    assert run(config(tmp_path, shards), f"data.taxonomy={given}") == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", [HIERARCHY, "hycoclip"])
def test_a_threshold_is_calibrated_on_a_taxonomy_and_of_half_spaces_only(tmp_path, shards, objective, capsys):
    more = [] if objective is HIERARCHY else [f"data.taxonomy={edges(tmp_path)}"]
    assert run(config(tmp_path, shards, objective=objective), "train.calibrate_threshold=true", *more) == 1
    assert "calibrate_threshold needs data.taxonomy, and entailment: {form: plane}" in capsys.readouterr().err
