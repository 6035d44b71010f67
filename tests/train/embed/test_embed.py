"""train/embed.py: pictures and texts into an index, by one process or two, killed and called again, asked wrongly."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import hypclip
from hypclip.evaluation.retrieval import read_pairs
from hypclip.geometry import cones, lorentz
from hypclip.indexing import units
from hypclip.indexing.parquet import read_points, read_space
from hypclip.indexing.units import first_samples
from hypclip.search.local.store import LocalStore
from hypclip.search.qdrant.store import QdrantStore
from tests.support.data import write_pairs
from tests.support.embedding import call, count_embedded, ids_of, make_folder, points_in
from tests.support.ports import free_port
from train.embed import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("embed"))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_embedded(monkeypatch)


# The whole way --------------------------------------------------------------------------------------------------------


def test_shards_and_folders_become_points_at_their_embeddings(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the very command of the demo."""
    demo = Path("Makefile").read_text().replace("\\\n", "").split("train/embed.py ")[1].splitlines()[0]
    names = {
        "$(RUN)/data/zero_shot": folder,
        "$(RUN)/checkpoint": folder / "checkpoint",
        "$(RUN)/data": folder / "data",
    }
    for name, path in {**names, "$(RUN)/index": tmp_path / "index"}.items():
        demo = demo.replace(name, str(path))
    assert main(demo.split()) == 0
    said = capsys.readouterr()
    assert said.out == f"93 points in collection 'default' of {tmp_path / 'index'}\n"
    assert "warning" not in said.err

    model = hypclip.load(folder / "checkpoint")
    record = read_pairs([str(folder / "data" / "validation" / "00000.tar")], 6).records[2]
    with LocalStore(tmp_path / "index") as store:
        collection = store.describe("default")
        found = store.get("default", [f"{record.key}/image", f"{record.key}/text", "a/1.png", "a/square"])
    assert collection.count == 6 * 2 + 2 + 3 + 76  # scenes, pictures, names, families and kinds
    assert collection.space.model_id == model.model_id
    assert collection.space.curv == model.curv.item()
    assert list(found.modality) == ["image", "text", "image", "text"]
    assert found.metadata[0] == {"caption": record.caption, "kind": "scene"}
    assert found.metadata[1] == {"caption": record.caption, "kind": "caption"}
    assert found.metadata[2] == {"class": "red square", "kind": "drawing"}
    assert found.metadata[3] == {"class": "red square", "text": "square", "kind": "name"}
    expected = torch.cat(
        [
            model.embed_image([record.image]),
            model.embed_text([record.caption]),
            model.embed_image([Image.new("RGB", (20, 20), "red")]),
            model.embed_text(["square"]),
        ]
    )
    torch.testing.assert_close(found.vectors, expected, atol=1e-6, rtol=1e-5)
    assert not (tmp_path / "index" / "parts").exists()


def test_the_general_phrases_of_a_taxonomy_become_text_points(folder: Path, tmp_path: Path) -> None:
    edges = tmp_path / "is_a.json"
    edges.write_text(json.dumps([["a red square", "a square"], ["a square", "a shape"], ["a disc", "a shape"]]))
    assert call(folder, "--index", tmp_path / "index", "--taxonomy", edges) == 0
    found = points_in(tmp_path / "index")
    assert {point_id: (modality, more) for point_id, (_, modality, more) in found.items()} == {
        "concept/a shape": ("text", {"phrase": "a shape", "level": 0}),
        "concept/a square": ("text", {"phrase": "a square", "level": 1}),
    }
    wanted = hypclip.load(folder / "checkpoint").embed_text(["a square"])[0]
    assert found["concept/a square"][0] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert call(folder, "--index", tmp_path / "emoji", "--taxonomy", "emoji") == 0
    assert len(points_in(tmp_path / "emoji")) == 76  # 11 families and 65 kinds: all names of one kind are held out
    assert call(folder, "--index", tmp_path / "none", "--taxonomy", "animals") == 1


