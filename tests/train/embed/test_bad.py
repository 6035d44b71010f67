"""train/embed.py of bad samples, damaged shards and captions of other tools."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import torch

import hypclip
from tests.support.data import encoded, pair, quadrants, write_pairs, write_tar
from tests.support.embedding import call, count_embedded, ids_of, make_folder, points_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("embed"))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_embedded(monkeypatch)


# Bad samples, damaged shards ------------------------------------------------------------------------------------------


def test_bad_samples_are_counted_and_passed_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write_pairs(tmp_path / "pairs", [3, 4], {1: "", 4: b"\xff", 5: "long " * 2**14})
    write_tar(tmp_path / "pairs" / "002.tar", [*pair("0007", image=b"no picture"), *pair("0008"), *pair("\udcff", "a")])
    images = tmp_path / "images"
    for name, content in (("good", encoded(quadrants())), ("bad", b"no picture")):
        (images / "a").mkdir(parents=True, exist_ok=True)
        (images / "a" / f"{name}.png").write_bytes(content)
    pictures = ["--images", images, "--classes", folder / "classes.json"]
    assert call(folder, "--index", tmp_path / "index", "--shards", tmp_path / "pairs", *pictures) == 0
    named = {"a/good.png", "a/red square", "a/square", "b/blue square", "\\xff/image", "\\xff/text"}
    assert points_in(tmp_path / "index").keys() == ids_of(0, 2, 3, 6, 8) | named
    said = capsys.readouterr().err
    why = "found png, an empty txt; expected txt, or json with 'caption'"
    told = f"skipped 1 of 3 samples: no caption 1; for example no caption: 0001 of {shards[0]}: {why}\n"
    assert f"warning: {shards[0]}: {told}" in said
    assert f"warning: {shards[1]}: skipped 2 of 4 samples: unreadable text 1, caption too long 1; for example " in said
    assert f"unreadable image 1; for example unreadable image: {images}/a/bad.png: " in said
    assert "warning: skipped 5 of 15 samples: " in said


def test_what_can_be_read_of_a_damaged_shard_is_kept_where_that_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = write_pairs(tmp_path / "pairs", [6])
    with tarfile.open(shard) as tar:
        cut = tar.getmember("0004.png").offset_data + 10
    Path(shard).write_bytes(Path(shard).read_bytes()[:cut])
    arguments = ["--index", tmp_path / "index", "--shards", shard]
    assert call(folder, *arguments) == 1
    assert f"error: {shard}: cannot read shard {shard}: unexpected end of data" in capsys.readouterr().err
    assert call(folder, *arguments, "--keep-damaged") == 0
    assert points_in(tmp_path / "index").keys() == ids_of(0, 1, 2, 3)
    lost = f"warning: a damaged shard, of which a part is lost: {shard}: unexpected end of data\n"
    assert capsys.readouterr().err.count(lost) == 1


def test_several_captions_of_a_sample_are_points_each(folder: Path, tmp_path: Path) -> None:
    files = [("a.png", encoded(quadrants())), ("a.json", b'{"TEXT": ["one", "two"]}'), ("a.txt", b"another")]
    shard = write_tar(tmp_path / "0.tar", [*files, *pair("b")])
    assert call(folder, "--index", tmp_path / "index", "--shards", shard, "--caption-field", "TEXT") == 0
    found = points_in(tmp_path / "index")
    assert {point_id: metadata for point_id, (_, _, metadata) in found.items()} == {
        "a/image": {"caption": "one", "captions": ["one", "two"]},
        "a/text": {"caption": "one"},
        "a/text/2": {"caption": "two"},
        "b/image": {"caption": "b"},
        "b/text": {"caption": "b"},
    }
    expected = hypclip.load(folder / "checkpoint").embed_text(["two"])[0]
    torch.testing.assert_close(torch.tensor(found["a/text/2"][0]), expected, atol=1e-6, rtol=1e-5)


def test_a_shard_that_cannot_be_read_is_named_and_the_others_finish(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], embedded: list[int]
) -> None:
    shards = write_pairs(tmp_path / "pairs", [2, 3, 4])
    whole = Path(shards[1]).read_bytes()
    Path(shards[1]).write_bytes(b"no tar file" * 1000)
    arguments = ["--index", tmp_path / "index", "--shards", tmp_path / "pairs"]
    assert call(folder, *arguments) == 1
    assert points_in(tmp_path / "index").keys() == ids_of(0, 1, 5, 6, 7, 8)
    said = capsys.readouterr()
    assert f"error: {shards[1]}: cannot read shard {shards[1]}" in said.err
    assert f"could not embed 1 of 3: {shards[1]}; mend" in said.err
    assert said.out == f"12 points in collection 'default' of {tmp_path / 'index'}\n"

    Path(shards[1]).write_bytes(whole)
    assert call(folder, *arguments) == 0
    assert embedded == [2, 4, 3]
    assert points_in(tmp_path / "index").keys() == ids_of(*range(9))


def test_a_stream_that_breaks_off_is_an_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_pairs(tmp_path / "pairs", [6])
    broken = f"pipe:head -c 6000 {shards[0]}"
    assert call(folder, "--parquet", tmp_path / "parts", "--shards", broken) == 1
    assert f"error: {broken}: cannot read shard {broken}" in capsys.readouterr().err
    assert list((tmp_path / "parts").iterdir()) == []


def test_keys_that_come_in_two_shards_are_refused_and_the_parts_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", pair("same") + pair(name))
    index = tmp_path / "index"
    assert call(folder, "--index", index, "--shards", tmp_path / "a.tar", tmp_path / "b.tar") == 1
    assert re.search(r"the id 'same/image' is in both \S*a-\S*\.parquet and \S*b-\S*\.parquet", capsys.readouterr().err)
    assert len(list((index / "parts").iterdir())) == 2


def test_samples_that_are_all_bad_are_an_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = write_pairs(tmp_path / "pairs", [2], {0: "", 1: ""})
    assert call(folder, "--index", tmp_path / "index", "--shards", shard) == 1
    assert "there is nothing usable among 2 samples" in capsys.readouterr().err
