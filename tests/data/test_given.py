"""What a model takes for texts and images, and what it refuses by name and place."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hypclip.client as c
from hypclip.data.given import batches
from hypclip.errors import DataError, InputError
from tests.support.data import encoded
from tests.support.models import tiny_model
from tests.support.search import unchecked

TEXTS = ["a red square", "two dogs", ""]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def arrays():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)


@pytest.fixture
def files(arrays, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


# Texts ----------------------------------------------------------------------------------------------------------------


def _without_address(value: object) -> str:
    """Name a case the same in every process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))


class Column:
    """As pandas has them: an iterable of one dimension whose slices are others."""

    ndim = 1

    def __init__(self, values, **about):
        self.values, self.shape = values, (len(values),)
        self.__dict__.update(about)

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        iter,
        lambda texts: (text for text in texts),
        np.array,
        lambda texts: np.array(texts, object),
        Column,
        lambda texts: [np.str_(text) for text in texts],
    ],
    ids=["tuple", "iterator", "generator", "array", "array of objects", "column", "strings of numpy"],
)
def test_texts_in_every_form(model, form):
    with unchecked():
        assert torch.equal(model.embed_text(form(TEXTS), batch_size=2), model.embed_text(TEXTS, batch_size=2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["a", None], r"texts\[1\] must be a string, got None: leave missing values out"),
        (["a", "b", float("nan")], r"texts\[2\] must be a string, got float nan: leave missing values out"),
        ([1.5], r"texts\[0\] must be a string, got float 1.5"),
        ([b"a"], r"texts\[0\] must be a string, got bytes b'a': decode it"),
        ([["a", "b"]], r"texts\[0\] must be a string, got list"),
        (["\ud800"], r"texts\[0\] is not valid Unicode"),
        (np.array([1, 2]), r"texts\[0\] must be a string, got int64"),
        ("a dog", "takes a list of strings, got the string 'a dog': put it in a list"),
        (b"a dog", "takes a list of strings, got bytes"),
        (None, "takes a list of strings, got None"),
        (7, "takes a list of strings, got int 7"),
        ({"a": 1}, "takes a list of strings, got dict"),
        ({"a"}, "takes a list of strings, got set"),
        (np.array([["a", "b"]]), r"takes a list of strings, got ndarray of shape \(1, 2\)"),
        (np.array("a"), r"takes a list of strings, got ndarray of shape \(\)"),
        (Column(["name of a column"], ndim=2), "takes a list of strings, got Column of shape"),
    ],
    ids=_without_address,
)
def test_what_is_no_list_of_texts_is_refused(model, wrong, message):
    with unchecked(), pytest.raises(InputError, match=message):
        model.embed_text(wrong)


# Images ---------------------------------------------------------------------------------------------------------------


def test_one_picture_in_every_form(model, arrays, files):
    expected = model.embed_image([Image.fromarray(arrays[0])])
    assert expected.shape == (1, 16)
    data = files[0].read_bytes()
    with files[0].open("rb") as stream, Image.open(files[0]) as opened:
        forms = [opened, str(files[0]), files[0], data, bytearray(data), io.BytesIO(data), stream, arrays[0]]
        with unchecked():
            assert [torch.equal(model.embed_image(form), expected) for form in forms] == [True] * 8


def test_several_pictures_in_every_form(model, arrays, files):
    expected = model.embed_image([Image.fromarray(array) for array in arrays], batch_size=2)
    forms = [
        files,
        tuple(map(str, files)),
        map(Image.fromarray, arrays),
        (array for array in arrays),
        arrays,
        list(arrays),
        np.array(list(map(str, files))),
        [files[0].read_bytes(), arrays[1], str(files[2])],
    ]
    with unchecked():
        assert [torch.equal(model.embed_image(form, batch_size=2), expected) for form in forms] == [True] * 8
    assert not torch.equal(expected[0], expected[1])


def test_a_path_may_begin_at_home(model, files, monkeypatch):
    monkeypatch.setenv("HOME", str(files[0].parent))
    assert torch.equal(model.embed_image("~/0.png"), model.embed_image(files[0]))


