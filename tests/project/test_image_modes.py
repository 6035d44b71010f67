"""Every mode of Pillow by one table of pixels: in the library, through the client, in training and on the server."""

import base64
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import hypclip.client as c
from hypclip.client.rgb import from_array, to_rgb
from hypclip.data.given import images_of
from hypclip.data.image import decode
from hypclip.errors import InputError
from serve.inputs.images import FORMATS, open_images
from serve.inputs.images import decode as decode_served
from serve.settings import Settings
from tests.support.data import encoded
from tests.support.models import tiny_model
from tests.support.search import unchecked
from tests.support.serving import FakeEngine

WHITE, BLACK = (255,) * 3, (0,) * 3


def of(mode: str, *values) -> Image.Image:
    """A row of pixels."""
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


def raw(mode: str, dtype: str, *values) -> Image.Image:
    return Image.frombytes(mode, (len(values), 1), np.array(values, dtype).tobytes())


def palette(mode: str, *entries) -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    image.info.update(entries)
    return image if mode == "P" else image.convert(mode)


def see_through() -> Image.Image:
    image = of("P", 0, 1)
    image.putpalette([10, 20, 30, 255, 200, 100, 50, 0], "RGBA")
    return image


def marked(image: Image.Image, transparency) -> Image.Image:
    image.info["transparency"] = transparency
    return image


def reopened(image: Image.Image, format: str, **options) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, format, **options)))


def grey(*values):
    return [(value,) * 3 for value in values]


COLOURS = [(10, 20, 30), (200, 100, 50), (0, 0, 255)]
SIXTEEN = (0, 2570, 32768, 40000, 65535)
SIXTEEN_SEEN = grey(0, 10, 127, 155, 255)
PGM = b"P5 5 1 65535\n" + np.array(SIXTEEN, ">u2").tobytes()

