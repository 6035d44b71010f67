"""Images written as text: base64 and data URIs, as people's programs write them, and plain strings that are such."""

from __future__ import annotations

import base64
import binascii
import re
import string
from urllib.parse import unquote_to_bytes

from serve.errors import InvalidImage, quoted

_BEGIN = re.compile(r"data:(?=image/|image;|\s*image/[\w.+-]+\s*;|[\w.+-]+/[\w.+-]+[;,]|[;,])", re.IGNORECASE)
"""Beginning of no text: "data: a report" is one."""
_UNSEEN = string.whitespace + "\ufeff\u200b"
"""Characters that files and web pages put before a text: byte-order marks and spaces without width among them."""
_AROUND = re.compile(r"""b?["']|base64[,:]\s*""")
"""Wrappings of images written as text that from_base64 names in its message."""
_HEAD = re.compile(r'data:\s*(?P<type>[^;,\s]*)\s*(?P<parameters>(?:;(?:[^;,"]|"[^"]*")*)*),', re.IGNORECASE)
_HEAD_CHARS = 4096
_KIND_CHARS = 512
_ANY_BYTES = ("", "application/octet-stream", "binary/octet-stream")
_TO_STANDARD = str.maketrans("-_", "+/")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+=*\s*")
_STRANGE = re.compile(r"[^A-Za-z0-9+/=]")
_SHORTEST = 44
"""Characters of base64 of the smallest image there can be."""
_BEGINNINGS = (
    *("/9j/", "_9j_", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "SUkr", "TU0AK", "AAAA", "AAABAA", "/woAAA"),
    *("_woAAA", "PHN2Zy", "PD94bW", "JVBERi0"),
)

_KINDS = (
    (re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL), "an image"),
    (re.compile(rb"BM....\0\0\0\0..\0\0[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "an image"),
    (re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"), "TIFF"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  "), "JPEG 2000"),
    (re.compile(rb"\x00\x00\x01\x00"), "ICO"),
    (
        re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg", re.I),
        "SVG",
    ),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"\s*<(?:!doctype )?html", re.I), "a web page"),
)


def kind_of(data: bytes) -> str | None:
    """Return the format that bytes begin as: one of images that is not read, or "an image", or None."""
    return next((name for pattern, name in _KINDS if pattern.match(data[:1024])), None)


def is_image(text: str) -> bool:
    """Tell whether a plain string is no text but an image: a data URI of one, or the base64 of an image's file.

    Raises:
        InvalidImage: it is a data URI of something else.
    """
    start = text[:_HEAD_CHARS].lstrip(_UNSEEN)
    bare = _AROUND.sub("", start, count=1) if _AROUND.match(start) else start
    if _BEGIN.match(bare) and (bare == start or _HEAD.match(bare)):  # a text may begin with a quotation
        kind = re.split("[;,]", bare[5:], maxsplit=1)[0].strip().lower()
        if kind.partition("/")[0] != "image":
            raise InvalidImage(
                f"a data URI of {_named(kind)} is neither a text nor an image: an image reads "
                "data:image/png;base64,... (or another image type), and a text is sent as it is"
            )
        return True
    return _is_base64_of_image(bare)


def refuse_image(text: str) -> str:
    """Return a text, unless it is an image.

    Raises:
        InvalidImage: it is a data URI, or the base64 of an image's file.
    """
    if is_image(text):
        raise InvalidImage('what is sent as "text" is an image: send it as {"image": ...}')
    return text


def base64_of(value: str) -> str | bytes:
    """Return the base64 of an image that is given as such, or as a data URI; of one without base64 the bytes.

    Raises:
        InvalidImage: a data URI of something else, or one that does not read as one.
    """
    value = value.strip(_UNSEEN)
    if value[:5].lower() != "data:":
        return value
    head = _HEAD.match(value[:_HEAD_CHARS])
    if head is None:
        raise InvalidImage("a data URI of an image reads data:image/png;base64,... (or another image type)")
    kind = head["type"].lower()
    if not (kind.partition("/")[0] == "image" or kind in _ANY_BYTES) or kind.startswith("image/svg"):
        raise InvalidImage(
            f"a data URI of {_named(kind)} is no image that can be read; one reads data:image/png;base64,... "
            "(or another image type)"
        )
    content = value[head.end() :]
    if not content:
        raise InvalidImage("a data URI has nothing after its comma")
    if _is_base64_of_image(content):  # also where the URI does not say that it is
        return content
    if not re.search(r";\s*base64\s*$", head["parameters"], re.IGNORECASE):
        return unquote_to_bytes(content)
    return unquote_to_bytes(content).decode("latin-1") if "%" in content else content


def from_base64(value: str) -> bytes:
    """Decode base64 as it is found: with + and / or - and _, with line breaks, with or without = at the end.

    Raises:
        InvalidImage: it is not base64, or a character is missing.
    """
    plain = "".join(value.split()).translate(_TO_STANDARD).rstrip("=")
    try:
        if strange := _STRANGE.search(plain):
            raise ValueError(f"there is no {quoted(strange[0])!r} in it{_wrapping(value)}")
        if len(plain) % 4 == 1:
            raise ValueError(f"of {len(plain):,} characters the last one stands alone, so it is cut short")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImage(f"an image is not valid base64 (no path or URL is read): {error}") from error


def _wrapping(value: str) -> str:
    """Return the forbidden wrapping of a base64 string, as the end of a message."""
    start = value.lstrip()[:8].lower()
    if start.startswith(("b'", 'b"')):
        return "; it is bytes as Python prints them: decode() them first"
    if start.startswith(("'", '"')):
        return "; it stands in quotes: send what is between them"
    if start.startswith("data:"):
        return "; it is a data URI within another: send the inner one"
    if start.startswith("base64"):
        return "; send what comes after base64, or a whole data URI"
    return ""


def _is_base64_of_image(text: str) -> bool:
    start = text[:_HEAD_CHARS].lstrip(_UNSEEN)
    start = start.rstrip(_UNSEEN + "'\"")  # of what stands in quotes
    if len(start) < _SHORTEST or not start.startswith(_BEGINNINGS) or not _BASE64.fullmatch(start):
        return False
    head = "".join(start.split()).translate(_TO_STANDARD).rstrip("=")[:_KIND_CHARS]
    try:
        return kind_of(base64.b64decode(head[: len(head) // 4 * 4])) is not None
    except (binascii.Error, ValueError):
        return False


def _named(kind: str) -> str:
    return quoted(kind) if kind else "no type"
