"""Quickstart shards and the held-out drawings on disk, and the command that writes them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES, concepts, taxonomy, tiles
from hypclip.data.quickstart.scenes import compose
from hypclip.data.quickstart.shards import write_shards, write_zero_shot
from hypclip.data.record import read_record
from hypclip.data.samples import samples_of
from hypclip.data.shards import find_shards
from hypclip.data.stream import StreamConfig
from hypclip.errors import DataError
from hypclip.evaluation.hierarchy import build_taxonomy
from tests.support.data import cheap_stream, take
from train.prepare_data import main

ART = Path(__file__).parents[3] / "hypclip" / "data" / "quickstart" / "art"


@pytest.mark.slow
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


def test_a_smaller_run_leaves_no_shard_of_a_larger_one_behind(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", 25, shard_size=5)
    kept = tmp_path / "train" / "notes.tar"
    kept.write_bytes(b"")
    manifest = write_shards(tmp_path, "train", 8, shard_size=5, seed=1)
    shards = sorted(path.name for path in (tmp_path / "train").iterdir())
    assert shards == ["00000.tar", "00001.tar", "manifest.json", "notes.tar"]
    assert [shard["name"] for shard in manifest["shards"]] == shards[:2]
    assert manifest["samples"] == sum(shard["samples"] for shard in manifest["shards"]) == 8


def test_an_interrupted_run_leaves_no_manifest(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", 5)
    with pytest.raises(DataError, match="held out"):
        write_shards(tmp_path, "train", 5, styles=["fluent"])
    assert not (tmp_path / "train" / "manifest.json").exists()


def test_shards_are_tars_that_others_read_too(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", 3)
    with tarfile.open(tmp_path / "train" / "00000.tar", errorlevel=2) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [f"{i:08d}.{e}" for i in range(3) for e in ("jpg", "json")]
        assert {(m.isreg(), m.mtime, m.mode) for m in members} == {(True, 0, 0o644)}
        for member in members:
            content = tar.extractfile(member)
            assert content is not None
            assert len(content.read()) == member.size


def test_training_and_validation_share_no_scene(tmp_path: Path) -> None:
    seen = {}
    for split in ("train", "validation"):
        write_shards(tmp_path, split, 150)
        samples = list(samples_of(str(tmp_path / split / "00000.tar")))
        seen[split] = (
            {sample["jpg"] for sample in samples},
            {json.loads(sample["json"])["caption"] for sample in samples},
        )
        assert len(seen[split][0]) == 150
    assert not seen["train"][0] & seen["validation"][0]
    assert len(seen["train"][1] & seen["validation"][1]) < 5


def test_jpeg_keeps_the_pictures(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", 40)
    errors = []
    for index, sample in enumerate(samples_of(str(tmp_path / "train" / "00000.tar"))):
        drawn = np.asarray(compose(0, "train", index).image, dtype=float)
        errors.append(np.abs(drawn - np.asarray(read_record(sample).image, dtype=float)).mean())
    assert np.median(errors) < 3
    assert max(errors) < 25  # half of the colour is gone from chequers as fine as JPEG's own grid


def test_training_reads_them_to_the_last_sample(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", 30, shard_size=10)
    stream = cheap_stream(StreamConfig(find_shards(str(tmp_path / "train")), 10, workers=0, max_bad_fraction=0.0))
    assert sorted(number for batch in take(stream, 3) for number in batch) == list(range(30))
    assert stream.state.seen.skipped.total() == 0