def test_embedding_again_replaces_points(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert call(folder, "--index", tmp_path / "index", "--shards", folder / "pairs", "--samples", 4) == 0
        assert points_in(tmp_path / "index").keys() == ids_of(0, 1, 2, 3)


def test_batches_make_no_difference(folder: Path, tmp_path: Path, embedded: list[int]) -> None:
    arguments = ["--shards", folder / "pairs", "--threads", 2]
    assert call(folder, "--index", tmp_path / "a", *arguments, "--batch-size", 2) == 0
    assert embedded == [2, 1, 2, 2, 1, 2, 2]
    assert call(folder, "--index", tmp_path / "b", *arguments) == 0
    assert embedded[7:] == [3, 5, 4]
    a, b = points_in(tmp_path / "a"), points_in(tmp_path / "b")
    assert a.keys() == b.keys() == ids_of(*range(12))
    for point_id, (vector, *rest) in a.items():
        assert vector == pytest.approx(b[point_id][0], abs=1e-6)
        assert rest == list(b[point_id][1:])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(1, [1]), (3, [None]), (4, [None, 1]), (8, [None, None]), (9, [None, None, 1]), (99, [None, None, None])],
)
def test_the_first_samples_are_those_of_the_first_shards(
    folder: Path, samples: int, expected: list[int | None]
) -> None:
    shards = sorted(map(str, (folder / "pairs").glob("*.tar")))
    assert first_samples(shards, samples) == list(zip(shards, expected, strict=False))


# Two processes --------------------------------------------------------------------------------------------------------


