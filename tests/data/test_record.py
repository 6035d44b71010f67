import json
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypclip.data.record import BadSample, Box, Reading, read_record
from tests.support.data import BLUE, GREEN, RED, YELLOW, encoded, quadrants, stored_as_json

PNG = encoded(quadrants())
DEEP = b"[" * 100_000 + b"]" * 100_000


def sample(**files):
    return {"__key__": "00017", "__url__": "data/003.tar", "jpg": PNG, **files}


def grit(caption="a dog on grass", chunk=(0, 5, 0.1, 0.2, 0.5, 0.6, 0.9), **fields):
    return sample(json=stored_as_json(caption, [list(chunk)], **fields))


def reason(bad):
    with pytest.raises(BadSample) as caught:
        read_record(bad)
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    return caught.value.reason


# Good samples ---------------------------------------------------------------------------------------------------------


def test_raw_grit_gives_caption_and_the_boxes_of_both_lists_in_order():
    caption = "a dog on green grass"
    chunks = [[0, 5, 0.1, 0.2, 0.5, 0.6, 0.9], [9, 20, 0.0, 0.5, 1.0, 1.0, 0.4]]
    fields = stored_as_json(caption, chunks, [[0, 20, 0.1, 0.2, 0.5, 0.6, 0.7]], width=40, url="http://x", clip=0.3)
    record = read_record(sample(json=fields))
    assert (record.key, record.shard, record.caption) == ("00017", "data/003.tar", caption)
    assert record.boxes == (
        Box("a dog", 0.1, 0.2, 0.5, 0.6, 0.9),
        Box("green grass", 0.0, 0.5, 1.0, 1.0, 0.4),
        Box("a dog on green grass", 0.1, 0.2, 0.5, 0.6, 0.7),
    )
    assert record.boxes[0].area == pytest.approx(0.16)


def test_offsets_count_characters_not_bytes_or_words():
    caption = "süßer 🐶 läuft über Gras"
    start = caption.index("🐶")
    record = read_record(grit(caption, (start, start + 7, 0, 0, 1, 1, 1)))
    assert record.boxes[0].phrase == "🐶 läuft"
    assert (
        len(caption.encode()[start : start + 7].decode(errors="replace")) != 7
    )  # bytes would have given something else


def test_a_plain_pair_has_a_caption_and_no_boxes():
    record = read_record(sample(txt="ein süßer 🐶".encode()))
    assert (record.caption, record.boxes) == ("ein süßer 🐶", ())


def test_json_wins_over_a_txt_beside_it():
    assert read_record({**grit("from json"), "txt": b"from txt"}).caption == "from json"


def test_lists_of_boxes_may_be_missing_empty_or_null():
    for fields in ({}, {"noun_chunks": [], "ref_exps": []}, {"noun_chunks": None, "ref_exps": None}):
        assert read_record(sample(json=json.dumps({"caption": "x", **fields}).encode())).boxes == ()


FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}
FORMATS |= {"bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "avif": "AVIF", "jp2": "JPEG2000", "ppm": "PPM"}


@pytest.mark.parametrize("extension, form", FORMATS.items())
def test_each_picture_format_is_read(extension, form):
    options = {"quality": 95} if form in ("JPEG", "WEBP", "AVIF") else {}
    files = {"__key__": "0", "txt": b"x", extension: encoded(quadrants(), form, **options)}
    image = read_record(files).image
    assert (image.mode, image.size) == ("RGB", (40, 20))
    for point, colour in (((5, 5), RED), ((35, 5), GREEN), ((5, 15), BLUE), ((35, 15), YELLOW)):
        assert all(abs(a - b) < 12 for a, b in zip(image.getpixel(point), colour, strict=True))


def test_the_picture_is_rgb_whatever_was_stored():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert read_record(sample(txt=b"x", jpg=encoded(clear))).image.getpixel((0, 0)) == (255, 255, 255)
    grey = Image.new("L", (4, 4), 77)
    assert read_record(sample(txt=b"x", jpg=encoded(grey))).image.getpixel((0, 0)) == (77, 77, 77)


def exif(*tags):
    """Return EXIF data with an orientation that turns by 90° and other tags (tag, type, 4 bytes)."""
    entries = sorted([(0x0112, 3, struct.pack("<HH", 6, 0)), *tags])
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.parametrize("tag, kind", [(0x0100, 2), (0x011A, 7), (0x010F, 11)])
def test_odd_exif_tags_do_not_cost_the_picture(tag, kind):
    """Rewriting such tags raises struct.error, TypeError or AttributeError, which once ended the run."""
    photo = encoded(quadrants(), "JPEG", quality=95, exif=exif((tag, kind, b"\1\2\0\0")))
    image = read_record(sample(txt=b"x", jpg=photo)).image
    assert image.size == (20, 40)
    assert image.getpixel((15, 5))[0] > 180  # red, top left as stored, is top right when turned


@pytest.mark.parametrize("overshoot", [0.0, 0.004, 0.0099])
def test_boxes_that_leave_the_picture_by_a_rounding_error_are_cut_at_its_border(overshoot):
    box = read_record(grit(chunk=(0, 5, -overshoot, 0.5, 0.5, 1 + overshoot, 1))).boxes[0]
    assert (box.x0, box.y0, box.x1, box.y1) == (0.0, 0.5, 0.5, 1.0)


def test_spaces_around_a_phrase_are_cut():
    assert read_record(grit("a dog  on grass", (1, 7, 0, 0, 1, 1, 1))).boxes[0].phrase == "dog"


# Captions -------------------------------------------------------------------------------------------------------------

FIVE = ("a dog", "a brown dog", "an animal on grass", "dog, outside", "ein Hund")
CAPTIONS = {
    "a line each of a txt": ({"txt": "\n".join(FIVE).encode()}, FIVE),
    "lines of Windows, and blank ones": ({"txt": "\r\n\r\n".join(FIVE).encode() + b"\r\n"}, FIVE),
    "a list in a json": ({"json": json.dumps({"caption": FIVE}).encode()}, FIVE),
    "a list with gaps": ({"json": b'{"caption": ["a", null, "", "b"]}'}, ("a", "b")),
    "a json without one beside a txt": ({"json": b'{"url": "x"}', "txt": b"a dog"}, ("a dog",)),
    "a json with null beside a txt": ({"json": b'{"caption": null}', "txt": b"a dog"}, ("a dog",)),
    "a json with NaN beside a txt": ({"json": b'{"caption": NaN}', "txt": b"a dog"}, ("a dog",)),
    "a json that is a list beside a txt": ({"json": b"[1]", "txt": b"a dog"}, ("a dog",)),
    "a json with a blank beside a txt": ({"json": b'{"caption": " "}', "txt": b"a dog"}, ("a dog",)),
    "a mark at the beginning of a txt": ({"txt": b"\xef\xbb\xbfa dog"}, ("a dog",)),
    "a mark at the beginning of a json": ({"json": b'\xef\xbb\xbf{"caption": "a dog"}'}, ("a dog",)),
    "UTF-16, as Windows calls Unicode": ({"txt": "süß\nb".encode("utf-16")}, ("süß", "b")),
    "UTF-16 of the other order": ({"json": b"\xfe\xff" + '{"caption": "süß"}'.encode("utf-16-be")}, ("süß",)),
}


@pytest.mark.parametrize("files, expected", CAPTIONS.values(), ids=CAPTIONS)
def test_captions_are_a_list(files, expected):
    record = read_record(sample(**files))
    assert record.captions == expected
    assert record.caption == expected[0]


def test_another_field_can_hold_the_caption():
    files = sample(json=b'{"TEXT": "a dog", "caption": "wrong"}', txt=b"wrong too")
    assert read_record(files, Reading(caption_field="TEXT")).captions == ("a dog",)


def test_a_field_that_was_named_must_be_there_but_may_be_empty():
    """A slip in its name would else be trained on, or scored, by the captions of the .txt."""
    reading = Reading(caption_field="TEXTS")
    with pytest.raises(
        BadSample, match=r"no caption: .*json without 'TEXTS' \(it has 'TEXT': data.caption_field names"
    ):
        read_record(sample(json=b'{"TEXT": "a dog"}', txt=b"another"), reading)
    assert read_record(sample(json=b'{"TEXTS": null}', txt=b"a dog"), reading).captions == ("a dog",)
    assert read_record(sample(txt=b"a dog"), reading).captions == ("a dog",)


def test_phrases_are_of_the_first_of_several_captions():
    fields = stored_as_json(["a dog on grass", "an animal"], [[0, 5, 0.1, 0.2, 0.5, 0.6, 0.9]])
    assert read_record(sample(json=fields)).boxes[0].phrase == "a dog"


# Boxes and turned images ----------------------------------------------------------------------------------------------

LEFT_TOP = (0.0, 0.0, 0.5, 0.5)


def turned(turn, form="JPEG"):
    """Return a file whose pixels are red top left as they are stored."""
    tags = Image.Exif()
    tags[0x0112] = turn
    return encoded(quadrants(), form, exif=tags, **({"quality": 95} if form == "JPEG" else {}))


def colour_in_box(record):
    """Return the colour in the middle of the first box of the image that training sees."""
    box, (width, height) = record.boxes[0], record.image.size
    return record.image.getpixel((int((box.x0 + box.x1) / 2 * width), int((box.y0 + box.y1) / 2 * height)))


def close(a, b):
    return all(abs(x - y) < 12 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_boxes_found_on_pixels_as_stored_hold_the_same_content_when_turned(turn, form):
    fields = stored_as_json("a red thing", [[0, 11, *LEFT_TOP, 1]])
    files = sample(jpg=turned(turn, form), json=fields)
    assert close(colour_in_box(read_record(files, Reading(boxes_are="stored"))), RED)
    assert close(colour_in_box(read_record(files)), RED)  # the default for GRIT's fields


@pytest.mark.parametrize("turn, top_left", [(1, RED), (3, YELLOW), (6, BLUE), (8, GREEN), (2, GREEN), (5, RED)])
def test_boxes_found_on_pictures_as_shown_stay_where_they_are(turn, top_left):
    fields = stored_as_json("a red thing", [[0, 11, *LEFT_TOP, 1]])
    record = read_record(sample(jpg=turned(turn), json=fields), Reading(boxes_are="shown"))
    assert (record.boxes[0].x0, record.boxes[0].y0, record.boxes[0].x1, record.boxes[0].y1) == LEFT_TOP
    assert close(colour_in_box(record), top_left)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("width, height, expected", [(40, 20, RED), (400, 200, RED), (20, 40, BLUE), (512, 1024, BLUE)])
def test_the_size_in_the_json_tells_which_picture_its_boxes_are_of(width, height, expected, form):
    """The file is 40 × 20 as it is stored, and turned to 20 × 40."""
    fields = stored_as_json("a thing", [[0, 7, *LEFT_TOP, 1]], width=width, height=height)
    assert close(colour_in_box(read_record(sample(jpg=turned(6, form), json=fields))), expected)


# Bad samples ----------------------------------------------------------------------------------------------------------

BAD_TEXT = {
    "broken JSON": (sample(json=b'{"caption": "a dog'), "unreadable text"),
    "JSON in no encoding": (sample(json=b'{"caption": "\xff"}'), "unreadable text"),
    "text in no encoding": (sample(txt=b"caf\xe9"), "unreadable text"),
    "half of a character": (sample(json=b'{"caption": "\\ud83d dog"}'), "unreadable text"),
    "a number of 5,000 digits": (sample(json=b'{"caption": "x", "clip": ' + b"1" * 5_000 + b"}"), "unreadable text"),
    "JSON nested too deep": (sample(json=DEEP), "unreadable text"),
    "JSON that is a list": (sample(json=b'["a dog"]'), "no caption"),
    "JSON that is a string": (sample(json=b'"a dog"'), "no caption"),
    "JSON that is null": (sample(json=b"null"), "no caption"),
    "JSON without caption": (sample(json=b"{}"), "no caption"),
    "a caption that is null": (sample(json=b'{"caption": null}'), "no caption"),
    "a caption that is a number": (sample(json=b'{"caption": 3}'), "no caption"),
    "an empty caption": (sample(json=b'{"caption": ""}'), "no caption"),
    "a blank caption": (sample(txt=b" \n\t"), "no caption"),
    "no text at all": (sample(), "no caption"),
}


@pytest.mark.parametrize("bad, expected", BAD_TEXT.values(), ids=BAD_TEXT)
def test_bad_text_is_named(bad, expected):
    assert reason(bad) == expected


DETAILS = {
    "json alone": (
        {"json": b'{"url": "x", "TEXT": "y"}'},
        "no caption: 00017 of data/003.tar: found jpg, json without 'caption' (it has 'url', 'TEXT': "
        "data.caption_field names the one to read); expected txt, or json with 'caption'",
    ),
    "both empty": (
        {"json": b'{"caption": ""}', "txt": b" "},
        "no caption: 00017 of data/003.tar: found jpg, json with an empty 'caption', an empty txt; expected txt, or "
        "json with 'caption'",
    ),
    "classes": (
        {"cls": b"3"},
        "no caption: 00017 of data/003.tar: found jpg, cls; expected txt, or json with 'caption'",
    ),
    "a number": (
        {"json": b'{"caption": 3}'},
        "no caption: 00017 of data/003.tar: found jpg, json whose 'caption' is no text and no list of texts but 3; "
        "expected txt, or json with 'caption'",
    ),
}


@pytest.mark.parametrize("files, message", DETAILS.values(), ids=DETAILS)
def test_a_bad_sample_says_where_it_is_what_was_found_and_what_was_expected(files, message):
    with pytest.raises(BadSample) as caught:
        read_record(sample(**files))
    assert str(caught.value) == message


def test_a_sample_without_a_picture_says_what_it_has():
    with pytest.raises(BadSample) as caught:
        read_record({"__key__": "7", "txt": b"a dog", "mp4": b""})
    assert str(caught.value) == "no image: 7: found txt, mp4; expected jpg, png, webp or another image"


BAD_PICTURES = {
    "truncated": (encoded(quadrants(200, 200), "JPEG")[:-400], "unreadable image"),
    "a header alone": (PNG[:30], "unreadable image"),
    "empty": (b"", "unreadable image"),
    "a web page": (b"<html>404</html>", "unreadable image"),
}


@pytest.mark.parametrize("content, expected", BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_a_bad_picture_is_named(content, expected):
    assert reason(sample(txt=b"a dog", jpg=content)) == expected


def test_no_picture_is_named():
    assert reason({"__key__": "0", "txt": b"a dog"}) == "no image"
    assert reason({"__key__": "0", "txt": b"a dog", "mp4": PNG}) == "no image"


INSIDE = (0.1, 0.1, 0.5, 0.5)
BAD_CHUNKS = {
    "offset past the caption": ([9, 15, *INSIDE, 1], "phrase outside the caption"),
    "negative offset": ([-5, 5, *INSIDE, 1], "phrase outside the caption"),
    "offsets swapped": ([5, 0, *INSIDE, 1], "phrase outside the caption"),
    "empty phrase": ([3, 3, *INSIDE, 1], "phrase outside the caption"),
    "blank phrase": ([1, 2, *INSIDE, 1], "phrase outside the caption"),
    "right of the picture": ([0, 5, 0.5, 0.1, 1.02, 0.5, 1], "box outside the image"),
    "left of the picture": ([0, 5, -0.02, 0.1, 0.5, 0.5, 1], "box outside the image"),
    "above the picture": ([0, 5, 0.1, -3, 0.5, 0.5, 1], "box outside the image"),
    "below the picture": ([0, 5, 0.1, 0.1, 0.5, 1.5, 1], "box outside the image"),
    "in pixels": ([0, 5, 10, 20, 200, 300, 1], "box outside the image"),
    "no width": ([0, 5, 0.5, 0.1, 0.5, 0.5, 1], "box outside the image"),
    "corners swapped": ([0, 5, 0.1, 0.5, 0.5, 0.1, 1], "box outside the image"),
    "no width inside": ([0, 5, 1.0, 0.1, 1.005, 0.5, 1], "box outside the image"),
    "NaN": ([0, 5, math.nan, 0.1, 0.5, 0.5, 1], "malformed box"),
    "infinity": ([0, 5, 0.1, 0.1, 0.5, math.inf, 1], "malformed box"),
    "score NaN": ([0, 5, *INSIDE, math.nan], "malformed box"),
    "score negative": ([0, 5, *INSIDE, -0.1], "malformed box"),
    "too few numbers": ([0, 5, *INSIDE], "malformed box"),
    "too many numbers": ([0, 5, *INSIDE, 1, 1], "malformed box"),
    "a word for a number": ([0, 5, "left", 0.1, 0.5, 0.5, 1], "malformed box"),
    "null": ([0, 5, None, 0.1, 0.5, 0.5, 1], "malformed box"),
    "a number past any float": ([0, 10**400, *INSIDE, 1], "malformed box"),
    "not a list": (5, "malformed box"),
}


@pytest.mark.parametrize("field", ["noun_chunks", "ref_exps"])
@pytest.mark.parametrize("row, expected", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_a_bad_box_is_named(row, expected, field):
    assert reason(sample(json=stored_as_json("a dog on grass", **{field: [row]}))) == expected


@pytest.mark.parametrize("rows", [5, True, "boxes", {"0": [0, 5, *INSIDE, 1]}])
def test_boxes_that_are_no_list_are_named(rows):
    assert reason(sample(json=stored_as_json("a dog", rows))) == "malformed box"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
NUMBER = st.floats(-0.1, 1.1) | st.integers(-2, 12) | st.floats()
LOW, HIGH = st.floats(-0.01, 0.5), st.floats(0.5, 1.01)
NEARLY = st.tuples(st.integers(0, 4), st.integers(4, 9), LOW, LOW, HIGH, HIGH, st.floats(-0.01, 1)).map(list)
CHUNKS = st.lists(NEARLY, max_size=2) | st.lists(st.lists(NUMBER, min_size=6, max_size=7), max_size=3) | JSON


def outcome(stored):
    """Return the record, or the reason why there is none."""
    try:
        return read_record(stored)
    except BadSample as bad:
        return bad.reason


@settings(max_examples=150)
@given(st.builds(dict, caption=st.text(min_size=8, max_size=10) | JSON, noun_chunks=CHUNKS, ref_exps=CHUNKS) | JSON)
def test_whatever_the_json_holds_the_record_is_sound_or_the_sample_is_bad(fields):
    record = outcome(sample(json=json.dumps(fields).encode()))
    if isinstance(record, str):
        assert record in {reason for _, reason in (*BAD_TEXT.values(), *BAD_CHUNKS.values())}
        return
    given = fields["caption"] if isinstance(fields["caption"], list) else [fields["caption"]]
    assert list(record.captions) == [one for one in given if one and one.strip()]
    assert len(record.boxes) == len(fields["noun_chunks"] or []) + len(fields["ref_exps"] or [])
    for box in record.boxes:
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
        assert box.phrase == box.phrase.strip() != ""
        assert box.phrase in record.caption
        assert 0 <= box.score < math.inf


STORED = [
    encoded(quadrants(), "JPEG", exif=exif()),
    encoded(quadrants(), "PNG", exif=exif()),
    encoded(quadrants(), "WEBP", lossless=True),
]


@settings(max_examples=150)
@given(st.sampled_from(STORED), st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=3)), max_size=6))
def test_damaged_pictures_are_read_or_bad_and_never_end_the_run(content, damage):
    damaged = bytearray(content)
    for place, change in damage:
        damaged[place : place + len(change)] = change
    record = outcome(sample(txt=b"x", jpg=bytes(damaged)))
    assert record == "unreadable image" or record.image.mode == "RGB"