TABLE = {
    "1": (lambda: of("1", 1, 0), [WHITE, BLACK]),
    "L": (lambda: of("L", 0, 130, 255), grey(0, 130, 255)),
    "L, a grey is transparent": (lambda: marked(of("L", 0, 130, 255), 130), grey(0, 255, 255)),
    "LA": (lambda: of("LA", (100, 255), (100, 0), (0, 51)), grey(100, 255, 204)),
    "La": (lambda: of("La", (100, 255), (0, 0), (0, 51)), grey(100, 255, 204)),
    "P": (lambda: palette("P"), COLOURS),
    "P, an entry is transparent": (lambda: palette("P", ("transparency", 1)), [COLOURS[0], WHITE, COLOURS[2]]),
    "P, entries have an alpha": (
        lambda: palette("P", ("transparency", bytes([255, 0, 51]))),
        [COLOURS[0], WHITE, (204, 204, 255)],
    ),
    "P, its palette has an alpha": (see_through, [COLOURS[0], WHITE]),
    "L, left over from a palette": (lambda: marked(of("L", 0, 130), b"\0\1"), grey(0, 130)),
    "PA": (lambda: palette("PA"), COLOURS),
    "RGB": (lambda: of("RGB", *COLOURS), COLOURS),
    "RGB, a colour is transparent": (
        lambda: marked(of("RGB", *COLOURS), (200, 100, 50)),
        [COLOURS[0], WHITE, COLOURS[2]],
    ),
    "RGBA": (lambda: of("RGBA", (10, 20, 30, 255), (0, 0, 0, 0), (0, 0, 0, 51)), [COLOURS[0], WHITE, (204,) * 3]),
    "RGBa": (lambda: of("RGBa", (10, 20, 30, 255), (0, 0, 0, 0), (0, 0, 0, 51)), [COLOURS[0], WHITE, (204,) * 3]),
    "RGBX": (lambda: of("RGBX", (10, 20, 30, 0), (200, 100, 50, 255)), COLOURS[:2]),
    "CMYK": (lambda: of("CMYK", (0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)), [WHITE, (255, 0, 0), BLACK]),
    "YCbCr": (lambda: of("YCbCr", (0, 128, 128), (130, 128, 128), (76, 85, 255)), [BLACK, (130,) * 3, (254, 0, 0)]),
    "LAB": (lambda: of("LAB", (128, 128, 128)), grey(119)),
    "HSV": (lambda: of("HSV", (0, 0, 130), (0, 255, 255), (85, 255, 255)), [(130,) * 3, (255, 0, 0), (0, 255, 0)]),
    "I;16": (lambda: raw("I;16", "<u2", *SIXTEEN), SIXTEEN_SEEN),
    "I;16L": (lambda: raw("I;16L", "<u2", *SIXTEEN), SIXTEEN_SEEN),
    "I;16B": (lambda: raw("I;16B", ">u2", *SIXTEEN), SIXTEEN_SEEN),
    "I;16N": (lambda: raw("I;16N", "=u2", *SIXTEEN), SIXTEEN_SEEN),
    "I;16 in the dark": (lambda: raw("I;16", "<u2", 0, 255), grey(0, 0)),
    "I of 16 bits": (lambda: of("I", *SIXTEEN), SIXTEEN_SEEN),
    "I of 8 bits": (lambda: of("I", 0, 130, 255), grey(0, 130, 255)),
    "I of a file of 16 bits": (lambda: Image.open(io.BytesIO(PGM)), SIXTEEN_SEEN),
    "I in the dark, of a file of 16 bits": (
        lambda: Image.open(io.BytesIO(b"P5 2 1 65535\n" + np.array([0, 255], ">u2").tobytes())),
        grey(0, 0),
    ),
    "F of 0 to 1": (lambda: of("F", 0.0, 130 / 255, 1.0), grey(0, 130, 255)),
    "F of 0 to 1, resized": (lambda: of("F", -0.1, 0.5, 1.1), grey(0, 128, 255)),
    "F of 0 to 255": (lambda: of("F", 0.0, 130.0, 200.6, 255.0), grey(0, 130, 201, 255)),
    "F of 0 to 65535": (lambda: of("F", *map(float, SIXTEEN)), SIXTEEN_SEEN),
    "grey TIFF of 16 bits": (lambda: reopened(raw("I;16", "<u2", *SIXTEEN), "TIFF"), SIXTEEN_SEEN),
    "big-endian TIFF of 16 bits": (lambda: reopened(raw("I;16B", ">u2", *SIXTEEN), "TIFF"), SIXTEEN_SEEN),
    "TIFF of floats": (lambda: reopened(of("F", 0.0, 130 / 255, 1.0), "TIFF"), grey(0, 130, 255)),
    "the first page of a TIFF": (
        lambda: reopened(of("RGB", *COLOURS), "TIFF", save_all=True, append_images=[of("L", 1, 2, 3)]),
        COLOURS,
    ),
    "the first frame of a GIF": (
        lambda: reopened(of("L", 0, 130, 255), "GIF", save_all=True, append_images=[of("L", 1, 2, 3)]),
        grey(0, 130, 255),
    ),
}
every_mode = pytest.mark.parametrize("image, seen", TABLE.values(), ids=TABLE)


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    assert image.mode == "RGB"
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


def served(item: dict[str, str]) -> Image.Image:
    """What the server makes of an item."""
    (image,) = open_images([item["image"]], Settings(max_image_aspect=100))
    return decode_served(image)


def test_the_table_has_every_mode():
    modes = {image().mode for image, _ in TABLE.values()}
    assert modes >= {*Image.MODES, "La", "PA", "RGBa", "I;16L", "I;16B", "I;16N"}


@every_mode
def test_the_library(image, seen):
    assert pixels(to_rgb(image())) == seen
    assert [pixels(one) for one in images_of([image(), image()])] == [seen, seen]


@every_mode
def test_through_the_client_to_the_server(image, seen):
    assert pixels(served(c.image(image()))) == seen


