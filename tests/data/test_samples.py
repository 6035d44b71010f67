"""What is in a shard: files joined by key, names with dots, damage."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import psutil
import pytest

from hypclip.data.samples import samples_of
from hypclip.errors import DataError
from tests.support.data import SMALL, pair, write_pairs, write_tar

# Reading --------------------------------------------------------------------------------------------------------------


def keys(shard):
    """Return the keys that can be read, and the error if there is one."""
    found = []
    try:
        for sample in samples_of(str(shard)):
            found.append(sample["__key__"])
    except DataError as error:
        return found, str(error)
    return found, None


def test_samples_come_in_order_with_their_files_and_their_shard(tmp_path):
    more = [("c.JSON", b"{}"), ("c.JPG", SMALL), *pair("dir.1/d", "z"), *pair("./e", "w")]
    path = write_tar(tmp_path / "0.tar", [*pair("b", "x"), *pair("a", "y"), *more])
    samples = list(samples_of(str(path)))
    assert [sample["__key__"] for sample in samples] == ["b", "a", "c", "dir.1/d", "e"]
    assert {sample["__url__"] for sample in samples} == {str(path)}
    assert [sample["txt"] for sample in samples if "txt" in sample] == [b"x", b"y", b"z", b"w"]
    for sample in samples:
        for extension, start in sample["__starts__"].items():
            assert path.read_bytes()[start:].startswith(sample[extension])
    assert (samples[2]["json"], samples[2]["jpg"]) == (b"{}", SMALL)


def test_compressed_shards_are_read(tmp_path):
    plain = Path(write_pairs(tmp_path, [3])[0]).read_bytes()
    packed = tmp_path / "0.tar.gz"
    packed.write_bytes(gzip.compress(plain))
    assert keys(packed) == (["0000", "0001", "0002"], None)


@pytest.mark.parametrize("name", ["0.tar.gz", "0.TGZ"])
def test_a_shard_of_several_gzip_streams_is_read_whole(tmp_path, name):
    """As bgzip writes them."""
    plain = Path(write_pairs(tmp_path, [9])[0]).read_bytes()
    packed = tmp_path / name
    packed.write_bytes(b"".join(gzip.compress(plain[i : i + 5000]) for i in range(0, len(plain), 5000)))
    assert keys(packed) == ([f"{i:04}" for i in range(9)], None)


def test_compressed_shards_joined_by_cat_are_damage(tmp_path):
    first, second = (Path(name).read_bytes() for name in write_pairs(tmp_path, [2, 3]))
    packed = tmp_path / "0.tar.gz"
    packed.write_bytes(gzip.compress(first) + gzip.compress(second))
    found, error = keys(packed)
    assert found == ["0000", "0001"]
    assert "more follows the mark of its end" in error


def cut(path, member, inside):
    """Cut a shard `inside` bytes after the header of a member begins; pairs of write_pairs take 2,048 bytes each."""
    os.truncate(path, 1024 * member + inside)
    return path


def test_a_truncated_shard_gives_what_it_has_and_then_says_so(tmp_path):
    path = cut(write_pairs(tmp_path, [5])[0], member=6, inside=520)
    assert keys(path) == (["0000", "0001", "0002"], f"cannot read shard {path}: unexpected end of data")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "it is an empty file"),
        (b"not a tar" * 99, "it does not begin as a tar does, but with b'not a tar"),
        (gzip.compress(bytes(9999))[:20], ""),
    ],
    ids=["empty", "not a tar", "truncated gzip"],
)
def test_a_file_that_is_no_tar_is_named(tmp_path, content, reason):
    path = tmp_path / "0.tar"
    path.write_bytes(content)
    found, error = keys(path)
    assert found == []
    assert error.startswith(f"cannot read shard {path}: {reason}")


def test_a_missing_file_is_named(tmp_path):
    assert keys(tmp_path / "0.tar") == ([], f"cannot read shard {tmp_path}/0.tar: No such file or directory")


def test_a_tar_of_no_files_is_no_error(tmp_path):
    assert keys(write_tar(tmp_path / "0.tar", [])) == ([], None)


# Names ----------------------------------------------------------------------------------------------------------------


def read(shard):
    """Return key → text of good samples, and key → message of bad ones."""
    samples = list(samples_of(str(shard)))
    return (
        {s["__key__"]: s.get("txt", b"").decode() for s in samples if "__bad__" not in s},
        {s["__key__"]: str(s["__bad__"]) for s in samples if "__bad__" in s},
    )


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 200])
@pytest.mark.parametrize("name", ["shot.2024.{:04}", "v1.2/{:04}.input", "J. Smith, {}", "{:04}.rf.0a1b"])
def test_names_with_dots_are_read_by_the_last_where_that_makes_samples(tmp_path, count, name):
    names = [name.format(i) for i in range(count)]
    assert read(write_tar(tmp_path / "0.tar", [f for n in names for f in pair(n)])) == ({n: n for n in names}, {})


def test_names_with_and_without_dots_may_be_in_one_shard(tmp_path):
    names = ["0001", "v1.0-a", "v1.0-b", "v1.1-a", "0002", "IMG_1", "IMG_1.edited"]
    assert read(write_tar(tmp_path / "0.tar", [f for n in names for f in pair(n)])) == ({n: n for n in names}, {})


def test_a_pair_with_a_dot_beside_one_without_is_no_mask(tmp_path):
    """One that lacks its text beside them, which costs itself alone, too."""
    files = [*pair("a"), *pair("a.1"), ("a.2.png", SMALL)]
    samples = {sample["__key__"]: sample for sample in samples_of(str(write_tar(tmp_path / "0.tar", files)))}
    assert samples.keys() == {"a", "a.1", "a.2"}
    assert [samples[key].get("txt") for key in ("a", "a.1", "a.2")] == [b"a", b"a.1", None]


def test_a_sample_without_a_text_among_names_with_dots_costs_itself_alone(tmp_path):
    names = [f"shot.2024.{i:04}" for i in range(200)]
    files = [file for n in names for file in pair(n) if file[0] not in ("shot.2024.0003.txt", "shot.2024.0150.png")]
    good, bad = read(write_tar(tmp_path / "0.tar", files))
    assert good.keys() == set(names)  # that a text or an image is missing is for the record to say
    assert bad == {}
    samples = {sample["__key__"]: sample for sample in samples_of(str(tmp_path / "0.tar"))}
    assert "txt" not in samples["shot.2024.0003"]
    assert "png" not in samples["shot.2024.0150"]


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize("name", ["{:04}", "shot.2024.{:04}"])
def test_a_text_may_be_called_by_the_whole_name_of_its_picture(tmp_path, name, count):
    names = [name.format(i) for i in range(count)]
    files = [file for n in names for file in ((f"{n}.jpg", SMALL), (f"{n}.jpg.txt", n.encode()))]
    assert read(write_tar(tmp_path / "0.tar", files)) == ({n: n for n in names}, {})


@pytest.mark.parametrize("text", [[("0001.txt", b"a dog")], [("0001.caption.txt", b"a dog")]])
def test_one_picture_and_one_text_are_a_sample_wherever_their_dots_are(tmp_path, text):
    shard = write_tar(tmp_path / "0.tar", [("0001.input.jpg", SMALL), *text, *pair("0002")])
    assert read(shard) == ({"0001": "a dog", "0002": "0002"}, {})


def test_masks_beside_a_pair_are_left_aside(tmp_path):
    shard = write_tar(tmp_path / "0.tar", [*pair("0001", "a dog"), ("0001.depth.png", b"x"), ("0001.seg.png", b"y")])
    (sample,) = samples_of(str(shard))
    assert {name: sample[name] for name in sample if not name.startswith("__")} == {"png": SMALL, "txt": b"a dog"}


HYCOCLIP = [("7.child.jpg", SMALL), ("7.child.txt", b"x"), ("7.numparents.txt", b"1")]
HYCOCLIP += [
    ("7.parent000.jpg", SMALL),
    ("7.parent000.txt", b"y"),
    ("7.parent001.jpg", SMALL),
    ("7.parent001.txt", b"y"),
]
MISFITS = {
    "two pictures, one text": (
        [("7.input.jpg", SMALL), ("7.output.jpg", SMALL), ("7.edit.txt", b"x")],
        "names that do not fit: found input.jpg, output.jpg, edit.txt; a key ends at the first dot",
    ),
    "one picture, four texts": (
        [("7.jpg", SMALL), *((f"7.{name}.txt", b"x") for name in ("sci", "com", "taxon", "sci_com"))],
        "names that do not fit: found jpg, sci.txt, com.txt, taxon.txt, sci_com.txt; a key ends at the first dot",
    ),
    "HyCoCLIP's": (HYCOCLIP, "HyCoCLIP's processed shards, whose boxes are gone, are not read"),
    "no text": ([("7.a.jpg", SMALL), ("7.b.jpg", SMALL)], "no caption: found a.jpg, b.jpg"),
    "no image": ([("7.image", SMALL), ("7.caption.json", b"{}")], "no image: found image, caption.json"),
    "a file twice": ([*pair("7", "first"), ("7.txt", b"second")], "a file twice: txt comes twice"),
}


@pytest.mark.parametrize("files, message", MISFITS.values(), ids=MISFITS)
def test_files_that_do_not_fit_are_named_and_the_rest_is_read(tmp_path, files, message):
    good, bad = read(write_tar(tmp_path / "0.tar", [*pair("6"), *files, *pair("8")]))
    assert good == {"6": "6", "8": "8"}
    assert bad.keys() == {"7"}
    assert message in bad["7"]


def test_pictures_first_and_texts_later_are_named_as_that(tmp_path):
    pairs = [pair(f"{i:03}") for i in range(90)]
    good, bad = read(write_tar(tmp_path / "0.tar", [*(p[0] for p in pairs), *(p[1] for p in pairs), *pair("last")]))
    assert good == {"last": "last"}
    assert bad.keys() == {f"{i:03}" for i in range(90)}
    assert set(bad.values()) == {
        "files of a key apart: png, txt of one key lie apart: write the shard in the order of names (tar --sort=name)"
    }


def test_a_key_that_comes_again_is_named(tmp_path):
    shard = write_tar(tmp_path / "0.tar", [*pair("a", "1"), *pair("b"), *pair("a", "2")])
    assert read(shard)[0] == {"a": "1", "b": "b"}
    first, _, again = samples_of(str(shard))
    assert (first["__key__"], first["txt"]) == ("a", b"1")
    assert again.keys() == {"__key__", "__url__", "__bad__"}
    assert str(again["__bad__"]).startswith("a key again: the key comes again after other samples")


def test_hidden_files_and_files_of_the_format_are_no_samples(tmp_path):
    more = ["._a.png", ".DS_Store", "x/._b.txt", "__MACOSX/._a.png", ".ipynb_checkpoints/a.png", "__meta__/x.txt"]
    assert read(write_tar(tmp_path / "0.tar", [(name, b"x") for name in more] + pair("a"))) == ({"a": "a"}, {})


@pytest.mark.parametrize("kind, word", [(tarfile.SYMTYPE, "symbolic"), (tarfile.LNKTYPE, "hard")])
def test_links_are_explained(tmp_path, kind, word):
    write_tar(tmp_path / "0.tar", pair("a"))
    with tarfile.open(tmp_path / "0.tar", "a") as tar:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = kind, "a.png"
        tar.addfile(link)
        text = tarfile.TarInfo("b.txt")
        text.size = 1
        tar.addfile(text, io.BytesIO(b"b"))
    good, bad = read(tmp_path / "0.tar")
    assert good == {"a": "a"}
    assert bad == {
        "b": f"a link: png is a {word} link to a.png; links are not followed: write the files themselves "
        "(tar --dereference --hard-dereference)"
    }


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [2, 3, 5, 10])
@pytest.mark.parametrize("pairs", [40, 41])
def test_a_shard_cut_anywhere_is_damaged(tmp_path, share, pairs):
    """Also where a cut falls between two files, or between an image and its text."""
    path = Path(write_pairs(tmp_path, [pairs])[0])
    size = path.stat().st_size // share
    os.truncate(path, size)
    found, error = keys(path)
    assert found == [f"{i:04}" for i in range(len(found))]
    assert len(found) in (size // 2048, size // 2048 + 1)
    assert error in (
        f"cannot read shard {path}: unexpected end of data",
        f"cannot read shard {path}: it breaks off before the mark of its end",
    )


def test_a_damaged_header_is_damage_and_not_the_end(tmp_path):
    path = Path(write_pairs(tmp_path, [9])[0])
    content = bytearray(path.read_bytes())
    content[4 * 2048 + 20] ^= 0x55
    path.write_bytes(content)
    found, error = keys(path)
    assert found == ["0000", "0001", "0002", "0003"]
    assert error == f"cannot read shard {path}: invalid header (bad checksum)"


def test_shards_joined_by_cat_are_damage(tmp_path):
    first, second = (Path(name) for name in write_pairs(tmp_path, [2, 3]))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    found, error = keys(first)
    assert found == ["0000", "0001"]
    assert "more follows the mark of its end: join tars with `tar --concatenate`" in error


@pytest.mark.parametrize("kept", [0, 3])
def test_a_shard_whose_rest_is_zeros_is_damaged(tmp_path, kept):
    """As after a crash, or a download that broke off in a file that had its full size from the start."""
    path = Path(write_pairs(tmp_path, [20])[0])
    content = path.read_bytes()
    path.write_bytes(content[: kept * 2048].ljust(len(content), b"\0"))
    found, error = keys(path)
    assert found == [f"{i:04}" for i in range(kept)]
    zeros = len(content) - kept * 2048 - 512
    assert f"cannot read shard {path}: {zeros:,} bytes of zeros stand in place of its end" in error


@pytest.mark.parametrize("pairs", range(12))
def test_a_tar_may_end_in_a_record_of_zeros(tmp_path, pairs):
    path = write_pairs(tmp_path, [pairs])[0]
    assert keys(path) == ([f"{i:04}" for i in range(pairs)], None)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b"<!DOCTYPE html><html>404 Not Found" + b" " * 600,
        b"(\xb5/\xfd" + bytes(range(256)) * 4,
    ],
)
def test_what_is_no_tar_is_shown_by_its_beginning(tmp_path, content):
    path = tmp_path / "0.tar"
    path.write_bytes(content)
    assert keys(path) == ([], f"cannot read shard {path}: it does not begin as a tar does, but with {content[:40]!r}")


def test_names_that_are_no_unicode_are_escaped(tmp_path):
    path = write_tar(tmp_path / "0.tar", [*pair("caf\udce9", "a"), *pair("caf\udce8", "b")])
    assert keys(path) == (["caf\\xe9", "caf\\xe8"], None)


def test_a_failing_command_is_damage(tmp_path):
    path = write_pairs(tmp_path, [2])[0]
    assert keys(f"pipe:cat {path}") == (["0000", "0001"], None)
    command = f"pipe:cat {path}; exit 3"
    assert keys(command)[1] == f"cannot read shard {command}: the command that reads it ended with status 3"


def test_a_shard_is_closed_after_reading_all_and_after_reading_some(tmp_path):
    path = write_pairs(tmp_path, [3])[0]
    for count in (3, 1):
        samples = samples_of(path)
        for _ in range(count):
            next(samples)
        assert [file.path for file in psutil.Process().open_files()].count(path) == 1
        samples.close()
        assert [file.path for file in psutil.Process().open_files()].count(path) == 0
