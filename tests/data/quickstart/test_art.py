"""The artwork that ships with the package: names, drawings, hierarchy, licences."""

import json
import tomllib
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES, concepts, taxonomy, tiles

ART = resources.files("hypclip.data.quickstart").joinpath("art")
ROOT = Path(__file__).parents[3]


def test_concepts_come_in_the_order_of_their_tiles_with_codes_and_names_of_their_own():
    assert [concept.index for concept in concepts()] == list(range(1020))
    assert len({concept.code for concept in concepts()}) == 1020
    assert len({concept.name for concept in concepts()}) == 1020
    assert Counter(style for concept in concepts() for style in concept.styles) == {
        "noto": 1020, "noto-v1": 758, "twemoji": 1020, "emojione": 748, "fluent": 1002, "fluent-flat": 1015
    }  # fmt: skip


@pytest.mark.parametrize("style", [*TRAIN_STYLES, *HELD_OUT_STYLES])
def test_a_tile_holds_a_drawing_when_its_concept_lists_the_style(style):
    drawn = tiles(style)
    assert len(drawn) == 1020
    covers = []
    for concept, tile in zip(concepts(), drawn, strict=True):
        assert (tile is not None) == (style in concept.styles)
        if tile is not None:
            assert (tile.mode, tile.size) == ("RGBA", (64, 64))
            covers.append((np.asarray(tile)[..., 3] > 127).mean())
    assert min(covers) > 0.02
    assert np.mean(covers) > 0.3


def test_tiles_are_of_the_right_concept():
    """By colour: hearts are named after it."""
    hearts = {"red heart": 0, "green heart": 1, "blue heart": 2}
    found = {concept.name: concept.index for concept in concepts() if concept.name in hearts}
    for style in TRAIN_STYLES:
        for name, channel in hearts.items():
            tile = tiles(style)[found[name]]
            assert tile is not None
            pixels = np.asarray(tile, dtype=float)
            assert pixels[pixels[..., 3] > 200][:, :3].mean(0).argmax() == channel, (style, name)


def test_the_taxonomy_keeps_levels_apart_where_names_are_shared():
    edges = taxonomy()
    parents = dict(edges)
    assert len(edges) == len(parents) == 1020 + 66 + 11
    names, kinds = ({getattr(concept, level) for concept in concepts()} for level in ("name", "kind"))
    assert len(names & kinds) == 9
    apple = next(concept for concept in concepts() if concept.name == "red apple")
    assert [parents[apple.code], parents["kind:fruit"], parents["family:food"]] == ["kind:fruit", "family:food", "root"]
    assert all(len({c.family for c in concepts() if c.kind == kind}) == 1 for kind in kinds)


def test_the_licence_of_every_file_ships_in_the_package():
    files = {file.name for file in ART.iterdir()}
    assert files == {f"{style}.webp" for style in (*TRAIN_STYLES, *HELD_OUT_STYLES)} | {"emoji.json", "README.md"}
    table = {
        row.split("|")[1].strip(): row.split("|")[3].strip()
        for row in ART.joinpath("README.md").read_text(encoding="utf-8").splitlines()
        if row.startswith("|")
    }
    assert {file.removesuffix(".webp"): table[file] for file in files if file.endswith(".webp")} == {
        "noto": "Apache-2.0", "noto-v1": "Apache-2.0", "twemoji": "CC BY 4.0 (attribution)",
        "emojione": "CC BY 4.0 (attribution)", "fluent": "MIT", "fluent-flat": "MIT",
    }  # fmt: skip
    assert table["names, tags"] == "Unicode licence"
    assert set(json.loads(ART.joinpath("emoji.json").read_text(encoding="utf-8"))) == {"tile", "columns", "concepts"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-data"]["hypclip.data.quickstart"] == ["art/*"]
    assert "hypclip/data/quickstart/art/README.md" in project["project"]["license-files"]


def test_no_style_is_both_trained_on_and_held_out():
    assert not set(TRAIN_STYLES) & set(HELD_OUT_STYLES)
    readme = " ".join(ART.joinpath("README.md").read_text(encoding="utf-8").split())
    assert f"train on {', '.join(TRAIN_STYLES)}. {' and '.join(HELD_OUT_STYLES)} " in readme