WRITTEN = {"1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "PNG", "RGBA": "PNG", "I;16": "PNG", "I;16B": "PNG"}
FILES = {
    name: encoded(image(), WRITTEN[image().mode])
    for name, (image, _) in TABLE.items()
    if image().mode in WRITTEN and "TIFF" not in name and "left over" not in name
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_in_a_file(name, tmp_path):
    """Read by the training, by the library by its path, uploaded, and sent by the client as it is."""
    seen = TABLE[name][1]
    path = tmp_path / "picture"
    path.write_bytes(FILES[name])
    settings = Settings(max_image_aspect=100)
    assert decode(FILES[name]).permute(1, 2, 0).flatten(0, 1).tolist() == [list(pixel) for pixel in seen]
    assert [pixels(one) for one in images_of([str(path), path, FILES[name]])] == [seen] * 3
    assert pixels(decode_served(open_images([FILES[name]], settings)[0])) == seen
    assert pixels(served(c.image(path))) == seen


def test_the_files_are_of_many_modes():
    assert len({TABLE[name][0]().mode for name in FILES}) == 8
    assert "PNG" in FORMATS


def test_sixteen_bits_of_colour():
    rows = np.array([[[40000, 0, 65535]]], ">u2")
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)

    def chunk(data: bytes) -> bytes:
        return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))

    body = b"IDAT" + zlib.compress(b"\0" + rows.tobytes())
    png = b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(body) + chunk(b"IEND")
    for found in (pixels(served(c.image(png))), pixels(to_rgb(Image.open(io.BytesIO(png))))):
        assert found == [(156, 0, 255)]  # the upper byte, as Pillow reads it
    assert decode(png).flatten().tolist() == [156, 0, 255]


def test_a_model_embeds_every_mode_as_what_is_seen():
    model = tiny_model()
    for name in ("I;16", "I;16B", "La", "F of 0 to 1", "CMYK"):
        image, seen = TABLE[name]
        plain = of("RGB", *seen)
        assert torch.equal(model.embed_image([image()]), model.embed_image([plain])), name


# Numbers that are no picture ------------------------------------------------------------------------------------------

NO_PICTURES = {
    "heights": (of("F", -5000.0, 8848.0), "from -5000 to 8848"),
    "one over all": (of("F", 0.0, 1e6), r"from 0 to 1e\+06"),
    "normalised": (of("F", -1.0, 1.0), "from -1 to 1"),
    "not a number first": (of("F", float("nan"), 0.5), "NaN or infinite"),
    "not a number later": (of("F", 0.5, float("nan")), "NaN or infinite"),
    "infinite": (of("F", 0.5, float("inf")), "NaN or infinite"),
    "negative": (of("I", -5, 100), "from -5 to 100"),
    "32 bits": (of("I", 0, 70000), "from 0 to 70000"),
}


@pytest.mark.parametrize("image, message", NO_PICTURES.values(), ids=NO_PICTURES)
def test_numbers_without_a_plain_meaning_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        c.image(image)
    with pytest.raises(InputError, match=rf"images\[1\]: .*{message}"):
        list(images_of([Image.new("L", (1, 1)), image]))


# EXIF -----------------------------------------------------------------------------------------------------------------


def turned(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def photo(exif) -> Image.Image:
    return Image.open(io.BytesIO(encoded(of("L", 0, 255).resize((32, 16), 0).convert("RGB"), "JPEG", exif=exif)))


@pytest.mark.parametrize("mode", ["RGB", "L", "F", "I;16"])
def test_a_picture_without_pixels_is_refused(mode):
    for size in ((0, 3), (3, 0)):
        with pytest.raises(InputError, match=f"the image: an image of {size[0]} × {size[1]} has no pixels"):
            list(images_of(Image.new(mode, size)))
        with pytest.raises(ValueError, match="has no pixels"):
            c.image(Image.new(mode, size))


def test_tags_that_pillow_cannot_write_again_do_not_matter():
    """A camera wrote text where the standard has a number: read it can be, written again not."""
    image = photo(turned(6))
    image.getexif()[0x0100] = "wide"  # ImageWidth
    with pytest.raises((struct.error, TypeError, ValueError)):
        image.save(io.BytesIO(), "PNG", exif=image.getexif())
    found = served(c.image(image))
    assert found.size == (16, 32)
    assert found.getpixel((8, 2))[0] < 30 < 220 < found.getpixel((8, 30))[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage that is no TIFF", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"])
