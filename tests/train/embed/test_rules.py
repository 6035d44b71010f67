"""train/embed.py for a model that entails by half-spaces: its rule goes with the points, and no other is mixed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypclip import checkpoint
from hypclip.indexing.parquet import read_space
from hypclip.search import Cone, LocalStore, Plane
from tests.support.embedding import call, make_folder, points_in
from tests.support.models import tiny_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual folder, and the same weights once more as a model of half-spaces."""
    root = make_folder(tmp_path_factory.mktemp("rules"))
    with checkpoint.atomic_directory(root / "planes") as target:
        checkpoint.save(tiny_encoder(entailment={"form": "plane", "threshold": 0.25}), target)
    return root


def embed(folder: Path, model: str, *arguments: object) -> int:
    return call(folder, *arguments, "--checkpoint", folder / model)


def rule_of(index: Path) -> Cone | Plane:
    with LocalStore(index) as store:
        return store.describe("default").space.entailment


def test_the_rule_of_the_model_goes_with_its_points(folder: Path, tmp_path: Path) -> None:
    shards = ("--shards", folder / "pairs", "--samples", 2)
    assert embed(folder, "planes", "--index", tmp_path / "index", *shards) == 0
    assert rule_of(tmp_path / "index") == Plane(0.25)
    assert embed(folder, "checkpoint", "--index", tmp_path / "cones", *shards) == 0
    assert rule_of(tmp_path / "cones") == Cone()
    assert embed(folder, "planes", "--parquet", tmp_path / "parts", *shards) == 0
    assert [read_space(file).entailment for file in (tmp_path / "parts").iterdir()] == [Plane(0.25)]
    assert embed(folder, "planes", "--from-parquet", tmp_path / "parts", "--index", tmp_path / "later") == 0
    assert rule_of(tmp_path / "later") == Plane(0.25)


def test_an_index_of_another_rule_is_refused_by_name_or_moved_aside(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    arguments = ("--index", index, "--shards", folder / "pairs", "--samples", 2)
    assert embed(folder, "checkpoint", *arguments) == 0
    before = points_in(index)
    capsys.readouterr()
    assert embed(folder, "planes", *arguments) == 1
    message = capsys.readouterr().err
    assert "collection 'default' holds points of model 'hypclip-" in message
    assert "entailment by cones of eta 1 and min_radius 0.1" in message
    assert "entailment by half-spaces of threshold 0.25" in message
    assert "embed its contents again into a new collection" in message
    assert (points_in(index), rule_of(index)) == (before, Cone())
    assert embed(folder, "planes", *arguments, "--replace") == 0
    assert rule_of(index) == Plane(0.25)
    (aside,) = tmp_path.glob("index.*")
    assert rule_of(aside) == Cone()


def test_files_of_another_rule_are_refused_by_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = ("--shards", folder / "pairs", "--samples", 2)
    parts, others = tmp_path / "parts", tmp_path / "others"
    assert embed(folder, "planes", "--parquet", parts, *shards) == 0
    assert embed(folder, "checkpoint", "--parquet", others, *shards) == 0
    capsys.readouterr()
    both = ("entailment by half-spaces of threshold 0.25", "entailment by cones of eta 1 and min_radius 0.1")
    for arguments in (
        ("--parquet", parts, *shards),  # into the folder of the other
        ("--from-parquet", parts, "--index", tmp_path / "index"),  # with the checkpoint of the other
        ("--from-parquet", parts, others, "--index", tmp_path / "index"),
    ):
        assert embed(folder, "checkpoint", *arguments) == 1
        message = capsys.readouterr().err
        assert all(one in message for one in both)
        assert not (tmp_path / "index").exists()
