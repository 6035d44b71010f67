"""Pictures written as text: base64 and data URIs, as people's programs write them, and plain strings that are such."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from serve.errors import InvalidImage, quoted

_BEGIN = re.compile(r"\s*data:(?=image/|[\w.+-]+/[\w.+-]+[;,]|[;,])", re.IGNORECASE)
"""What no text begins with: "data: a report" is one."""
_HEAD = re.compile(r'\s*data:(?P<type>[^;,\s]*)(?P<parameters>(?:;(?:[^;,"]|"[^"]*")*)*),', re.IGNORECASE)
_HEAD_CHARS = 4096
_ANY_BYTES = ("", "application/octet-stream", "binary/octet-stream")
_TO_STANDARD = str.maketrans("-_", "+/")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+=*\s*")
_SHORTEST = 44
"""Characters of base64 of the smallest picture there can be."""
_BEGINNINGS = ("/9j/", "_9j_", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0AK", "AAAA", "/woAAA")
_BYTES_REPR = re.compile(r"""\s*b(['"]).*\1\s*""", re.DOTALL)

_KINDS = (
    (re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL), "a picture"),
    (re.compile(rb"BM....\0\0\0\0..\0\0[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "a picture"),
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
    """Return what bytes begin as: a format of pictures that is not read, or "a picture", or None."""
    return next((name for pattern, name in _KINDS if pattern.match(data[:1024])), None)


def is_picture(text: str) -> bool:
    """Tell whether a plain string is no text but a picture: a data URI of one, or the base64 of a picture's file.

    Raises:
        InvalidImage: it is a data URI of something else.
    """
    if _BEGIN.match(text[:_HEAD_CHARS]):
        kind = _type_of(text)
        if not kind.startswith("image/"):
            raise InvalidImage(
                f"a data URI of {_named(kind)} is neither a text nor a picture: a picture reads "
                "data:image/png;base64,... (or another image type), and a text is sent as it is"
            )
        return True
    return _is_base64_of_picture(text)


def refuse_picture(text: str) -> str:
    """Return what was said to be a text, unless it is a picture.

    Raises:
        InvalidImage: it is a data URI, or the base64 of a picture's file.
    """
    if is_picture(text):
        raise InvalidImage('what is sent as "text" is a picture: send it as {"image": ...}')
    return text


def base64_of(value: str) -> str | bytes:
    """Return the base64 of a picture that is given as such, or as a data URI; of one without base64 the bytes.

    Raises:
        InvalidImage: a data URI of something else, or one that does not read as one.
    """
    if value.lstrip()[:5].lower() != "data:":
        return value
    head = _HEAD.match(value[:_HEAD_CHARS])
    if head is None:
        raise InvalidImage("a data URI of an image reads data:image/png;base64,... (or another image type)")
    kind = head["type"].lower()
    if not (kind.startswith("image/") or kind in _ANY_BYTES) or kind.startswith("image/svg"):
        raise InvalidImage(
            f"a data URI of {_named(kind)} is no picture that can be read; one reads data:image/png;base64,... "
            "(or another image type)"
        )
    content = value[head.end() :]
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
        if len(plain) % 4 == 1:
            raise ValueError(f"of {len(plain):,} characters the last one stands alone, so it is cut short")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        python = "; it is bytes as Python prints them: decode() them first" if _BYTES_REPR.fullmatch(value) else ""
        raise InvalidImage(f"an image is not valid base64 (no path or URL is read): {error}{python}") from error


def _is_base64_of_picture(text: str) -> bool:
    start = text[:_HEAD_CHARS].lstrip()
    if len(start) < _SHORTEST or not start.startswith(_BEGINNINGS) or not _BASE64.fullmatch(start):
        return False
    head = "".join(start.split()).translate(_TO_STANDARD)[:_SHORTEST]
    try:
        return kind_of(base64.b64decode(head)) is not None
    except (binascii.Error, ValueError):
        return False


def _type_of(text: str) -> str:
    return re.split("[;,]", text[:_HEAD_CHARS].lstrip()[5:], maxsplit=1)[0].strip().lower()


def _named(kind: str) -> str:
    return quoted(kind) if kind else "no type"
