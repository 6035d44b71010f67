"""train/embed.py: pictures and texts into an index, and every way to ask for it wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import hypclip
from hypclip import checkpoint
from hypclip.data.quickstart.shards import write_shards
from hypclip.evaluation.retrieval import read_pairs
from hypclip.geometry import cones, lorentz
from hypclip.model import HypCLIP, ModelConfig
from hypclip.search.local import LocalStore
from train.embed import main

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 32, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    with checkpoint.atomic_directory(root / "checkpoint") as target:
        checkpoint.save(HypCLIP(ModelConfig(towers=TOWERS)), target)
    write_shards(root / "data", "validation", 6)
    for key, colour in (("a", "red"), ("b", "blue")):
        (root / "images" / key).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(root / "images" / key / "1.png")
    (root / "classes.json").write_text(json.dumps({"a": ["red square", "square"], "b": "blue square"}))
    return root


def test_shards_and_folders_become_points_at_their_embeddings(folder: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(folder / "checkpoint"), "--index", str(tmp_path / "index")]
    arguments += ["--shards", str(folder / "data" / "validation"), "--images", str(folder / "images")]
    assert main([*arguments, "--classes", str(folder / "classes.json")]) == 0

    model = hypclip.load(folder / "checkpoint")
    record = read_pairs([str(folder / "data" / "validation" / "00000.tar")], 6)[2]
    with LocalStore(tmp_path / "index") as store:
        assert store.describe("default").count == 6 * 2 + 2 + 3
        found = store.get("default", [f"{record.key}/image", f"{record.key}/text", "a/1.png", "a/square"])
    assert list(found.modality) == ["image", "text", "image", "text"]
    assert found.metadata[0] == {"caption": record.caption}
    assert found.metadata[2] == {"class": "red square"}
    expected = torch.cat(
        [
            model.embed_image([record.image]),
            model.embed_text([record.caption]),
            model.embed_image([Image.new("RGB", (20, 20), "red")]),
            model.embed_text(["square"]),
        ]
    )
    torch.testing.assert_close(found.vectors, expected, atol=1e-6, rtol=1e-5)


def test_embedding_again_replaces_points(folder: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(folder / "checkpoint"), "--index", str(tmp_path / "index")]
    arguments += ["--shards", str(folder / "data" / "validation"), "--samples", "4"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    with LocalStore(tmp_path / "index") as store:
        assert store.describe("default").count == 8


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "nothing to embed"),
        (["--images", "nowhere"], "belong together"),
        (["--shards", "nowhere.tar"], "nowhere.tar"),
        (["--shards", "x.tar", "--checkpoint", "nowhere"], "nowhere is not a checkpoint directory"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    index = tmp_path / "index"
    assert main(["--checkpoint", str(folder / "checkpoint"), "--index", str(index), *extra]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not index.exists()


def test_the_readme_example_runs(folder: Path) -> None:
    """Embeddings and curvature of a loaded model go straight into the geometry."""
    model = hypclip.load(folder / "checkpoint")
    text = model.embed_text(["an animal", "a red apple"])
    image = model.embed_image([Image.new("RGB", (40, 30), "red")])
    assert lorentz.pairwise_dist(image, text, model.curv).shape == (1, 2)
    angles = cones.oxy_angle(text, image.expand(2, -1), model.curv)
    assert (angles <= cones.half_aperture(text, model.curv)).shape == (2,)
    assert angles.min() >= 0
    assert angles.max() <= torch.pi
