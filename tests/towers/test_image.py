import io
import random
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from PIL.Image import Transpose

from hypclip.client.rgb import to_rgb
from hypclip.data import image as data_image
from hypclip.data.image import decode, to_pixels
from hypclip.towers.image import evaluation_transform
from tests.support.data import encoded, quadrants

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def reopened(image: Image.Image, format: str, **options) -> Image.Image:
    """Save and open again, as a file would come in."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return Image.open(buffer)


def pixels(*rows: list[tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def colours(image: Image.Image) -> list[list[tuple[int, ...]]]:
    assert image.mode == "RGB"
    return [[image.getpixel((x, y)) for x in range(image.width)] for y in range(image.height)]


# Modes ----------------------------------------------------------------------------------------------------------------


def test_rgb_stays_as_it_is():
    image = pixels([RED, GREEN], [BLUE, WHITE])
    assert colours(to_rgb(image)) == [[RED, GREEN], [BLUE, WHITE]]
    assert colours(to_rgb(to_rgb(image))) == [[RED, GREEN], [BLUE, WHITE]]


@pytest.mark.parametrize("colour", [RED, (10, 120, 200), WHITE, BLACK])
def test_cmyk_jpeg_is_not_inverted(colour):
    image = reopened(Image.new("RGB", (16, 16), colour).convert("CMYK"), "JPEG", quality=95)
    assert image.mode == "CMYK"
    assert np.abs(np.array(colours(to_rgb(image))) - colour).max() <= 6


@pytest.mark.parametrize("kind, value", [(1, b"\6\0\0\0"), (3, b"\6\0\0\0"), (4, b"\6\0\0\0")])
def test_an_orientation_of_any_type_turns_the_picture_everywhere(kind, value):
    entry = struct.pack("<HHI", 0x0112, kind, 1) + value
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    photo = encoded(quadrants(), "JPEG", quality=95, exif=exif)
    assert data_image.orientation(photo) == (6, (40, 20))
    shown = to_rgb(Image.open(io.BytesIO(photo)))
    assert shown.size == (20, 40)
    assert torch.equal(decode(photo), to_pixels(shown))


def test_palettes_become_their_colours():
    image = reopened(pixels([RED, GREEN, BLUE]).convert("P"), "PNG")
    assert image.mode == "P"
    assert colours(to_rgb(image)) == [[RED, GREEN, BLUE]]


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    image = reopened(image, "PNG", transparency=1)
    assert image.mode == "P"
    assert colours(to_rgb(image)) == [[RED, WHITE]]


def test_a_transparent_colour_is_white():
    image = reopened(pixels([RED, GREEN, BLACK]), "PNG", transparency=GREEN)
    assert image.mode == "RGB"
    assert colours(to_rgb(image)) == [[RED, WHITE, BLACK]]


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]):
        image.putpixel((x, 0), pixel)
    assert colours(to_rgb(reopened(image, "PNG"))) == [[RED, WHITE, (204, 204, 204)]]


def test_grey_with_transparency_lies_on_white():
    image = Image.new("LA", (3, 1))
    for x, pixel in enumerate([(100, 255), (100, 0), (0, 51)]):
        image.putpixel((x, 0), pixel)
    image = reopened(image, "PNG")
    assert image.mode == "LA"
    assert colours(to_rgb(image)) == [[(100, 100, 100), WHITE, (204, 204, 204)]]


def test_grey_and_black_and_white():
    assert colours(to_rgb(Image.fromarray(np.array([[0, 130, 255]], dtype=np.uint8)))) == [[BLACK, (130,) * 3, WHITE]]
    bits = reopened(Image.fromarray(np.array([[True, False]])), "PNG")
    assert bits.mode == "1"
    assert colours(to_rgb(bits)) == [[WHITE, BLACK]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format):
    values = np.array([[0, 10 * 257, 32768, 65535]], dtype=np.uint16)
    image = reopened(Image.fromarray(values), format)
    assert image.mode.startswith("I;16")
    assert colours(to_rgb(image)) == [[BLACK, (10,) * 3, (127,) * 3, WHITE]]


def test_sixteen_bits_with_a_transparent_grey_are_scaled_too():
    image = reopened(Image.fromarray(np.array([[0, 257, 32768]], dtype=np.uint16)), "PNG", transparency=257)
    assert "transparency" in image.info
    assert colours(to_rgb(image)) == [[BLACK, (1, 1, 1), (127,) * 3]]


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_moving_picture_is_the_frame_that_it_stands_at(form):
    """The first where it was opened; those that ImageSequence goes through are different pictures."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    image = reopened(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert colours(to_rgb(image)) == [[RED] * 4] * 4
    shown = [colours(to_rgb(frame)) for frame in ImageSequence.Iterator(image)]
    assert shown == [[[colour] * 4] * 4 for colour in (RED, GREEN, BLUE)]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, None),
        (2, Transpose.FLIP_LEFT_RIGHT),
        (3, Transpose.ROTATE_180),
        (4, Transpose.FLIP_TOP_BOTTOM),
        (5, Transpose.TRANSPOSE),
        (6, Transpose.ROTATE_270),
        (7, Transpose.TRANSVERSE),
        (8, Transpose.ROTATE_90),
    ],
)
def test_pictures_are_turned_as_their_exif_tag_says(orientation, turn):
    stored = pixels([RED, GREEN, BLUE], [WHITE, BLACK, (9, 9, 9)])
    exif = Image.Exif()
    exif[274] = orientation
    image = reopened(stored, "PNG", exif=exif)
    assert colours(to_rgb(image)) == colours(stored if turn is None else stored.transpose(turn))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_was_turned_is_not_turned_again(format):
    """Records hold pictures that were turned when they were read, and embedding turns what it gets."""
    exif = Image.Exif()
    exif[274] = 6
    once = to_rgb(reopened(pixels([RED] * 32, [BLUE] * 32), format, exif=exif))
    assert once.size == (2, 32)
    assert colours(to_rgb(once)) == colours(once)
    assert colours(to_rgb(once.crop((0, 0, 2, 16)))) == colours(once)[:16]