@pytest.mark.parametrize(
    "nothing", [[], (), iter([]), np.zeros((0, 4, 4, 3), np.uint8)], ids=["list", "tuple", "iterator", "array"]
)
def test_no_pictures_are_no_rows(model, nothing):
    assert model.embed_image(nothing).shape == (0, 16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([None], r"images\[0\] must be a PIL image, .*got None: leave missing values out"),
        ([Image.new("L", (4, 4)), 1.5], r"images\[1\] must be .*got float 1.5"),
        ([["a.png"]], r"images\[0\] must be .*got list"),
        (
            ["https://host.test/a.png"],
            r"images\[0\] is an address, not a path: str 'https://host.test/a.png'; fetch it",
        ),
        (["data:image/png;base64,AAAA"], r"images\[0\] is an address"),
        ([torch.zeros(3, 4, 4, dtype=torch.uint8)], r"images\[0\] must be .*x.permute\(1, 2, 0\).numpy\(\)"),
        ([np.zeros((4, 4, 3))], r"images\[0\]: the numbers of an image are uint8"),
        (np.zeros((2, 3, 40, 50), np.uint8), r"images\[0\]: an array of shape \(3, 40, 50\) has its colours first"),
        (np.zeros((2, 2, 4, 4, 3), np.uint8), r"got ndarray of shape \(2, 2, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"images\[0\] must be .*got uint8"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"got Tensor of shape \(3, 4, 4\): of a tensor .* make an array"),
        (None, "embed_image takes an image, or a list of images, got None"),
        ({"image": "a.png"}, "embed_image takes an image, or a list of images, got dict"),
    ],
    ids=_without_address,
)
def test_what_is_no_picture_is_refused(model, wrong, message):
    with unchecked(), pytest.raises(InputError, match=message):
        model.embed_image(wrong)


def test_files_that_cannot_be_read_are_named(model, files, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    cut = files[1].read_bytes()[:200]
    for given, message in (
        ([files[0], tmp_path / "missing.png"], r"images\[1\]: there is no file '.*missing.png'"),
        (tmp_path, "the image: there is no file"),
        ([str(tmp_path / "notes.png")], r"images\[0\], '.*notes.png', cannot be read as an image"),
        ([cut], r"images\[0\], 200 bytes, cannot be read as an image: .*truncated"),
        (b"", "the image, 0 bytes, cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            model.embed_image(given)


def test_a_damaged_picture_of_pillow_is_named_in_a_note(model, files):
    cut = Image.open(io.BytesIO(files[1].read_bytes()[:200]))
    with pytest.raises(OSError, match="truncated") as caught:
        model.embed_image([Image.new("L", (4, 4)), cut])
    assert caught.value.__notes__ == ["images[1]"]


def test_a_closed_picture_is_refused(model, files):
    with Image.open(files[0]) as image:
        pass
    with pytest.raises(InputError, match=r"images\[0\]: the file of this image was closed before its pixels were read"):
        model.embed_image([image])
    with pytest.raises(ValueError, match="was closed before"):
        c.image(image)


def test_pictures_are_read_a_batch_at_a_time(model, files):
    """A generator of a million images must not be in memory at once."""
    model_calls: list[int] = []
    read: list[Path] = []

    def each():
        for path in files:
            read.append(path)
            yield path

    handle = model.image_tower.register_forward_pre_hook(lambda *_: model_calls.append(len(read)))
    model.embed_image(each(), batch_size=1)
    handle.remove()
    assert model_calls == [1, 2, 3]


def test_a_batch_has_at_least_one(model):
    with pytest.raises(InputError, match="batch_size must be a whole number of at least 1, got 0"):
        model.embed_text(["a"], batch_size=0)
    with unchecked(), pytest.raises(InputError, match=r"must be a whole number of at least 1, got 8\.0"):
        model.embed_text(["a"], batch_size=8.0)
    with unchecked():
        assert list(batches("abc", np.int64(2))) == [["a", "b"], ["c"]]


def test_a_picture_in_base64_is_no_path(model, files):
    """The name of a file may be 255 bytes long, and the system failed on such a one with an error of its own."""
    written = base64.b64encode(files[0].read_bytes()).decode()
    assert len(written) > 255
    with pytest.raises(InputError, match=r"the image is no path but base64, str 'iVBOR.{,60}…: give the bytes"):
        model.embed_image(written)


def test_names_may_begin_with_a_tilde(model, files, tmp_path, monkeypatch):
    """Such as those of files that are being written; where no user has the name it is no home folder."""
    monkeypatch.chdir(tmp_path)
    files[0].rename(tmp_path / "~$0.png")
    assert torch.equal(model.embed_image("~$0.png"), model.embed_image(tmp_path / "~$0.png"))
    with pytest.raises(DataError, match=r"there is no file '~nobody-here/0.png'"):
        model.embed_image("~nobody-here/0.png")


def test_a_file_that_is_open_for_text_is_told_as_that(model, files):
    with files[0].open(encoding="latin-1") as text, pytest.raises(InputError, match="open it with mode 'rb'"):
        model.embed_image(text)


def test_the_bytes_of_every_lossless_format(model, arrays):
    expected = model.embed_image(arrays[0])
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        assert torch.equal(model.embed_image([encoded(Image.fromarray(arrays[0]), format)]), expected)
