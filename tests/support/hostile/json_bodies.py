"""Hostile JSON: wrong types in every field, odd numbers, texts and structures, and what is wrong only for one route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.support.hostile.request import BODY, IMAGE, Payload, posted, request
from tests.support.serving import encoded, quadrants

_GOOD_PICTURE = encoded(quadrants((16, 12)))
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 10**18, -(10**18), 1.5, -0.0, 1e308, -1e308, 5e-324, 2**63, 2**64, 10**400),
    *("", " ", "a", "1", "true", "null", "default", "../..", "\0", "a\0b", "é", "🐟" * 50, "x" * 9_000, "%s%n", "{}"),
    *([], [[]], [None], [1], ["a"], [{}], ["a"] * 300, [[["a"]]], {}, {"a": 1}, {"": ""}, {"text": 1}, {"$ref": "#"}),
    *({"image": 5}, {"embedding": "a"}, {"id": []}, {"text": "a", "image": "b"}, {"__class__": "os"}),
]
_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/embed"): {"inputs": ["a"], "geometry": "space", "collection": "default"},
    ("POST", "/v1/embeddings"): {
        **{"model": "hypclip", "input": ["a"], "modality": "text", "encoding_format": "float", "embedding_type": None},
        **{"dimensions": None, "normalized": False, "user": "a", "geometry": "space"},
    },
    ("POST", "/retrieve"): {
        **{"query": "a", "k": 1, "offset": 0, "collection": "default", "modality": None, "filter": None},
        **{"min_radius": 0, "max_radius": None, "max_distance": None, "exact": None},
    },
    ("POST", "/classify"): {
        **{"inputs": ["a"], "labels": ["a", "b"], "taxonomy": None, "templates": ["{}"], "min_probability": 0.5},
        "collection": "default",
    },
    ("POST", "/hierarchy/ancestors"): {
        **{"of": "a", "k": 1, "offset": 0, "aperture_scale": 1, "reflexive": False, "order_by": "margin", "rule": None},
        **{"collection": "default", "modality": None, "filter": None, "min_radius": 0, "max_radius": None},
    },
    ("POST", "/hierarchy/descendants"): {"of": "a", "k": 1, "aperture_scale": 1, "order_by": "radius"},
    ("POST", "/hierarchy/common_ancestors"): {"of": ["a", "b"], "k": 1, "offset": 0, "aperture_scale": 1},
    ("POST", "/hierarchy/traverse"): {
        **{"source": "a", "target": None, "steps": 5, "entailment": True, "aperture_scale": 1, "filter": None},
        **{"collection": "default", "rule": {"form": "plane", "threshold": 0.1}},
    },
    ("POST", "/hierarchy/mean"): {"inputs": ["a", "b"], "weights": [1, 1], "collection": "default"},
    ("POST", "/hierarchy/order"): {"first": "a", "second": "b", "aperture_scale": 1, "collection": "default"},
    ("PUT", "/collections/hostile/points"): {"points": [{"id": "a", "text": "a", "metadata": {"a": 1}}]},
    ("DELETE", "/collections/default/points"): {"ids": ["nobody"]},
}
_FIELDS = [(*route, field) for route, body in _BODIES.items() for field in body]


def wrong_types(random: Random) -> Iterator[Payload]:
    while True:
        method, path, field = random.choice(_FIELDS)
        value = random.choice(_VALUES)
        # A valid value is no harm either.
        names = (
            rf"{field}|body|filter|label|template|input|collection|radius|steps|weight|image|embedding|point|text|model"
        )
        body = {**_BODIES[method, path], field: value}
        yield Payload(f"{method} {path}: {field} is {repr(value)[:60]}", posted(body, path, method), names)


def points(random: Random) -> Iterator[Payload]:
    while True:
        field, value = (
            random.choice(["id", "text", "image", "embedding", "metadata", "modality"]),
            random.choice(_VALUES),
        )
        point = {"id": "a", **random.choice([{"text": "a"}, {"embedding": [0.1] * 12}]), field: value}
        if random.random() < 0.3:
            point["metadata"] = {random.choice(["a", "", "\0", '"', "é" * 100, "$", "a.b"]): value}
        raw = posted({"points": [point] * random.randint(1, 3)}, "/collections/hostile/points", "PUT")
        yield Payload(
            f"{field} of a point is {repr(value)[:60]}, {len(raw)}", raw, r"point|id|metadata|image|embedding"
        )


def numbers(random: Random) -> Iterator[Payload]:
    literals = [
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "-1e999",
            "-0",
            "-0.0",
            "1e-999",
            "00",
            "01",
            "1.",
            ".5",
            "+1",
            "0x10",
        ),
        *(
            "1_000",
            "1e400",
            "9" * 400,
            "9" * 4_300,
            "9" * 4_301,
            "9" * 50_000,
            "1" + "0" * 4_299,
            "0." + "0" * 5_000 + "1",
        ),
        *("1e" + "9" * 100, "1E+2", "１", "٣", "NaNNaN", "nan", "inf", "1,2", "--1", "1e", "0b1", "1n", "Decimal(1)"),
    ]
    while True:
        literal = random.choice(literals) if random.random() < 0.8 else str(random.randint(-(10**500), 10**500))
        method, path, field = random.choice(_FIELDS)
        rest = {name: value for name, value in _BODIES[method, path].items() if name != field}
        inside = random.choice(["%s", "[%s]", '{"embedding": [%s]}', '[{"embedding": [0, %s]}]', '{"a": %s}'])
        value = inside % literal
        body = f'{json.dumps(rest)[:-1]}{", " if rest else ""}"{field}": {value}}}'.encode()
        names = rf"{BODY}|{field}|input|embedding|filter|label|dimensions|weight|offset|\bk\b|point|image|model"
        yield Payload(f"{method} {path}: {field} is {value[:60]}", posted(body, path, method), names)


def structures(random: Random) -> Iterator[Payload]:
    while True:
        depth = random.choice([5, 100, 500, *range(880, 1_010, 7), 5_000, 10_000, 100_000]) + random.randint(0, 6)
        number = random.randint(0, 10**6)
        method, path, field = random.choice(_FIELDS)
        rest = json.dumps({n: v for n, v in _BODIES[method, path].items() if n != field})[1:-1]
        start = f'{{{rest}{", " if rest else ""}"{field}": '.encode()
        good = json.dumps(_BODIES[method, path]).encode()
        for name, body in {
            f"lists {depth} deep": start + b"[" * depth + b"]" * depth + b"}",
            f"objects {depth} deep": start + b'{"a":' * depth + b"1" + b"}" * depth + b"}",
            f"a filter's lists {depth} deep": start + b'{"a":' + b"[" * depth + b"]" * depth + b"}}",
            f"lists {depth} deep that do not end": start + b"[" * depth,
            "a field twice": start + b"null, " + good[1:],
            f"a field {number % 1000 + 2} times": start
            + (b'"a", ' + f'"{field}": '.encode()) * (number % 1000 + 1)
            + b'"a"}',
            f"{number % 5_000 + 100} unknown fields": b"{"
            + b", ".join(b'"%d": 0' % i for i in range(number % 5_000 + 100))
            + b"}",
            "half a million unknown fields": b"{"
            + b",".join(b'"%d":0' % i for i in range(500_000 + number % 100))
            + b"}",
            "a million empty lists": start + b"[" + b"[]," * (1_000_000 + number % 100) + b"[]]}",
            "a million empty objects": start + b"[" + b"{}," * (1_000_000 + number % 100) + b"{}]}",
            "a BOM": b"\xef\xbb\xbf" + good + b" " * (number % 100),
            "UTF-16": (good.decode() + " " * (number % 100)).encode("utf-16"),
            "UTF-32 without a BOM": (good.decode() + " " * (number % 100)).encode("utf-32-le"),
            "something after it": good + b" " * (number % 100) + b"{}",
            "two values": good + good[: number % len(good) + 1],
            "cut": good[: number % len(good)],
            "single quotes": good.replace(b'"', b"'") + b" " * (number % 50),
            "a comment": b"/* a */" + good + b" " * (number % 50),
            "a comma at the end": good[:-1] + b"," + b" " * (number % 50) + b"}",
            "white space only": b" " * (number % 5_000 + 1),
            "a text": json.dumps("a" * (number % 5_000)).encode(),
            "a number": str(number).encode(),
            "bytes that are no UTF-8": good[:-2] + bytes([128 + number % 128]) + good[-2:],
        }.items():
            names = rf"{BODY}|{field}|fields|input|filter|label|template|weight|point|collection|model|id\b|image|text"
            yield Payload(f"{name} to {method} {path}, {field}", posted(body, path, method), names)


def texts(random: Random) -> Iterator[Payload]:
    pieces = [
        *("\\ud800", "\\udfff", "\\ud83d", "\\u0000", "\\u202e", "\\u200f", "\\ufeff", "\\uffff", "\\u2028", "\\u0085"),
        *(
            "a\\u0301",
            "\\u0e47",
            "\\ufdfd",
            "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
            "👩‍👩‍👧‍👦",
            "ﷺ",
            "Z̸̢̛",
            "𝕳",
            "\U0010ffff",
            "\\\\",
            "\\/",
            "&amp;lt;",
            "&#0;",
            "%00",
            "\\b",
        ),
        *(
            "<script>",
            "'; DROP TABLE points; --",
            "${jndi:ldap://x}",
            "{{7*7}}",
            "%s%n%x",
            "{0.__class__}",
            "\\u001b[2J",
        ),
    ]
    while True:
        number = random.randint(1, 300)
        text = "".join(random.choices(pieces, k=random.randint(1, 4))) * random.choice([1, 1, number])
        fields = {
            "text": '{"inputs": ["%s"]}',
            "item": '{"inputs": [{"text": "%s"}]}',
            "id": '{"inputs": [{"id": "%s"}]}',
            "field": '{"inputs": ["a"], "%s": 1}',
            "collection": '{"inputs": ["a"], "collection": "%s"}',
            "geometry": '{"inputs": ["a"], "geometry": "%s"}',
            "image": '{"inputs": [{"image": "%s"}]}',
        }
        name, body = random.choice(list(fields.items()))
        if random.random() < 0.3:
            label = random.choice(
                ['"labels": ["%s", "a"]', '"taxonomy": [["%s", "a"]]', '"labels": ["a"], "templates": ["%s{}"]']
            )
            name, body, path = label, '{"inputs": ["a"], ' + label + "}", "/classify"
        else:
            path = "/embed"
        raw = posted((body % text).encode(), path)
        yield Payload(
            f"{ascii(text)[:60]} × {number} as {name}",
            raw,
            rf"{BODY}|input|label|taxonom|template|collection|geometry|{IMAGE}|character|point|field",
        )


def long(random: Random) -> Iterator[Payload]:
    while True:
        letter = random.choice("aé🐟 .,-1<&")
        length = random.choice([8_190, 8_192, 8_193, 10_000, 100_000, 1_000_000, 5_000_000]) + random.randint(0, 90)
        text = letter * length
        words = "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=8_000))
        for name, body, path in (
            (f"{length} × {letter!r}", {"inputs": [text]}, "/embed"),
            (f"{length} × {letter!r}, blank but for its end", {"inputs": [" " * length + "a"]}, "/embed"),
            (f"one word of 8,000 letters {words[:8]}", {"inputs": [words]}, "/embed"),
            (
                f"16 words of 8,000 letters {words[:8]}",
                {"inputs": [words[i:] + words[:i] for i in range(16)]},
                "/embed",
            ),
            (f"a key of {length} × {letter!r}", {"inputs": ["a"], text: 1}, "/embed"),
            (f"a label of {length} × {letter!r}", {"inputs": ["a"], "labels": [text, "a"]}, "/classify"),
            (
                f"a label of {length} × {letter!r} in 4,000 templates",
                {"inputs": ["a"], "labels": [text], "templates": [f"{i} {{}}" for i in range(4_000)]},
                "/classify",
            ),
            (
                f"nodes of {length} × {letter!r}",
                {"inputs": ["a"] * 256, "taxonomy": [["a", text], [text + "b", "a"]]},
                "/classify",
            ),
            (
                f"labels that make a large answer, {length}",
                {"inputs": ["a"] * 256, "labels": [f"{i} {letter * 2_000}" for i in range(1_000)]},
                "/classify",
            ),
            (f"an id of {length} × {letter!r}", {"inputs": [{"id": text}]}, "/embed"),
            (f"a model of {length} × {letter!r}", {"input": "a", "model": text}, "/v1/embeddings"),
            (f"a filter on {length} × {letter!r}", {"query": "a", "filter": {text: 1}}, "/retrieve"),
            (f"a filter for {length} × {letter!r}", {"query": "a", "filter": {"kind": text}}, "/retrieve"),
        ):
            names = rf"{BODY}|input|text|label|taxonom|template|\bid\b|model|filter|scores|fields?|a+…"
            yield Payload(name, posted(body, path), names)


def collections(random: Random) -> Iterator[Payload]:
    names = [
        *(
            "..",
            ".",
            "a/b",
            "a\\b",
            "%2e%2e",
            "",
            " ",
            "a b",
            "é",
            "-a",
            "_a",
            "a" * 64,
            "a" * 65,
            "con",
            "nul",
            "a\0",
            "a.db",
        ),
        *(
            "points.sqlite3",
            "sqlite_master",
            "A",
            "default ",
            "default\n",
            "0",
            "a'--",
            'a"',
            "*",
            "?",
            "~",
            "$HOME",
            "a;b",
            "__proto__",
        ),
    ]
    while True:
        name, number = random.choice(names), random.randint(0, 10**6)
        quoted = random.choice([lambda s: s, lambda s: "".join(f"%{b:02x}" for b in s.encode())])(name)
        safe = re.fullmatch(r"[!-~]*", quoted) is not None
        target = f"/collections/{quoted}{random.choice(['', '/points'])}?{number}"
        match random.choice(["body", "id", "put", "delete", "get"]):
            case "body":
                body = {"query": "a", "collection": random.choice([name, f"{name}{number}"])}
                yield Payload(f"a search in {name[:20]!r}, {number}", posted(body, "/retrieve"), "collection")
            case "id":
                body = {"inputs": [{"id": random.choice([name, f"{name}{number}"])}], "collection": "default"}
                yield Payload(f"the id {name[:20]!r}, {number}", posted(body), r"point|inputs|collection")
            case _ if not safe:
                continue
            case "put":
                body = {"points": [{"id": name or "a", "text": "a", "metadata": {"a": number}}]}
                yield Payload(
                    f"PUT to {target[:60]}", posted(body, target, "PUT"), r"name|point|nothing|take", http=False
                )
            case "delete":
                raw = posted({"ids": [name or "a", str(number)]}, target, "DELETE")
                yield Payload(f"DELETE of {target[:60]}", raw, r"name|collection|nothing|take", http=False)
            case _:
                yield Payload(
                    f"GET {target[:60]}",
                    request("GET", target),
                    r"name|collection|nothing|take|Extra inputs",
                    http=False,
                )


def filters(random: Random) -> Iterator[Payload]:
    keys = [
        "kind",
        "nothing",
        "",
        "a.b",
        "$",
        "$or",
        '"',
        "'",
        "\\",
        "\0",
        "a" * 3_000,
        "é",
        "\u202e",
        "kind\n",
        "__proto__",
        "[0]",
    ]
    operators = ["gt", "gte", "lt", "lte", "eq", "in", "$gt", "", "GT", "regex", "not"]
    while True:
        number = random.randint(1, 2_000)
        operand = random.choice(_VALUES)
        wanted = random.choice(
            [
                operand,
                {random.choice(operators): operand},
                {random.choice(operators): operand, random.choice(operators): number},
                [operand] * (number % 50),
                [None] * number,
                [True, None] * number,
                [number, *range(number)],
                {"gt": {"gt": {"gt": 1}}},
                [[operand]],
            ]
        )
        fields = random.choice(
            [{random.choice(keys): wanted}, {f"f{i}": wanted for i in range(number % 60)}, {"kind": wanted}]
        )
        filter: Any = random.choice([fields, fields, fields, [fields], json.dumps(fields)])
        path, item = random.choice(
            [("/retrieve", "query"), ("/hierarchy/ancestors", "of"), ("/hierarchy/traverse", "source")]
        )
        name = f"{ascii(filter)[:70]}, {number} to {path}"
        yield Payload(name, posted({item: "a", "filter": filter}, path), r"filter|body|metadata field")


def taxonomies(random: Random) -> Iterator[Payload]:
    while True:
        number = random.randint(2, 3_000)
        chain = [[str(i + 1), str(i)] for i in range(number)]
        wide = [[str(i), "root"] for i in range(number)]
        plain = ["{}"]
        cases: list[tuple[str, Any, list[str]]] = [
            (f"a chain of {number}", chain, plain),
            (f"a cycle of {number}", [*chain, ["0", str(number)]], plain),
            (f"a loop, {number}", [*wide, ["root", "root"]], plain),
            (f"20,000 edges, {number}", [[f"{i % 4_000}", f"p{i % (number + 1)}"] for i in range(20_000)], plain),
            (f"20,001 edges and {number}", [["a", "b"]] * (20_001 + number), plain),
            (f"a chain of {17_000 + number}", [[str(i + 1), str(i)] for i in range(17_000 + number)], plain),
            (
                f"a cycle of {17_000 + number}",
                [[str((i + 1) % (17_000 + number)), str(i)] for i in range(17_000 + number)],
                plain,
            ),
            (f"{number} leaves, twice", wide * 2, plain),
            (
                f"a ladder of {number}",
                [
                    e
                    for i in range(number)
                    for e in ([f"a{i + 1}", f"a{i}"], [f"b{i + 1}", f"a{i}"], [f"a{i + 1}", f"b{i}"])
                ],
                plain,
            ),
            (f"edges of {number % 5} names", [["a"] * (number % 5)] * (number % 9 + 1), plain),
            (f"no edges, {number}", [], [f"{{}} {number}"]),
            (
                "format strings",
                wide[:3],
                [
                    random.choice(
                        ["{0}", "{a}", "{}{}", "{{}}", "{!r}", "{0.__class__}", "%s {", "{:>9999999999}", "{} {a}"]
                    )
                    + " " * (number % 9)
                ],
            ),
            (f"{number} templates", wide[:50], [f"{i} {{}}" for i in range(number)]),
        ]
        for name, taxonomy, templates in cases:
            body = {"inputs": random.choice([["a"], ["a"] * 64]), "taxonomy": taxonomy, "templates": templates}
            yield Payload(name, posted(body, "/classify"), r"taxonomy|template|label|scores|HYPCLIP")


def openai(random: Random) -> Iterator[Payload]:
    while True:
        number = random.randint(1, 1_000)
        given = random.choice(
            [
                [number],
                [[number]],
                [1, 2, 3],
                [[1, 2], [3]],
                [1, "a"],
                ["a", 1],
                [],
                "",
                " ",
                None,
                number,
                1.5,
                True,
                [True],
                [None],
                {},
                {"text": "a", "image": "b"},
                {"url": "http://127.0.0.1/"},
                [{"image_url": {"url": "x"}}],
                ["a"] * 257,
                ["a", ""],
                [{"text": ["a"]}],
                [[]],
                [["a"]],
                "a" * number * 30,
                [{"image": _GOOD_PICTURE}] * 3,
            ]
        )
        extra = random.choice(
            [
                {},
                {"dimensions": number},
                {"dimensions": 0},
                {"dimensions": "12"},
                {"dimensions": 10**400},
                {"normalized": True},
                {"normalized": "yes"},
                {"encoding_format": "int8"},
                {"encoding_format": "binary"},
                {"embedding_type": ["float"]},
                {"model": "gpt-" + "4" * number},
                {"model": None},
                {"model": ""},
                {"model": "../x"},
                {"user": {"a": 1}},
                {"user": "a" * 9_999},
                {"modality": "audio"},
                {"modality": "image"},
                {"messages": []},
                {"geometry": "cosine"},
                {"stream": True},
            ]
        )
        body = {"model": "hypclip", "input": given, **extra}
        names = (
            r"input|dimension|normalized|encoding_format|embedding_type|model|user|modality|geometry|image|character"
        )
        yield Payload(f"{repr(given)[:50]} with {repr(extra)[:40]}, {number}", posted(body, "/v1/embeddings"), names)