def test_a_photo_on_its_side_stands_up():
    """Orientation 6: the left edge of what is stored is the top."""
    exif = Image.Exif()
    exif[274] = 6
    image = reopened(pixels([RED, GREEN, BLUE]), "PNG", exif=exif)
    assert colours(to_rgb(image)) == [[RED], [GREEN], [BLUE]]


# Files ----------------------------------------------------------------------------------------------------------------


def noise(mode: str = "RGB") -> Image.Image:
    rows = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    return Image.fromarray(rows).convert(mode)


def oriented(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
FILES = {
    **{f"chroma {n}": encoded(noise(), "JPEG", subsampling=n) for n in range(3)},
    "progressive": encoded(noise(), "JPEG", progressive=True),
    "grey": encoded(noise("L"), "JPEG"),
    "CMYK": encoded(noise("CMYK"), "JPEG"),
    **{f"orientation {n}": encoded(noise(), "JPEG", exif=oriented(n)) for n in range(10)},
    "CMYK on its side": encoded(noise("CMYK"), "JPEG", exif=oriented(6)),
    "YCCK": encoded(noise("CMYK"), "JPEG").replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2", 1),
    "grey on its side": encoded(noise("L"), "JPEG", exif=oriented(8)),
    "progressive on its side": encoded(noise(), "JPEG", progressive=True, exif=oriented(5)),
    "no YCbCr": encoded(noise(), "JPEG", keep_rgb=True),
    "orientation in XMP": encoded(noise(), "JPEG", xmp=XMP),
    "two pictures": encoded(noise(), "MPO", save_all=True, append_images=[noise("L").convert("RGB")]),
    "PNG": encoded(noise(), "PNG"),
    "PNG on its side": encoded(noise(), "PNG", exif=oriented(6)),
    "transparent": encoded(noise("RGBA"), "PNG"),
    "WebP": encoded(noise(), "WEBP"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_pixels_of_its_picture(name):
    picture = to_rgb(Image.open(io.BytesIO(FILES[name])))
    assert ("in XMP" in name or name.endswith(("5", "6", "7", "8", "side"))) == (picture.size == (37, 53))
    assert torch.equal(decode(FILES[name]), to_pixels(picture))


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_without_torchcodec_pillow_decodes(monkeypatch, error):
    """Its libraries may be for another build of torch, which shows at the import."""

    class Missing:
        def __getattr__(self, name):
            raise error

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", Missing())
    data_image._jpeg_decoder.cache_clear()
    try:
        assert data_image._jpeg_decoder() is None
        for name in ("chroma 2", "orientation 6"):
            assert torch.equal(decode(FILES[name]), to_pixels(to_rgb(Image.open(io.BytesIO(FILES[name])))))
    finally:
        data_image._jpeg_decoder.cache_clear()


def test_a_jpeg_goes_through_torchcodec(monkeypatch):
    found = torch.zeros(3, 1, 1, dtype=torch.uint8)
    monkeypatch.setattr(data_image, "_jpeg_decoder", lambda: lambda data: found)
    assert decode(FILES["chroma 2"]) is found
    assert decode(FILES["PNG"]).shape == (3, 37, 53)


def decoded_by(function, data):
    try:
        return function(data)
    except Exception:
        return None


def test_damaged_files_are_what_they_are_to_pillow():
    """Bytes at random places of a JPEG changed: some of those it takes, with wrong colours, and others not."""
    chosen = random.Random(0)
    whole = encoded(quadrants(400, 300), "JPEG", quality=90)
    taken = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(3):
            data[chosen.randrange(len(data))] = chosen.randrange(256)
        want = decoded_by(lambda data: to_pixels(to_rgb(Image.open(io.BytesIO(data)))), bytes(data))
        got = decoded_by(decode, bytes(data))
        assert (got is None) == (want is None)
        assert want is None or torch.equal(got, want)
        taken += want is not None
    assert 0 < taken < 200


@pytest.mark.parametrize("kept", [0, 20, 600, -2])
def test_half_a_file_is_refused(kept):
    with pytest.raises((OSError, ValueError)):
        decode(FILES["chroma 0"][:kept])


def test_a_picture_too_large_to_hold_is_refused_by_its_header():
    data = bytearray(FILES["grey"])
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(Image.DecompressionBombError):
        decode(bytes(data))


# Evaluation transform -------------------------------------------------------------------------------------------------

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 2.0)
NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def test_pixels_are_normalised():
    transform = evaluation_transform(8, MEAN, STD)
    out = transform(Image.new("RGB", (20, 30), (255, 51, 102)))
    assert out.shape == (3, 8, 8)
    assert out.dtype == torch.float32
    expected = torch.tensor([(1.0 - 0.5) / 0.5, (0.2 - 0.25) / 0.25, 0.4 / 2.0])
    torch.testing.assert_close(out, expected.view(3, 1, 1).expand(3, 8, 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wide", [True, False])
def test_the_middle_square_is_kept(wide):
    """A third of the long side on each end is cut off."""
    image = Image.new("RGB", (96, 32), RED)
    image.paste(GREEN, (32, 0, 64, 32))
    image = image if wide else image.transpose(Transpose.ROTATE_90)
    out = evaluation_transform(32, NO_MEAN, NO_STD)(image)
    torch.testing.assert_close(out[1], torch.ones(32, 32), rtol=0, atol=0)
    torch.testing.assert_close(out[0], torch.zeros(32, 32), rtol=0, atol=0)


def test_the_shortest_side_is_resized():
    image = Image.new("RGB", (400, 200), RED)
    image.paste(BLUE, (200, 0, 400, 200))
    out = evaluation_transform(20, NO_MEAN, NO_STD)(image)
    assert (out[0, :, :9] > 0.95).all()
    assert (out[2, :, 11:] > 0.95).all()
