"""Originals: what is below the media root and a picture, and nothing else."""

import base64
import io
import os

import pytest
from PIL import Image

from hypclip.search.thumbnails import Original
from serve.errors import InvalidImage, LimitExceeded
from serve.inputs.originals import read_original
from serve.settings import Settings
from tests.support.serving import encoded, png_header, quadrants

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png())
    return tmp_path / "root"


def png(size=(30, 20)) -> bytes:
    return base64.b64decode(encoded(quadrants(size)))


def read(root, file, start=0, length=None, **settings):
    return read_original(root, Original(file, start, length), Settings(**settings))


def test_a_file_below_the_root_is_shown_anew(root):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "SECRET"
    photo = base64.b64decode(encoded(quadrants((300, 200)), "JPEG", exif=exif.tobytes()))
    (root / "folder" / "é 1.jpg").write_bytes(photo)
    found = read(root, "folder/é 1.jpg")
    assert b"SECRET" in photo
    assert b"SECRET" not in found
    image = Image.open(io.BytesIO(found))
    assert (image.format, image.size) == ("WEBP", (200, 300))


def test_a_member_of_a_tar_is_shown(root):
    (root / "0.tar").write_bytes(b"x" * 512 + png() + b"x" * 512)
    image = Image.open(io.BytesIO(read(root, "0.tar", 512, len(png()))))
    assert image.size == (30, 20)
    assert read(root, "0.tar", 10**9, 5) is None
    assert read(root, "0.tar", 512, 10**6) is None
    assert read(root, "0.tar", 512, 0) is None


def test_very_large_ones_are_shown_smaller(root):
    (root / "a.png").write_bytes(png((5000, 60)))
    assert Image.open(io.BytesIO(read(root, "a.png"))).size == (4096, 49)


@pytest.mark.parametrize(
    "file",
    ["../secret.png", "folder/../../secret.png", "folder/../a.png", "{root}/../secret.png", "{root}/a.png",
     "/etc/passwd", "", ".", "..", "folder", "nothing.png", "a.png/x", "a\0.png", "a.png\0", "x" * 5000],
)  # fmt: skip
def test_no_way_leads_out_of_the_root(root, file):
    (root / "a.png").write_bytes(png())
    assert read(root, "a.png") is not None
    assert read(root, file.format(root=root)) is None


def test_no_link_is_followed(root):
    (root / "file.png").symlink_to(root.parent / "secret.png")
    (root / "out").symlink_to(root.parent)
    (root / "inside.png").write_bytes(png())
    (root / "alias.png").symlink_to("inside.png")
    for file in ("file.png", "out/secret.png", "alias.png"):
        assert read(root, file) is None
    (root.parent / "link").symlink_to(root)
    assert read(root.parent / "link", "inside.png") is not None


def test_what_is_no_file_is_not_waited_for(root):
    os.mkfifo(root / "pipe.png")
    assert read(root, "pipe.png") is None


def test_a_root_that_is_gone(root):
    assert read(root / "none", "a.png") is None


@pytest.mark.parametrize(
    "content",
    [SVG, b"", b"%PDF-1.7 x", b"%!PS-Adobe\n", b"\x89PNG\r\n\x1a\n", png()[:-40], b"P6 1 1 255 abc", b"<html>"],
)
def test_what_is_no_picture_is_not_shown(root, content):
    (root / "a.png").write_bytes(content)
    if content:
        with pytest.raises(InvalidImage):
            read(root, "a.png")
    else:
        assert read(root, "a.png") is None


def test_the_limits_of_images_hold(root):
    (root / "bomb.png").write_bytes(base64.b64decode(png_header(100_000, 100_000)))
    with pytest.raises(LimitExceeded, match="MAX_IMAGE_PIXELS"):
        read(root, "bomb.png")
    (root / "large.png").write_bytes(png() + b"x" * 2000)
    with pytest.raises(LimitExceeded, match="MAX_IMAGE_BYTES"):
        read(root, "large.png", max_image_bytes=1000)
    (root / "long.png").write_bytes(png((1000, 2)))
    with pytest.raises(LimitExceeded, match="MAX_IMAGE_ASPECT"):
        read(root, "long.png")
