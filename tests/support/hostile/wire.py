"""Hostile HTTP: content types, forms, paths, headers, lengths, and what is no HTTP at all."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterator
from random import Random

from tests.support.hostile.request import BODY, IMAGE, Payload, form, posted, request
from tests.support.serving import encoded, quadrants

_GOOD_PICTURE = encoded(quadrants((16, 12)))


def content_types(random: Random) -> Iterator[Payload]:
    good = b'{"inputs": ["a"]}'
    types = [
        *(
            "",
            "text/plain",
            "application/json;",
            "application/json; charset=utf-7",
            "application/json; charset=" + "x" * 5_000,
        ),
        *("application/json, text/html", "application/jsonx", "json", "/", "application/", "*/*", "application/*+json"),
        *("application/vnd.api+json", "APPLICATION/JSON", "text/json", "application/x-www-form-urlencoded", "\xff\xfe"),
        *(
            "application/json; charset=\xe9",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=a",
        ),
        *("application/octet-stream", "image/png", "application/xml", "application/json\t; a=b", '"application/json"'),
    ]
    encodings = ["gzip", "deflate", "br", "zstd", "identity, gzip", "x", "GZIP", "gzip, gzip, gzip", "\xff", "compress"]
    while True:
        number = random.randint(0, 10**6)
        path = random.choice(["/embed", "/retrieve", "/classify", "/v1/embeddings", "/hierarchy/order"])
        body = good + b" " * (number % 200)
        kind = random.choice(types)
        yield Payload(
            f"{kind[:60]!r} to {path}, {len(body)}",
            posted(body, path, Content_Type=kind),
            rf"Content-Type|form|{BODY}|Field|first|query|inputs?|labels",
        )
        encoding = random.choice(encodings)
        packed = gzip.compress(bytes(number) if number % 2 else body, mtime=0) if number % 3 else zlib.compress(body)
        yield Payload(
            f"encoded as {encoding!r}, {len(packed)}",
            posted(packed, path, Content_Encoding=encoding),
            "Content-Encoding",
        )
        raw = posted(
            body,
            path,
            Accept=random.choice(["text/html", "", "\xff", "image/*;q=" + "9" * 3_000]),
            Accept_Encoding="br",
        )
        yield Payload(f"an odd Accept, {number}", raw, rf"{BODY}|Field|first|query|inputs?|labels")


def forms(random: Random) -> Iterator[Payload]:
    picture = base64.b64decode(_GOOD_PICTURE)
    file = ("image", "a.png", picture)
    names = [
        "../../etc/passwd",
        "..\\..\\a",
        "a\0.png",
        "/dev/null",
        "a" * 5_000,
        "\xff",
        "",
        "con",
        'a"; name="text',
        "a;b=c",
    ]
    while True:
        number = random.randint(0, 10**6)
        name = random.choice(names)
        text = ("text", None, f"a {number}".encode())
        good, kind = form([text, file])
        for what, (body, content_type) in {
            "no boundary": (good, "multipart/form-data"),
            "another boundary": (good, "multipart/form-data; boundary=other"),
            "an empty boundary": (good, "multipart/form-data; boundary="),
            f"a boundary of {number % 9_000}": form([text], "b" * (number % 9_000 + 1)),
            "no end": (good[:-14], kind),
            "cut": (good[: number % len(good)], kind),
            "nothing": (b"", kind),
            "noise": (random.randbytes(number % 3_000), kind),
            "only new lines": (b"\r\n" * (number % 3_000), kind),
            f"a file called {name[:30]!r}": form([("image", name, picture)]),
            f"a field called {name[:30]!r}": form([(name, None, b"a"), text]),
            f"{number % 700 + 257} texts": form([("text", None, b"%d" % i) for i in range(number % 700 + 257)]),
            f"10,000 parts, {number % 100}": form([("text", None, b"")] * (10_000 + number % 100)),
            f"{number % 500 + 257} files": form([("image", "a", b"x")] * (number % 500 + 257)),
            "no name": (good.replace(b'; name="text"', b""), kind),
            "no disposition": (good.replace(b"Content-Disposition", b"X-Disposition"), kind),
            "a disposition of its own": (good.replace(b"form-data;", b"attachment;"), kind),
            "a huge header": (good.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * (100_000 + number) + b"\r\n\r\n", 1), kind),
            "5,000 headers": (
                good.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * (5_000 + number % 99) + b"\r\n", 1),
                kind,
            ),
            "a header without a colon": (
                good.replace(b"\r\n\r\n", b"\r\nX" + b"x" * (number % 99) + b"\r\n\r\n", 1),
                kind,
            ),
            "a text as a file": form([("text", "a.txt", b"a %d" % number)]),
            "a file as a text": form([("image", None, picture + b"%d" % number)]),
            "a blank text": form([("text", None, b" " * (number % 99 + 1))]),
            "a long text": form([("text", None, b"x" * (8_193 + number % 20_000))]),
            "a very long text": form([("text", None, b"x" * (2_000_000 + number))]),
            "a text that is no UTF-8": form([("text", None, b"\xff\xfe%d" % number)]),
            "another geometry": form([text, ("geometry", None, b"klein")]),
            "a geometry twice": form([text, ("geometry", None, b"space"), ("geometry", None, b"space")]),
            "a geometry as a file": form([text, ("geometry", "a", b"space")]),
            "only a geometry": form([("geometry", None, b"space"), (f"geometry{number}", None, b"")]),
            "an unknown field": form([text, (f"field{number}", None, b"")]),
            "a charset": form([text, ("_charset_", None, b"utf-7")]),
            "a huge file": form([("image", "a", bytes(10_500_000 + number))]),
            "a charset of the type": (good, f"{kind}; charset={random.choice(['utf-7', 'idna', 'hex', 'rot13', 'x'])}"),
        }.items():
            raw = posted(body, Content_Type=content_type, X_Number=str(number))
            yield Payload(f"{what}, {len(body)}", raw, rf"form|image|text|geometry|field|body|permitted|{IMAGE}")
        yield Payload(
            f"a form to another route, {number}", posted(good, "/retrieve", Content_Type=kind), "Content-Type"
        )


def targets(random: Random) -> Iterator[Payload]:
    paths = [
        *(
            "/%00",
            "/embed%00",
            "/embed/",
            "//embed",
            "/./embed",
            "/../embed",
            "/..//..//etc/passwd",
            "/embed%2f",
            "/%65mbed",
        ),
        *(
            "/docs/static/../../../etc/passwd",
            "/docs/static/%2e%2e/%2e%2e/pyproject.toml",
            "/docs/static/..%2f..%2fapp.py",
        ),
        *(
            "/docs/static//etc/passwd",
            "/docs/static/%00",
            "/docs/static/a" + "b" * 300,
            "/docs/static/",
            "/docs/%0d%0aX: y",
        ),
        *(
            "/%ff%fe",
            "/%c0%ae%c0%ae/",
            "/%F0%9F%90%9F",
            "/%zz",
            "/%",
            "/%u0041",
            "/a" * 5_000,
            "/" + "a" * 60_000,
            "/embed;a=b",
        ),
        *(
            "/collections/%2e%2e",
            "/collections/..",
            "/collections/a%2fb",
            "/collections/" + "a" * 65,
            "/collections/%00",
        ),
        *("/collections/é", "/collections/a b", "/collections/%20", "/collections//points", "/collections/-/points"),
        *(
            "/admin",
            "/admin/../embed",
            "/.git/config",
            "/.env",
            "/metrics/../admin",
            "/openapi.json%20",
            "/favicon.ico",
        ),
        *(
            "*",
            "http://evil.example/embed",
            "//evil.example/%2f..",
            "/\\evil.example",
            "/?" + "a=b&" * 5_000,
            "/?%ff",
            "/#a",
        ),
    ]
    methods = [
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "HEAD",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "BREW",
        "get",
    ]
    while True:
        path, method, number = random.choice(paths), random.choice(methods), random.randint(0, 10**6)
        target = f"{path}{'&' if '?' in path else '?'}{number}" if path != "*" else path
        body = b'{"inputs": ["a"]}' if random.random() < 0.3 else b""
        raw = request(method, target, {"Content-Type": "application/json", "X-Number": str(number)}, body)
        names = r"nothing at|does not take|no collection|name|Content-Type|body|Field|lifespan|load"
        yield Payload(f"{method} {target[:80]}", raw, names, http=False)


def headers(random: Random) -> Iterator[Payload]:
    good = b'{"inputs": ["a"]}'
    while True:
        number = random.randint(0, 10**6)
        for name, headers in {
            "ten kilobytes": {"X-A": "a" * (10_000 + number % 5_000)},
            "sixty kilobytes": {"X-A": "a" * (60_000 + number % 5_000)},
            "a request id of ten kilobytes": {"X-Request-Id": "a" * (10_000 + number % 500)},
            "a request id that is no ASCII": {"X-Request-Id": f"\xff\xe9{number}"},
            "a request id that is a script": {"X-Request-Id": f"<script>{number}</script>"},
            "a request id of a new header": {"X-Request-Id": f"a{number}%0d%0aSet-Cookie: b"},
            "a host with a bracket": {"Host": f"[::{number}"},
            "a host of nonsense": {"Host": f"\xff{number}@:"},
            "a host of ten kilobytes": {"Host": "a." * (5_000 + number % 500)},
            "an odd origin": {
                "Origin": random.choice(["null", "*", "http://[", f"\xff{number}", "https://evil.example"])
            },
            "a preflight for all": {"Origin": "null", "Access-Control-Request-Method": "*" * (number % 50 + 1)},
            "expectations": {"Expect": f"a{number}"},
            "an upgrade": {"Upgrade": random.choice(["websocket", "h2c", f"x{number}"]), "Connection": "Upgrade"},
            "a websocket": {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": f"{number}"},
            "ranges": {"Range": "bytes=" + ",".join(f"{i}-" for i in range(number % 900))},
            "cookies": {"Cookie": "a=b; " * (number % 2_000)},
            "an authorization of nothing": {
                "Authorization": random.choice(["Bearer", "Basic", "\xff", "Bearer " + "a" * number])
            },
            "a forwarded host": {
                "X-Forwarded-For": "127.0.0.1," * (number % 500),
                "X-Forwarded-Prefix": "//evil.example",
            },
            "another method": {"X-HTTP-Method-Override": f"DELETE{number}"},
            "a trace": {"traceparent": f"00-{number}-zz", "baggage": "a=b," * (number % 900), "tracestate": "\xff"},
        }.items():
            raw = posted(good, **{k: v for k, v in headers.items() if k != "Host"})
            if "Host" in headers:
                raw = raw.replace(b"Host: localhost", b"Host: " + headers["Host"].encode("latin-1"))
            yield Payload(
                f"{name}, {number}",
                raw,
                r"inputs|body|does not take|origin|go by the name",
                http="upgrade" in name or "websocket" in name,
            )


def lengths(random: Random) -> Iterator[Payload]:
    good = b'{"inputs": ["a"]}'
    head = "POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    while True:
        number = random.randint(0, 10**6)
        for name, lines, body in (
            ("a huge Content-Length", f"Content-Length: {10**9 + number}", good),
            ("a Content-Length over 64 bits", f"Content-Length: {10**25 + number}", good),
            ("a Content-Length of 5,000 digits", "Content-Length: " + "9" * (5_000 + number % 99), good),
            ("a negative Content-Length", f"Content-Length: -{number}", good),
            ("a Content-Length with a sign", f"Content-Length: +{len(good)}\r\nX: {number}", good),
            ("a hexadecimal Content-Length", f"Content-Length: 0x{number:x}", good),
            ("two Content-Lengths", f"Content-Length: {len(good)}\r\nContent-Length: {number}", good),
            ("a Content-Length and chunks", f"Content-Length: {number}\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
            ("chunks in chunks", f"Transfer-Encoding: chunked, chunked\r\nX: {number}", b"0\r\n\r\n"),
            ("an odd encoding", f"Transfer-Encoding: x{number}", good),
            ("a chunk of a huge size", "Transfer-Encoding: chunked", b"f" * (17 + number % 50) + b"\r\na"),
            ("a chunk of no size", f"Transfer-Encoding: chunked\r\nX: {number}", b"zz\r\na\r\n"),
            (
                "chunks with extensions",
                "Transfer-Encoding: chunked",
                b"11;" + b"a" * (number % 9_999) + b"\r\n" + good + b"\r\n0\r\n\r\n",
            ),
            (
                "trailers",
                "Transfer-Encoding: chunked",
                b"11\r\n" + good + b"\r\n0\r\nX: " + b"a" * (number % 9_999) + b"\r\n\r\n",
            ),
            (
                "one byte a chunk",
                f"Transfer-Encoding: chunked\r\nX: {number}",
                b"".join(b"1\r\n%c\r\n" % c for c in good) + b"0\r\n\r\n",
            ),
        ):
            yield Payload(f"{name}, {number}", f"{head}{lines}\r\n\r\n".encode() + body, rf"{BODY}|inputs", http=False)


def no_http(random: Random) -> Iterator[Payload]:
    while True:
        number = random.randint(0, 10**6)
        for name, raw in {
            "noise": random.randbytes(number % 3_000 + 1) + b"\r\n\r\n",
            "TLS": b"\x16\x03\x01" + random.randbytes(200),
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(9),
            "HTTP/9.9": b"GET /healthz?%d HTTP/9.9\r\n\r\n" % number,
            "no version": b"GET /healthz?%d\r\n\r\n" % number,
            "a NUL in the target": b"GET /a\0%d HTTP/1.1\r\n\r\n" % number,
            "a raw byte in the target": b"GET /\xff%d HTTP/1.1\r\nHost: a\r\n\r\n" % number,
            "a raw byte in the query": b"GET /a?\xff%d HTTP/1.1\r\nHost: a\r\n\r\n" % number,
            "a space in the target": b"GET /a b%d HTTP/1.1\r\n\r\n" % number,
            "a NUL in a header": b"GET /healthz HTTP/1.1\r\nX: a\0%d\r\n\r\n" % number,
            "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost : %d\r\n\r\n" % number,
            "folded headers": b"GET /healthz HTTP/1.1\r\nX: a\r\n b%d\r\n\r\n" % number,
            "bare line feeds": b"GET /healthz?%d HTTP/1.1\nHost: a\n\n" % number,
            "no host": b"GET /nowhere?%d HTTP/1.1\r\n\r\n" % number,
            "two hosts": b"GET /nowhere HTTP/1.1\r\nHost: a\r\nHost: %d\r\n\r\n" % number,
            "HTTP/1.0": b"GET /nowhere?%d HTTP/1.0\r\n\r\n" % number,
            "3,000 headers": b"GET /healthz HTTP/1.1\r\n"
            + b"".join(b"X-%d: %d\r\n" % (i, number) for i in range(3_000))
            + b"\r\n",
            "two requests in one": b"GET /nowhere?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number * 2,
            "a request in a body": b"POST /nowhere HTTP/1.1\r\nContent-Length: 40\r\n\r\n"
            + b"GET /admin?%7d HTTP/1.1\r\nHost: aaa\r\n\r\n" % number,
        }.items():
            yield Payload(f"{name}, {number}", raw, r"nothing at|does not take|nested", http=False)
