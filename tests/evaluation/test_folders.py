"""Class folders as people have them: every format, folders of folders, what systems leave, links, accents."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image, features

from hypclip.errors import DataError
from hypclip.evaluation.folders import count_by_suffix, find_files, image_suffixes
from hypclip.evaluation.zero_shot import LabelledImages, embed_files, read_labelled_images, zero_shot
from tests.support.data import KnownModel

RED, BLUE = (255, 0, 0), (0, 0, 255)
AXES = {"red": (2.0, 0.0, 0.0), "blue": (0.0, 0.0, 2.0)}
FORMATS = {
    **{"a.png": "PNG", "a.jpg": "JPEG", "a.jpeg": "JPEG", "a.webp": "WEBP"},
    **{"a.bmp": "BMP", "a.tif": "TIFF", "a.tiff": "TIFF", "a.gif": "GIF", "a.jfif": "JPEG", "a.jpe": "JPEG"},
    **{"a.ppm": "PPM", "a.jp2": "JPEG2000", "a.ico": "ICO", "a.tga": "TGA", "a.apng": "PNG", "a.mpo": "MPO"},
    **{"A.BMP": "BMP", "A.Tif": "TIFF", "shot.2024.01.GIF": "GIF", "a.dib": "DIB", "a.pcx": "PCX", "a.qoi": "QOI"},
    **({"a.avif": "AVIF"} if features.check("avif") else {}),
}


def save(path: Path, colour: tuple[int, int, int] = RED, format: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0} if format == "MPO" else {}
    Image.new("RGB", (16, 16), colour).save(path, format, **lossless)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with an image each."""
    save(tmp_path / "images" / "r" / "1.png")
    save(tmp_path / "images" / "b" / "1.png", BLUE)
    (tmp_path / "classes.json").write_text('{"r": "red", "b": "blue"}')
    return tmp_path / "images"


def read(root: Path) -> LabelledImages:
    return read_labelled_images(root, root.parent / "classes.json")


def labelled(data: LabelledImages) -> dict[str, str]:
    return {
        file.relative_to(data.root).as_posix(): data.keys[label]
        for file, label in zip(data.files, data.labels, strict=True)
    }


# Formats --------------------------------------------------------------------------------------------------------------


def test_a_picture_of_every_format_is_scored(root: Path) -> None:
    for name, format in FORMATS.items():
        save(root / "r" / name, format=format)
    data = read(root)
    assert labelled(data) == {"b/1.png": "b", "r/1.png": "r", **{f"r/{name}": "r" for name in FORMATS}}
    assert data.warnings() == []

    class Reddish(KnownModel):
        """Tells red from blue, whatever a lossy format makes of them."""

        def embed_image(self, images, batch_size=128):
            rounded = [image.resize((1, 1)).point(lambda v: 255 * (v > 127)) for image in images]
            return super().embed_image(rounded)

    scores, _ = zero_shot(Reddish(AXES, {RED: AXES["red"], BLUE: AXES["blue"]}), data, ["{}"])
    assert scores == {"n": len(FORMATS) + 2, "top1": 1.0, "top5": 1.0, "mean_per_class": 1.0}


def test_what_needs_another_program_or_is_no_picture_is_no_format() -> None:
    suffixes = image_suffixes()
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif"} <= suffixes
    assert not {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".wmf", ".emf", ".h5", ".grib", ".txt", ".svg", ""} & suffixes


# Folders --------------------------------------------------------------------------------------------------------------


def test_folders_of_folders_belong_to_the_class_and_flat_ones_keep_their_order(root: Path) -> None:
    for name in ("2.png", "10.png", "cam1/1.png", "cam2/1.png", "cam2/day/1.jpg"):
        save(root / "r" / name)
    data = read(root)
    assert labelled(data) == {
        "b/1.png": "b",
        **{f"r/{name}": "r" for name in ("1.png", "10.png", "2.png", "cam1/1.png", "cam2/1.png", "cam2/day/1.jpg")},
    }
    assert data.files == sorted(data.files)


def test_what_systems_leave_is_passed_over_without_a_word(root: Path) -> None:
    left = ["._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/r/._1.png", ".ipynb_checkpoints/1-c.png"]
    left += ["@eaDir/1.png", ".git/config", "Icon\r", "$RECYCLE.BIN/x.png"]
    for folder in (root, root / "r", root / "b"):
        for name in left:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"no picture")
    data = read(root)
    assert labelled(data) == {"b/1.png": "b", "r/1.png": "r"}
    assert data.warnings() == []


