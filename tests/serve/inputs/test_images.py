import base64

import pytest
import torch
from PIL import Image

from serve.errors import InvalidImage, LimitExceeded
from serve.inputs import images
from serve.settings import Settings
from tests.support.serving import BLUE, GREEN, RED, WHITE, colours, corners, encoded, quadrants

UPRIGHT = colours(RED, GREEN, BLUE, WHITE)


def opened_and_decoded(values, settings):
    return [images.decode(image) for image in images.open_images(values, settings)]


def decode(value, **settings):
    (image,) = opened_and_decoded([value], Settings(**settings))
    return image


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP"])
def test_lossless_formats(format):
    image = decode(encoded(quadrants(), format))
    assert image.size == (64, 48)
    assert torch.equal(corners(image), UPRIGHT)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats(format):
    torch.testing.assert_close(corners(decode(encoded(quadrants(), format, quality=95))), UPRIGHT, atol=0.05, rtol=0)


@pytest.mark.parametrize("write", [str, "data:image/png;base64,{}".format, "DATA:image/x;charset=a;base64,{}".format])
def test_base64_and_data_uris(write):
    assert torch.equal(corners(decode(write(encoded(quadrants())))), UPRIGHT)


def test_line_breaks_in_base64_are_fine():
    wrapped = base64.encodebytes(base64.b64decode(encoded(quadrants()))).decode()
    assert "\n" in wrapped.strip()
    assert torch.equal(corners(decode(wrapped)), UPRIGHT)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(format):
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("black", "white")]
    value = encoded(
        quadrants(), format, save_all=True, append_images=frames, **({"lossless": True} if format == "WEBP" else {})
    )
    assert torch.equal(corners(decode(value)), UPRIGHT)


def test_a_cmyk_jpeg_has_its_colours():
    value = encoded(quadrants().convert("CMYK"), "JPEG", quality=95)
    torch.testing.assert_close(corners(decode(value)), UPRIGHT, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "orientation, expected",
    [(1, (RED, GREEN, BLUE, WHITE)), (3, (WHITE, BLUE, GREEN, RED)), (6, (BLUE, RED, WHITE, GREEN))],
)
def test_a_photo_is_turned_as_its_exif_says(orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(quadrants(), "JPEG", exif=exif, quality=95))
    assert image.size == ((48, 64) if orientation == 6 else (64, 48))
    torch.testing.assert_close(corners(image), colours(*expected), atol=0.05, rtol=0)


def test_transparency_is_white():
    assert torch.equal(corners(decode(encoded(Image.new("RGBA", (8, 8), (9, 9, 9, 0))))), torch.ones(12))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (4, 4)) if mode == "I;16" else quadrants().convert(mode)
    assert decode(encoded(image)).mode == "RGB"


def test_each_limit_is_reached_exactly():
    value, size = encoded(quadrants()), len(base64.b64decode(encoded(quadrants())))
    limits = {
        "max_image_pixels": 64 * 48,
        "max_request_pixels": 64 * 48,
        "max_image_bytes": size,
        "max_image_aspect": 64 / 48,
    }
    assert decode(value, **limits).size == (64, 48)
    for name, limit in limits.items():
        with pytest.raises(LimitExceeded, match=f"HYPCLIP_{name.upper()}"):
            decode(value, **{name: limit - 0.01 if name == "max_image_aspect" else limit - 1})


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_damage_anywhere_is_a_typed_error_or_a_picture(format):
    data = base64.b64decode(encoded(quadrants(), format))
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(60):
        broken = bytearray(data)
        for place in torch.randint(len(data), (8,), generator=generator).tolist():
            broken[place] ^= 0xFF
        cut = int(torch.randint(1, len(data), (1,), generator=generator))
        for value in (bytes(broken), data[:cut]):
            try:
                assert decode(base64.b64encode(value).decode()).mode == "RGB"
            except (InvalidImage, LimitExceeded):
                refused += 1
    assert refused > 30
