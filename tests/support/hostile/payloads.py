"""2,000 hostile requests by name, the same ones for a seed: pictures here, and the others of the modules beside."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from tests.support.hostile import images as images
from tests.support.hostile import json_bodies as bodies
from tests.support.hostile import wire as wire
from tests.support.hostile.request import IMAGE, Payload, form, posted
from tests.support.serving import encoded, quadrants

ALLOWED_HOST = "localhost"
"""The host that the server under attack may fetch from: a name of this machine, so every address has to be refused."""

_GOOD_PICTURE = encoded(quadrants((16, 12)))


def payloads(count: int = 2_000, seed: int = 0) -> Iterator[Payload]:
    """Yield as many different payloads, of every kind its share."""
    kinds = {kind.__name__.strip("_"): kind(Random(f"{seed} {kind.__name__}")) for kind in _KINDS}
    seen: set[bytes] = set()
    names: set[str] = set()
    for kind in itertools.islice(itertools.cycle(kinds), count):
        payload, digest = next(
            (payload, digest)
            for payload in itertools.islice(kinds[kind], 1_000)
            if (digest := hashlib.sha256(payload.raw).digest()) not in seen
        )
        name = f"{kind}: {payload.name}"
        if name in names:
            name += f" ({len(names)})"
        seen.add(digest)
        names.add(name)
        yield replace(payload, name=name)


def _picture_in(random: Random, data: bytes) -> tuple[str, bytes, str]:
    """Put a file into a request of some kind."""
    text = base64.b64encode(data).decode()
    uri = f"data:image/{random.choice(['png', 'jpeg', 'svg+xml', 'x-icon'])};base64,{text}"
    value = random.choice([text, uri])
    where = random.choice(["form", "embed", "embed", "retrieve", "classify", "put", "openai", "traverse"])
    match where:
        case "form":
            body, kind = form([("image", random.choice(["a.png", "../../a", "a\\b", ""]), data)])
            return where, posted(body, Content_Type=kind), IMAGE
        case "embed":
            inputs = random.choice(
                [[{"image": value}], ["a", {"image": value}], [{"image": _GOOD_PICTURE}, {"image": value}]]
            )
            return where, posted({"inputs": inputs}), IMAGE
        case "retrieve":
            return where, posted({"query": {"image": value}}, "/retrieve"), IMAGE
        case "classify":
            return where, posted({"inputs": [{"image": value}], "labels": ["a", "b"]}, "/classify"), IMAGE
        case "put":
            point = {"id": "hostile", "image": value}
            return where, posted({"points": [point]}, "/collections/hostile/points", "PUT"), IMAGE
        case "openai":
            body = random.choice([{"input": [{"image": value}]}, {"input": [value], "modality": "image"}])
            return where, posted({"model": "hypclip", **body}, "/v1/embeddings"), IMAGE
        case _:
            return where, posted({"source": {"image": value}, "steps": 5}, "/hierarchy/traverse"), IMAGE


def _files(source: Callable[[Random], Iterator[images.File]], random: Random) -> Iterator[Payload]:
    for name, data in source(random):
        where, raw, names = _picture_in(random, data)
        yield Payload(f"{name}, to {where}", raw, names)


def _bombs(random: Random) -> Iterator[Payload]:
    return _files(images.bombs, random)


def _polyglots(random: Random) -> Iterator[Payload]:
    return _files(images.polyglots, random)


def _damaged(random: Random) -> Iterator[Payload]:
    return _files(images.damaged, random)


def _outside(random: Random) -> Iterator[Payload]:
    return _files(images.outside, random)


def _exif(random: Random) -> Iterator[Payload]:
    return _files(images.exif, random)


def _strips(random: Random) -> Iterator[Payload]:
    return _files(images.strips, random)


def _strings_of_images(random: Random) -> Iterator[Payload]:
    good = _GOOD_PICTURE
    while True:
        number = random.randint(0, 10**6)
        for name, value in {
            "no padding": good.rstrip("=") + "A",
            "URL-safe base64": good.replace("+", "-").replace("/", "_") + "-_",
            "base64 with a space in each place": " ".join(good),
            "a data URI of nothing": "data:",
            "a data URI without base64": f"data:image/png,{good}{number}",
            "a data URI of many parameters": "data:image/png" + f";a={number}" * 5_000 + ";base64," + good,
            "a data URI in a data URI": f"data:image/png;base64,data:image/png;base64,{good}{number}",
            "a data URI with a slash too many": f"data:image/png/{number};base64," + good,
            "a data URI of half a million semicolons": "data:image/png" + ";" * (500_000 + number % 1_000),
            "base64 that ends in the middle": good[: number % len(good)],
            "base64 and a NUL": good[:10] + "\0" + good[10:] + str(number),
            "base64 in other digits": "١٢٣٤" * (number % 50 + 1),
            "a path": f"/etc/passwd{number}",
            "a Windows path": f"\\\\{number}\\share\\a.png",
            "eleven megabytes": "A" * (15_000_000 + 4 * (number % 1_000)),
            "ten megabytes of new lines": "\n" * (10_000_000 + number % 1_000),
        }.items():
            yield Payload(name, posted({"inputs": [{"image": value}]}), IMAGE)


def _urls(random: Random) -> Iterator[Payload]:
    hosts = [
        *("127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::]", "0"),
        *("0.0.0.0", "169.254.169.254", "metadata.google.internal", "10.0.0.1", "192.168.0.1", "100.64.0.1"),
        *("[fd00::1]", "[fe80::1%25eth0]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "224.0.0.1", "255.255.255.255"),
        *(f"user:secret@{ALLOWED_HOST}", f"{ALLOWED_HOST}@evil.example", f"{ALLOWED_HOST}.evil.example"),
        *(f"evil.example#{ALLOWED_HOST}", f"evil.example\\@{ALLOWED_HOST}", f"{ALLOWED_HOST}%00.evil.example"),
        *(
            f"{ALLOWED_HOST}.",
            f"{ALLOWED_HOST.upper()}",
            "ⓛocalhost",
            "xn--",
            "a" * 300,
            "..",
            "",
            " ",
            "%6c%6fcalhost",
        ),
        *(ALLOWED_HOST, f"{ALLOWED_HOST}:80", f"{ALLOWED_HOST}:22", f"{ALLOWED_HOST}:0", f"{ALLOWED_HOST}:99999"),
        *(f"{ALLOWED_HOST}:-1", f"{ALLOWED_HOST}:80:80", f"{ALLOWED_HOST}\r\nX: y", f"{ALLOWED_HOST}\t", "☃.example"),
    ]
    schemes = [
        "http",
        "https",
        "HTTP",
        "file",
        "ftp",
        "gopher",
        "dict",
        "ldap",
        "jar",
        "data",
        "blob",
        "unix",
        "ws",
        "s3",
    ]
    while True:
        host, scheme, number = random.choice(hosts), random.choice(schemes), random.randint(0, 10**6)
        url = f"{scheme}://{host}/{random.choice(['', 'a.png', '../..', '%2e%2e', '?a=http://b', '🐟'])}?{number}"
        url = random.choice([url, f" {url}", f"{url}\n", url.replace("//", "///"), url.replace("://", ":")])
        where, body = random.choice(
            [
                ("embed", posted({"inputs": [{"image": url}]})),
                ("openai", posted({"input": url, "modality": "image"}, "/v1/embeddings")),
                ("retrieve", posted({"query": {"image": url}}, "/retrieve")),
                ("put", posted({"points": [{"id": "a", "image": url}]}, "/collections/hostile/points", "PUT")),
            ]
        )
        yield Payload(f"{url!r} in {where}", body, IMAGE)


_KINDS: list[Callable[[Random], Iterator[Payload]]] = [
    *(_bombs, _polyglots, _damaged, _outside, _exif, _strips, _strings_of_images, _urls),
    *(
        bodies.wrong_types,
        bodies.points,
        bodies.numbers,
        bodies.structures,
        bodies.texts,
        bodies.long,
        bodies.collections,
    ),
    *(bodies.filters, bodies.taxonomies, bodies.openai),
    *(wire.content_types, wire.forms, wire.targets, wire.headers, wire.lengths, wire.no_http),
]