def test_all_else_is_counted_and_named_once(root: Path) -> None:
    for name in ("r/notes.txt", "r/deep/more.TXT", "b/film.mp4", "b/photo.heic", "b/photo", "b/page.pdf", "b/art.svg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    save(root / "stray.png")
    (root / "cats.zip").write_bytes(b"")
    (root / "taxonomy.json").write_text("[]")
    data = read(root)
    assert labelled(data) == {"b/1.png": "b", "r/1.png": "r"}
    others, beside = data.warnings()
    assert others == (
        f"passed over 7 files of {root} that Pillow does not read: .txt 2 (r/deep/more.TXT), .heic 1 (b/photo.heic), "
        ".mp4 1 (b/film.mp4), …"
    )
    assert beside == f"passed over 2 files of {root} in no class folder: .png 1 (stray.png), .zip 1 (cats.zip)"


def test_files_without_an_ending_are_described_as_that(tmp_path: Path) -> None:
    assert count_by_suffix([tmp_path / "a", tmp_path / "b"], tmp_path) == "without an ending 2 (a)"


def test_links_are_followed_and_those_that_lead_nowhere_are_named(root: Path) -> None:
    save(root.parent / "elsewhere" / "2.png")
    (root / "r" / "more").symlink_to(root.parent / "elsewhere")
    (root / "r" / "3.png").symlink_to(root / "r" / "1.png")
    (root / "r" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "r" / "loop").symlink_to(root / "r")
    (root / "g").symlink_to(root / "nowhere")
    data = read(root)
    assert labelled(data) == {"b/1.png": "b", **{f"r/{name}": "r" for name in ("1.png", "3.png", "more/2.png")}}
    assert data.warnings() == [f"passed over 3 files of {root} that lead nowhere: r/gone.png, r/loop, g"]


def test_a_class_folder_that_is_a_link(root: Path) -> None:
    (root / "r").rename(root.parent / "elsewhere")
    (root / "r").symlink_to(root.parent / "elsewhere")
    assert labelled(read(root)) == {"b/1.png": "b", "r/1.png": "r"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("key_form", ["NFC", "NFD"])
def test_accents_and_spaces_are_compared_as_text(tmp_path: Path, form: str, key_form: str) -> None:
    save(tmp_path / "images" / unicodedata.normalize(form, "é ü 日本 x") / "1.png")
    key = unicodedata.normalize(key_form, "é ü 日本 x")
    (tmp_path / "classes.json").write_text(json.dumps({key: "name"}), encoding="utf-8")
    data = read(tmp_path / "images")
    assert data.labels == [0]
    assert data.keys == [unicodedata.normalize("NFC", key)]


def test_of_one_folder(root: Path) -> None:
    save(root / "r" / "sub" / "2.jpg")
    (root / "r" / "a.txt").write_text("")
    found = find_files(root / "r")
    assert found.images == [root / "r" / "1.png", root / "r" / "sub" / "2.jpg"]
    assert (found.others, found.broken) == ([root / "r" / "a.txt"], [])


# Refusals -------------------------------------------------------------------------------------------------------------


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "g").mkdir(), r"g names no class of .*: add the key 'g' or remove the folder"),
        (lambda r: save(r / "Red" / "1.png"), r"Red names no class .* this may be 'r': rename it"),
        (lambda r: save(r / "R" / "1.png"), r"R names no class .* this may be 'r': rename it"),
        (
            lambda r: save(r / "val" / "r" / "1.png"),
            r"it holds class folders itself; --images may be meant to be .*val",
        ),
        (lambda r: (r / "b" / "1.png").unlink(), r"class 'b' has no image: .*b holds no file"),
        (
            lambda r: (r / "b" / "1.png").rename(r / "b" / "1.heic"),
            r"class 'b' has no image: .*b holds only \.heic 1 \(b/1\.heic\); expected \.jpg",
        ),
        (lambda r: (r / "b" / "1.png").rename(r / "b" / ".1.png"), "class 'b' has no image: .* holds no file"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused_with_advice(root: Path, spoil: object, message: str) -> None:
    spoil(root)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        read(root)


def test_a_root_of_hidden_folders_holds_no_class(tmp_path: Path) -> None:
    touch(tmp_path / "images" / ".ipynb_checkpoints" / "a.png")
    (tmp_path / "classes.json").write_text('{"r": "red"}')
    with pytest.raises(DataError, match="holds no class folders"):
        read(tmp_path / "images")


def test_pictures_that_cannot_be_read_are_counted_and_the_first_are_named(root: Path) -> None:
    for number in range(5):
        (root / "r" / f"bad{number}.jpg").write_bytes(b"no picture")
    (root / "r" / "cut.png").write_bytes((root / "r" / "1.png").read_bytes()[:50])
    model = KnownModel(AXES, {RED: AXES["red"], BLUE: AXES["blue"]})
    with pytest.raises(DataError) as raised:
        embed_files(model, read(root).files, batch_size=2)
    assert str(raised.value).startswith(f"cannot read 6 of 8 images: {root}/r/bad0.jpg: ")
    assert f"; {root}/r/bad2.jpg: " in str(raised.value)
    assert "bad3" not in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_named(root: Path) -> None:
    save(root / "r" / "secret" / "1.png")
    (root / "r" / "secret").chmod(0)
    try:
        assert read(root).warnings() == [f"passed over 1 file of {root} that lead nowhere: r/secret"]
    finally:
        (root / "r" / "secret").chmod(0o700)


def test_a_class_folder_in_that_of_another_class_is_named(root: Path) -> None:
    """As a tree of animal/dog has it: the images of the dog count as animals."""
    save(root / "r" / "b" / "2.png", BLUE)
    save(root / "r" / "r" / "3.png")
    save(root / "r" / "other" / "4.png")
    data = read(root)
    assert labelled(data)["r/b/2.png"] == "r"
    assert data.warnings() == [
        "folders in class folders have names of other classes, and what is in them counts as the outer one: r/b; "
        f"where that is not meant, move them to {root}"
    ]