def test_tags_that_cannot_be_read_mean_upright(exif):
    plain = encoded(of("L", 0, 255).resize((32, 16), 0).convert("RGB"), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = plain[:2] + segment + plain[2:]
    expected = pixels(Image.open(io.BytesIO(plain)))
    assert pixels(served(c.image(Image.open(io.BytesIO(data))))) == expected
    assert pixels(served(c.image(data))) == expected
    assert decode(data).permute(1, 2, 0).flatten(0, 1).tolist() == [list(pixel) for pixel in expected]


def test_nothing_but_pixels_leaves_the_machine():
    exif = turned(3)
    exif[0x010F] = "maker of the camera"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    image = photo(exif)
    image.info["comment"] = "private"
    sent = base64.b64decode(c.image(image)["image"])
    with Image.open(io.BytesIO(sent)) as received:
        assert (received.mode, dict(received.getexif()), received.info) == ("RGB", {}, {})
    assert image.getexif()[0x010F] == "maker of the camera"


def test_a_picture_that_was_pickled_or_copied_is_turned_once():
    image = photo(turned(6))
    image.load()
    for same in (image.copy(), pickle.loads(pickle.dumps(image))):
        assert pixels(served(c.image(same))) == pixels(to_rgb(image))


# Arrays ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array, seen",
    [
        (np.array([COLOURS], np.uint8), COLOURS),
        (np.array([[[10, 20, 30, 255], [0, 0, 0, 0]]], np.uint8), [COLOURS[0], WHITE]),
        (np.array([[0, 130]], np.uint8), grey(0, 130)),
        (np.array([[[0], [130]]], np.uint8), grey(0, 130)),
        (np.array([SIXTEEN], "<u2"), SIXTEEN_SEEN),
        (np.array([SIXTEEN], ">u2"), SIXTEEN_SEEN),
        (np.array([[True, False]]), [WHITE, BLACK]),
        (np.array([COLOURS], np.uint8)[:, ::-1], COLOURS[::-1]),
    ],
    ids=["colours", "alpha", "grey", "one channel", "16 bits", "16 bits, big-endian", "bits", "a view"],
)
def test_arrays_with_a_plain_meaning(array, seen):
    assert pixels(from_array(array)) == seen
    assert pixels(served(c.image(array))) == seen
    assert [pixels(one) for one in images_of(array)] == [seen]


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 4, 3), np.float32), r"uint8, of a grey one also uint16, not float32; of floats from 0 to 1"),
        (np.zeros((4, 4)), "not float64; of floats"),
        (np.zeros((4, 4, 3), np.int64), "not int64"),
        (np.zeros((4, 4, 3), np.uint16), "not uint16"),
        (np.zeros((3, 4, 5), np.uint8), r"has its colours first; bring it to \(H, W, 3\): x.transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 2), np.uint8), r"not \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")) + str(getattr(value, "dtype", "")),
)
def test_arrays_without_one_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        c.image(array)
    with pytest.raises(InputError, match=f"the image: .*{message}"):
        list(images_of(array))


def test_the_client_sends_one_picture_at_a_time():
    with pytest.raises(ValueError, match=r"not \(2, 4, 4, 3\)"):
        c.image(np.zeros((2, 4, 4, 3), np.uint8))


# What else the client takes -------------------------------------------------------------------------------------------


def test_files_in_every_form(tmp_path):
    data = encoded(of("RGB", *COLOURS), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = {"image": base64.b64encode(data).decode()}
    with path.open("rb") as stream:
        forms = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), stream]
        assert [c.image(form) for form in forms] == [expected] * 7


@pytest.mark.parametrize("address", ["https://host.test/a.png", "HTTP://host.test/a", "data:image/png;base64,AAAA"])
def test_addresses_are_for_the_server_to_read(address):
    assert c.image(address) == {"image": address}


def test_what_is_no_picture_is_refused_by_its_type(tmp_path):
    for wrong in (None, 7, ["a.png"], {"image": "x"}, torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with unchecked(), pytest.raises(TypeError, match=f"an image is a path, .* not {type(wrong).__name__}"):
            c.image(wrong)
    (tmp_path / "a.png").write_text("x")
    with (tmp_path / "a.png").open() as text, pytest.raises(TypeError, match="open it for reading bytes, 'rb'"):
        c.image(text)
    with pytest.raises(FileNotFoundError, match=r"no such picture\.png"):
        c.image(tmp_path / "no such picture.png")


def test_the_points_of_client_and_library_are_those_of_the_table():
    """The fake engine's point of a picture is the colours of its corners."""
    image, seen = TABLE["I;16B"]
    point = FakeEngine().prepare(served(c.image(image()))).array
    assert point[:3].tolist() == pytest.approx([seen[0][0] / 255] * 3)
    assert point[3:6].tolist() == pytest.approx([seen[-1][0] / 255] * 3)