def work(rank: int, port: int, arguments: list[str]) -> None:
    """Be one of two processes as `accelerate launch --multi_gpu` starts them."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    assert main(arguments) == 0
    Path(arguments[1]).with_name(f"{rank} is through").touch()


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folder: Path, tmp_path: Path) -> None:
    arguments = ["--shards", str(folder / "pairs"), "--samples", "10", "--checkpoint", str(folder / "checkpoint")]
    arguments += ["--images", str(folder / "images"), "--classes", str(folder / "classes.json")]
    torch.multiprocessing.spawn(work, (free_port(), ["--index", str(tmp_path / "two"), *arguments]), nprocs=2)
    assert {p.name for p in tmp_path.glob("*through")} == {"0 is through", "1 is through"}
    assert main(["--index", str(tmp_path / "one"), *arguments]) == 0
    one, two = points_in(tmp_path / "one"), points_in(tmp_path / "two")
    assert one == two
    assert one.keys() == ids_of(*range(10)) | {"a/1.png", "b/1.png", "a/red square", "a/square", "b/blue square"}


def test_pictures_of_every_format_and_of_folders_in_folders_are_points_named_by_their_way(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    ids = {"a/1.bmp", "a/1.tif", "a/cam1/1.png", "b/cam1/1.png", "b/cam1/day/1.gif"}
    for number, name in enumerate(sorted(ids)):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(images / name)
    for name in ("a/._1.png", "a/.ipynb_checkpoints/1.png", "b/notes.txt"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"no picture")
    (tmp_path / "classes.json").write_text('{"a": ["red square", "square", "square"], "b": "blue square"}')
    pictures = ["--images", images, "--classes", tmp_path / "classes.json"]
    assert call(folder, "--index", tmp_path / "index", *pictures) == 0
    found = points_in(tmp_path / "index")
    assert found.keys() == ids | {"a/red square", "a/square", "b/blue square"}
    assert {found[name][2]["class"] for name in ids if name.startswith("b/")} == {"blue square"}
    assert len({tuple(found[name][0]) for name in ids}) == len(ids)
    assert ".txt 1 (b/notes.txt)" in capfd.readouterr().err


# Killed ---------------------------------------------------------------------------------------------------------------


def work_until_killed(arguments: list[str]) -> None:
    """Be a process that is killed while it embeds the second shard."""
    read = units.read_record

    def read_or_die(sample: dict[str, Any], *reading: Any) -> Any:
        if sample["__key__"] == "0005":
            os.kill(os.getpid(), signal.SIGKILL)
        return read(sample, *reading)

    units.read_record = read_or_die  # type: ignore[attr-defined]
    main(arguments)


@pytest.mark.slow
def test_a_killed_run_goes_on_at_the_shard_it_was_in(folder: Path, tmp_path: Path, embedded: list[int]) -> None:
    index = tmp_path / "index"
    arguments = ["--index", str(index), "--shards", str(folder / "pairs"), "--checkpoint", str(folder / "checkpoint")]
    process = torch.multiprocessing.get_context("spawn").Process(
        target=work_until_killed, args=([*arguments, "--threads", "1", "--batch-size", "1"],)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done, *scratch = sorted((index / "parts").iterdir(), key=lambda path: path.name.startswith("."))
    assert re.fullmatch(r"000-[0-9a-f]{8}-[0-9a-f]{12}\.parquet", done.name)
    assert [path.name.startswith(".001-") for path in scratch] == [True]

    assert main(arguments) == 0
    assert embedded == [5, 4]
    assert points_in(index).keys() == ids_of(*range(12))
    assert not (index / "parts").exists()


def test_a_changed_shard_is_embedded_again(
    folder: Path, tmp_path: Path, embedded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write_pairs(tmp_path / "pairs", [2, 3])
    arguments = ["--parquet", tmp_path / "parts", "--shards", tmp_path / "pairs"]
    assert call(folder, *arguments) == 0
    assert call(folder, *arguments) == 0
    assert embedded == [2, 3]
    os.utime(shards[1], (0, 0))
    assert call(folder, *arguments) == 0
    assert embedded == [2, 3, 3]
    assert call(folder, *arguments, "--samples", 4) == 0
    assert embedded == [2, 3, 3, 2]
    points = [i for part in (tmp_path / "parts").glob("*.parquet") for block in read_points(part) for i in block.ids]
    assert sorted(points) == sorted(ids_of(0, 1, 2, 3))
    earlier = [file for file in (tmp_path / "parts").iterdir() if file.suffix != ".parquet"]
    assert [{i for block in read_points(file) for i in block.ids} for file in earlier] == [ids_of(2, 3, 4)] * 2
    said = capsys.readouterr().out
    assert said.count("1 files of the same data as it was, or of other options, have dated names now: ") == 2


def test_a_part_that_is_damaged_is_embedded_again(
    folder: Path, tmp_path: Path, embedded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--parquet", tmp_path, "--shards", folder / "pairs"]
    assert call(folder, *arguments) == 0
    part = next(tmp_path.glob("001-*"))
    part.write_bytes(b"")
    assert call(folder, *arguments) == 0
    assert embedded == [3, 5, 4, 5]
    said = capsys.readouterr().err
    assert f"warning: cannot read {part} as Parquet" in said
    assert f"2 of 3 files are in {tmp_path} already" in said


def test_the_parts_of_another_model_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--parquet", tmp_path, "--shards", folder / "pairs"]
    assert call(folder, *arguments) == 0
    assert call(folder, *arguments, "--checkpoint", folder / "other") == 1
    assert re.search(r"error: \S*000-\S*\.parquet holds points of model 'hypclip-", capsys.readouterr().err)


# Parquet files out and in ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts")
    assert call(folder, "--parquet", path, "--shards", folder / "pairs") == 0
    return path


def test_parquet_files_are_for_others_and_for_a_later_import(
    folder: Path, tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(parts.iterdir())
    assert [file.name.split("-")[0] for file in files] == ["000", "001", "002"]
    assert {i for file in files for block in read_points(file) for i in block.ids} == ids_of(*range(12))
    assert main(["--from-parquet", str(parts), str(files[0]), "--index", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == f"24 points in collection 'default' of {tmp_path / 'a'}\n"
    assert sorted(parts.iterdir()) == files
    assert call(folder, "--index", tmp_path / "b", "--shards", folder / "pairs") == 0
    assert points_in(tmp_path / "a") == points_in(tmp_path / "b")


def test_files_that_name_no_model_take_that_of_the_checkpoint(
    folder: Path, tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(next(parts.glob("000-*"))).replace_schema_metadata(None), foreign)
    arguments = ["--from-parquet", str(foreign), "--index", str(tmp_path / "index")]
    assert main(arguments) == 1
    assert "foreign.parquet does not name the model" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()
    assert call(folder, *arguments) == 0
    assert points_in(tmp_path / "index").keys() == ids_of(0, 1, 2)


def test_an_import_is_of_one_model(
    folder: Path, tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    arguments = ["--shards", folder / "pairs", "--samples", 2]
    assert call(folder, "--parquet", other, *arguments, "--checkpoint", folder / "other") == 0
    assert main(["--from-parquet", str(parts), str(other), "--index", str(tmp_path / "index")]) == 1
    assert "import them separately" in capsys.readouterr().err
    assert call(folder, "--from-parquet", other, "--index", tmp_path / "index") == 1
    assert f"holds points of {read_space(next(other.iterdir()))}, not of" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()


def test_points_go_to_qdrant_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"path:{tmp_path / 'qdrant'}"
    arguments = ["--qdrant", url, "--shards", folder / "pairs", "--samples", 4]
    assert call(folder, *arguments) == 1
    assert "--qdrant needs --work DIR" in capsys.readouterr().err
    assert call(folder, *arguments, "--work", tmp_path / "work") == 0
    assert capsys.readouterr().out == f"8 points in collection 'default' of {url}\n"
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["thumbnails.sqlite3"]
    with QdrantStore.connect(url) as store:
        assert set(store.get("default", ["0000/image"]).ids) == {"0000/image"}


# Asked wrongly --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "nothing to embed"),
        (["--images", "nowhere"], "belong together"),
        (["--classes", "nowhere"], "belong together"),
        (["--shards", "nowhere.tar"], "nowhere.tar"),
        (["--shards", "x.tar", "--checkpoint", "nowhere"], "nowhere is not a checkpoint directory"),
        (["--shards", "PAIRS", "--checkpoint", "SPHERE"], "has geometry 'sphere'; an index needs 'lorentz'"),
        (["--shards", "PAIRS", "--samples", "0"], "--samples must be at least 1, got 0"),
        (["--shards", "PAIRS", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--shards", "PAIRS", "--threads", "-1"], "--threads must be at least 1, got -1"),
        (["--from-parquet", "x", "--shards", "PAIRS"], "--from-parquet imports and does nothing else"),
        (["--from-parquet", "x.parquet"], "cannot read x.parquet as Parquet"),
        (["--from-parquet", "PAIRS"], "there is no .parquet file in"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    index = tmp_path / "index"
    names = {"PAIRS": str(folder / "pairs"), "SPHERE": str(folder / "sphere")}
    assert call(folder, "--index", index, *(names.get(word, word) for word in extra)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not index.exists()


def test_a_model_is_needed_to_embed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--index", str(tmp_path / "index"), "--shards", str(folder / "pairs")]) == 1
    assert "--checkpoint DIR" in capsys.readouterr().err
    assert call(folder, "--parquet", tmp_path / "p", "--work", tmp_path / "w", "--shards", folder / "pairs") == 1
    assert "leave out --work" in capsys.readouterr().err


@pytest.mark.parametrize("targets", [[], ["--index", "a", "--qdrant", "b"], ["--index", "a", "--parquet", "b"]])
def test_points_go_to_one_place(targets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--checkpoint", "x", "--shards", "y", *targets])
    assert "--index" in capsys.readouterr().err


def test_the_collection_of_another_model_is_refused_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], embedded: list[int]
) -> None:
    arguments = ["--index", tmp_path / "index", "--shards", folder / "pairs"]
    assert call(folder, *arguments) == 0
    del embedded[:]
    assert call(folder, *arguments, "--checkpoint", folder / "other") == 1
    assert "collection 'default' holds points of model" in capsys.readouterr().err
    assert embedded == []


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
