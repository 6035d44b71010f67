"""Quickstart shards and the held-out drawings on disk, and the command that writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES, concepts, taxonomy, tiles
from hypclip.data.quickstart.scenes import compose
from hypclip.data.quickstart.shards import write_shards, write_zero_shot
from hypclip.data.record import read_record
from hypclip.data.shards import samples_of
from hypclip.errors import DataError
from hypclip.evaluation.hierarchy import build_taxonomy
from train.prepare_data import main

ART = Path(__file__).parent.parent / "hypclip" / "data" / "quickstart" / "art"


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", "train", 25, shard_size=10)
    two = write_shards(tmp_path / "two", "train", 25, shard_size=10, workers=2)
    assert one == two
    assert [s["samples"] for s in one["shards"]] == [10, 10, 5]
    for shard in one["shards"]:
        contents = [(tmp_path / run / "train" / shard["name"]).read_bytes() for run in ("one", "two")]
        assert contents[0] == contents[1]
        assert hashlib.sha256(contents[0]).hexdigest() == shard["sha256"]
    assert json.loads((tmp_path / "one" / "train" / "manifest.json").read_text()) == one


def test_a_shard_reads_back_as_the_scenes(tmp_path: Path) -> None:
    write_shards(tmp_path, "validation", 4, seed=5)
    records = [read_record(sample) for sample in samples_of(str(tmp_path / "validation" / "00000.tar"))]
    assert len(records) == 4
    for index, record in enumerate(records):
        scene = compose(5, "validation", index)
        assert record.caption == scene.caption
        rows = scene.noun_chunks + scene.ref_exps
        assert [b.phrase for b in record.boxes] == [scene.caption[r[0] : r[1]] for r in rows]
        assert [(b.x0, b.y0, b.x1, b.y1, b.score) for b in record.boxes] == [tuple(r[2:]) for r in rows]


def test_held_out_drawings_have_their_names_and_hierarchy(tmp_path: Path) -> None:
    written = write_zero_shot(tmp_path)
    classes = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    assert classes == {c.code: c.name for c in concepts()}
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert len(files) == written == sum(len(set(c.styles) & set(HELD_OUT_STYLES)) for c in concepts())
    assert {f.stem for f in files} == set(HELD_OUT_STYLES)
    drawn = concepts()[100]
    with Image.open(tmp_path / "images" / drawn.code / "fluent.png") as image:
        ground = Image.new("RGB", (64, 64), "white")
        tile = tiles("fluent")[drawn.index]
        assert tile is not None
        ground.paste(tile, (0, 0), tile)
        assert image.tobytes() == ground.tobytes()
    edges = json.loads((tmp_path / "taxonomy.json").read_text())
    graph = build_taxonomy(edges)
    assert set(classes) <= set(graph)
    assert sum(1 for node in graph if graph.out_degree(node) == 0) == 1


def test_the_taxonomy_is_name_kind_family_root() -> None:
    parents = dict(taxonomy())
    for c in concepts():
        assert parents[parents[parents[c.code]]] == "root"
        assert parents[c.code] == f"kind:{c.kind}"
    assert len({c.kind for c in concepts()}) == 66
    assert len({c.family for c in concepts()}) == 11


def test_no_train_style_is_held_out_and_every_sheet_has_its_licence_in_the_package() -> None:
    assert not set(TRAIN_STYLES) & set(HELD_OUT_STYLES)
    table = (ART / "README.md").read_text(encoding="utf-8")
    sheets = [p.name for p in ART.glob("*.webp")]
    assert {s.removesuffix(".webp") for s in sheets} == {*TRAIN_STYLES, *HELD_OUT_STYLES}
    assert all(name in table for name in sheets)
    for style in TRAIN_STYLES:
        for concept, tile in zip(concepts(), tiles(style), strict=True):
            assert (tile is not None) == (style in concept.styles)


def test_the_command_writes_all_three_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "quickstart",
        "--output",
        str(tmp_path),
        "--scenes",
        "12",
        "--validation-scenes",
        "3",
        "--workers",
        "1",
    ]
    assert main(arguments) == 0
    assert "15 scenes" in capsys.readouterr().out
    assert json.loads((tmp_path / "train" / "manifest.json").read_text())["samples"] == 12
    assert json.loads((tmp_path / "validation" / "manifest.json").read_text())["samples"] == 3
    assert (tmp_path / "zero_shot" / "classes.json").is_file()


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="at least 1"):
        write_shards(tmp_path, "train", 0)
    assert main(["quickstart", "--output", str(tmp_path), "--scenes", "0"]) == 1
    assert main(["quickstart", "--output", str(tmp_path), "--scenes", "2", "--styles", "fluent", "--workers", "1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
