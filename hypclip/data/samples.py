"""The samples of a shard: the files of a WebDataset tar that share a key.

A file is called KEY.EXTENSION, and by the convention of WebDataset the key ends at the first dot. Names of people's
files have more dots (shot.2024.0001.jpg), so a key ends at the last dot where that alone makes samples of the files:
images with texts. Files that make none either way are bad samples that say so.
"""

from __future__ import annotations

import gzip
import itertools
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from webdataset.gopen import gopen

from hypclip.data.record import IMAGE_KEYS, TEXT_KEYS, BadSample
from hypclip.data.shards import is_local
from hypclip.errors import DataError

_MOST_FILES = 64
"""Files that one sample may have: more that begin alike up to the first dot are several samples."""
_SHOWN = 40
"""Bytes of what is no tar that a message shows: those of an error page or of a pointer of Git LFS say what it is."""
_NOT_DATA = re.compile(r"(^|/)\.[^./]|(^|/)\._|^__[^/]*__($|/)")
"""Names of hidden files and folders, such as macOS's ._x.jpg, and of WebDataset's own."""
_COMMAND_ENDED = re.compile(r"exit (\d+) \(read\)")
_UNREADABLE = (OSError, ValueError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)


def samples_of(shard: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of a shard in order: extension → bytes, with `__key__` and `__url__`.

    `__starts__` has the byte of the tar, uncompressed, that the content of each extension begins at.

    A sample whose files do not fit together has a BadSample as `__bad__` in place of them: a name that can be read in
    two ways, a file that comes twice, a key that comes again after others, a link. Hidden files and files of
    WebDataset's own (`__name__`) are passed over.

    Raises:
        DataError: part of the shard cannot be read; what can be was yielded before.
    """
    if is_local(shard) and Path(shard).is_file() and not Path(shard).stat().st_size:
        raise DataError(f"cannot read shard {shard}: it is an empty file")
    damage: list[BaseException] = []
    try:
        # tarfile reads the first of several gzip streams only, as `cat` and bgzip make them.
        with gzip.open(shard) if _is_gzip(shard) else gopen(shard) as stream:
            yield from _fitting(_joined(shard, _files(stream, damage)), damage)
    except _UNREADABLE as error:  # when opened, or of a command when it ends
        damage.append(error)
    if damage:
        raise DataError(f"cannot read shard {shard}: {'; '.join(dict.fromkeys(map(_reason, damage)))}")


def _reason(error: BaseException) -> str:
    told = getattr(error, "strerror", None) or str(next(iter(error.args), type(error).__name__))
    if command := _COMMAND_ENDED.search(told):  # of webdataset, which shows how it was called
        return f"the command that reads it ended with status {command[1]}"
    return told


def _is_gzip(shard: str) -> bool:
    return is_local(shard) and shard.lower().endswith((".gz", ".tgz"))


def samples_and_damage(shard: str) -> Iterator[dict[str, Any]]:
    """Yield what can be read of a shard, and in place of the rest, where there is any, a sample that says why.

    That has `__damage__` and `__url__`. Damage has a place among the samples, so that who goes through them again, up
    to some position, counts nothing twice.
    """
    try:
        yield from samples_of(shard)
    except DataError as error:
        yield {"__url__": shard, "__damage__": str(error).removeprefix(f"cannot read shard {shard}: ")}


# Files ----------------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    """A file of a tar; where it is a link, `link` says of what kind and to what.

    `first` and `last` are what its key would be, up to the first and up to the last dot.
    """

    first: str
    last: str
    extension: str
    content: bytes
    link: str = ""
    start: int = 0

    @property
    def suffix(self) -> str:
        """The part after the last dot, in lower case."""
        return self.extension.rpartition(".")[2]


class _Member(tarfile.TarInfo):
    """A header that is read or an error: by default tarfile takes a damaged one, and the end of data, for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the mark of the end
            if len(buf) < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it breaks off before the mark of its end") from error
            raise tarfile.ReadError(f"invalid header ({error})") from error


def _files(stream: Any, damage: list[BaseException]) -> Iterator[_File]:
    """Yield the files of a tar; the first error, where there is one, goes to `damage` and ends it."""
    begins, is_tar = b"", False
    try:
        if hasattr(stream, "peek"):  # a file, and no command
            begins = stream.peek(_SHOWN)[:_SHOWN]
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as tar:
            is_tar = True
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # which keeps all of them in memory
                if (file := _file(tar, member)) is not None:
                    yield file
            _require_nothing_more(tar)
    except _UNREADABLE as error:
        damage.append(
            error
            if is_tar or not begins
            else tarfile.ReadError(f"it does not begin as a tar does, but with {begins!r}")
        )


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _File | None:
    # Names in the encoding of an old system, which are no text to anything that comes after, are escaped.
    name = member.name.encode(errors="surrogateescape").decode(errors="backslashreplace").removeprefix("./")
    if _NOT_DATA.search(name) or not (member.isreg() or member.islnk() or member.issym()):
        return None
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    link, content = "", b""
    if member.isreg():
        found = tar.extractfile(member)
        assert found is not None
        content = found.read()
    else:
        link = f"{'symbolic' if member.issym() else 'hard'} link to {member.linkname}"
    last, _, suffix = base.rpartition(".")
    before, _, form = last.rpartition(".")
    if suffix.lower() in TEXT_KEYS and form.lower() in IMAGE_KEYS:
        last = before  # x.jpg.txt is the text of x.jpg
    last = last or base
    start = member.offset_data
    return _File(folder + slash + stem, folder + slash + last, extension.lower(), content, link, start)


def _require_nothing_more(tar: tarfile.TarFile) -> None:
    """Refuse what follows the end of a tar: readers stop there, and what `cat` joined to it would be lost.

    Zeros follow it up to a whole record. More of them are what a download that broke off, or a crash, leaves in a file
    that has had its full size from the start.
    """
    rest: Any = tar.fileobj
    zeros = 0
    while block := rest.read(2**20):
        if any(block):
            raise tarfile.ReadError(
                "more follows the mark of its end: join tars with `tar --concatenate`, not with cat"
            )
        zeros += len(block)
    if zeros > tarfile.RECORDSIZE:
        raise tarfile.ReadError(
            f"{zeros:,} bytes of zeros stand in place of its end, as when a download broke off: fetch it again, or "
            f"where it was written so, repack it with records of {tarfile.RECORDSIZE:,} bytes"
        )


# Samples --------------------------------------------------------------------------------------------------------------


def _joined(shard: str, files: Iterable[_File]) -> Iterator[dict[str, Any]]:
    """Join files that lie side by side and have one key."""
    for first, group in itertools.groupby(files, key=lambda file: file.first):
        held: list[_File] = []
        many = False
        for file in group:
            if len(held) >= _MOST_FILES and file.last != held[-1].last:
                many = True
                yield from (_sample(shard, key, of) for key, of in _by_last_dot(held))
                held = []
            held.append(file)
        if many:
            yield from (_sample(shard, key, of) for key, of in _by_last_dot(held))
        else:
            yield from _read_names(shard, first, held)


def _read_names(shard: str, first: str, files: Sequence[_File]) -> Iterator[dict[str, Any]]:
    """Yield the samples of files whose names are equal up to the first dot."""
    if not any("." in file.extension for file in files):
        yield _sample(shard, first, files)
        return
    parts = _by_last_dot(files)
    whole = sum(_is_whole(file.extension for file in of) for _, of in parts)
    hycoclip = any(file.extension == "numparents.txt" for file in files)
    own = [file for file in files if "." not in file.extension]
    images = [file for file in files if file.suffix in IMAGE_KEYS]
    texts = [file for file in files if file.suffix in TEXT_KEYS]
    own_is_whole = _is_whole(file.extension for file in own)
    several = whole > 1 if own_is_whole else 2 * whole > len(parts) and not own
    if whole == len(parts) or (several and not hycoclip):
        yield from (_sample(shard, key, of) for key, of in parts)
    elif own_is_whole:  # beside it masks and the like, such as KEY.depth.png
        yield _sample(shard, first, own)
    elif len(images) == 1 and texts and len({file.suffix for file in texts}) == len(texts):
        yield _sample(shard, first, [file._replace(extension=file.suffix) for file in (*images, *texts)])
    else:
        found = _listed(file.extension for file in files)
        advice = "HyCoCLIP's processed shards, whose boxes are gone, are not read" if hycoclip else (
            "a key ends at the first dot: keep dots out of keys, or give each key an image and a text of its own"
        )  # fmt: skip
        reason = "no image" if not images else "no caption" if not texts else "names that do not fit"
        yield _bad(shard, first, BadSample(reason, f"found {found}; {advice}"))


def _by_last_dot(files: Iterable[_File]) -> list[tuple[str, list[_File]]]:
    parts: dict[str, list[_File]] = {}
    for file in files:
        parts.setdefault(file.last, []).append(file._replace(extension=file.suffix))
    return list(parts.items())


def _is_whole(extensions: Iterable[str]) -> bool:
    """Return whether a sample has an image and a text."""
    found = {*extensions}
    return not found.isdisjoint(IMAGE_KEYS) and not found.isdisjoint(TEXT_KEYS)


def _sample(shard: str, key: str, files: Sequence[_File]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in files:
        if file.extension in found:
            return _bad(shard, key, BadSample("a file twice", f"{file.extension} comes twice"))
        if file.link and file.extension in (*IMAGE_KEYS, *TEXT_KEYS):
            advice = "links are not followed: write the files themselves (tar --dereference --hard-dereference)"
            return _bad(shard, key, BadSample("a link", f"{file.extension} is a {file.link}; {advice}"))
        found[file.extension] = file.content
    return {"__key__": key, "__url__": shard, "__starts__": {file.extension: file.start for file in files}, **found}


def _bad(shard: str, key: str, why: BadSample) -> dict[str, Any]:
    return {"__key__": key, "__url__": shard, "__bad__": why}


def _fitting(samples: Iterable[dict[str, Any]], damage: Sequence[BaseException]) -> Iterator[dict[str, Any]]:
    """Yield samples whose key is new; samples of an image or a text alone come last, since the rest may lie elsewhere.

    The half at which a damaged shard breaks off belongs to the damage.
    """
    seen: set[str] = set()
    halves: dict[str, dict[str, Any]] = {}
    key = ""
    for sample in samples:
        key = sample["__key__"]
        if key in halves:
            halves[key] |= sample
            extensions = _listed(name for name in halves[key] if not name.startswith("__"))
            why = f"{extensions} of one key lie apart: write the shard in the order of names (tar --sort=name)"
            halves[key]["__bad__"] = BadSample("files of a key apart", why)
        elif key in seen:
            why = "the key comes again after other samples: every sample of a shard needs a key of its own"
            yield _bad(sample["__url__"], key, BadSample("a key again", why))
        elif "__bad__" in sample or _is_whole(sample):
            yield sample
        else:
            halves[key] = {name: value if name.startswith("__") else b"" for name, value in sample.items()}
        seen.add(key)
    if damage and "__bad__" not in halves.get(key, {"__bad__": None}):
        del halves[key]
    yield from halves.values()


def _listed(names: Iterable[str]) -> str:
    """Return extensions for a message, the first dozen."""
    found = [name or "no extension" for name in dict.fromkeys(names)]
    return ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
