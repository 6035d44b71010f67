"""Requests made from the OpenAPI document by schemathesis, in process, with every check it has.

What JSON Schema cannot say of a valid request, `possible` sees to: that a picture is one, that edges form no cycle,
that two fields go together. Nothing else of what is generated is changed, and no check is switched off.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from PIL import Image
from schemathesis.config import SchemathesisConfig
from schemathesis.core.errors import InvalidSchema
from schemathesis.engine import Status, events, from_schema
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.transport.serialization import Binary
from starlette.testclient import TestClient

from hypclip.search.limits import MAX_SINH_RADIUS
from hypclip.search.types import nesting
from serve.app import create_app
from serve.http.keys import new_key
from serve.inputs.images import FORMATS
from serve.schemas.fields import MAX_NESTING
from serve.settings import Settings
from tests.support.serving import FakeEngine, encoded, quadrants

FIELDS = [f"field {i}" for i in range(32)]
POINTS = [
    {"id": f"seed {i}", "text": f"seed {i}", "metadata": {**dict.fromkeys(FIELDS, i), "source": "camera"}}
    for i in range(12)
]
PICTURES = [encoded(quadrants(), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")]
_HALF_A_TEXT = 4000
_FARTHEST = 0.99 * MAX_SINH_RADIUS / math.sqrt(FakeEngine.curv)


@dataclass
class Summary:
    """What a run came to."""

    cases: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    not_made: list[str] = field(default_factory=list)  # what schemathesis could not make of the document


def keyed_app(path: Path) -> tuple[Any, str]:
    """Return an app that asks for keys, has points, and can load its model again; and a key for everything."""
    key, sha256 = new_key()
    (path / "keys").write_text(f"all:admin:{sha256}\n")
    settings = Settings(index=path / "index", create_index=True, api_keys_file=path / "keys", access_log=False)

    async def load() -> FakeEngine:
        return FakeEngine()

    with TestClient(create_app(settings, FakeEngine())) as client:
        headers = {"x-api-key": key}
        response = client.put("/collections/default/points", json={"points": POINTS}, headers=headers)
        assert response.status_code == 200, response.text
    return create_app(settings, FakeEngine(), load=load), key


def run(path: Path, examples: int, *, seed: int = 0, shown: int = 3) -> Summary:
    """Run every phase: the examples of the document, its borders, random requests, and sequences of them.

    Args:
        path: an empty directory.
        examples: random requests of each operation and kind, the valid and the invalid ones.
        seed: of the random ones.
        shown: failures to describe of each operation and check.
    """
    logger = logging.getLogger("serve")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    app, key = keyed_app(path)
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "auth": {"openapi": {"bearer": {"bearer": key}}},
            "generation": {"max-examples": examples, "no-shrink": True},
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    schema.hook("map_body")(map_body)
    schema.hook("filter_case")(filter_case)
    schema.hook("map_case")(map_case)
    summary = Summary()
    described: Counter[tuple[str, str]] = Counter()
    try:
        for event in from_schema(schema).execute():
            match event:
                case events.NonFatalError(value=InvalidSchema()):
                    summary.not_made.append(f"{event.label}: {event.value!r}")
                case events.NonFatalError():
                    summary.failures.append(f"{event.label}: {event.value!r}")
                case events.ScenarioFinished(recorder=recorder):
                    summary.phases[event.phase.value] += len(recorder.cases)
                    for case_id, node in recorder.cases.items():
                        _note(summary, described, recorder, case_id, node.value, shown)
    finally:
        shutdown_lifespans()
        logger.setLevel(level)
    return summary


def _note(summary: Summary, described: Counter[Any], recorder: Any, case_id: str, case: Any, shown: int) -> None:
    summary.cases[case.operation.label] += 1
    interaction = recorder.interactions.get(case_id)
    response = None if interaction is None else interaction.response
    if response is not None:
        summary.codes[response.status_code] += 1
    for check in recorder.checks.get(case_id, ()):
        summary.checks[check.name] += 1
        if check.status != Status.FAILURE or (check.name == "use_after_free" and _was_left(recorder, case)):
            continue
        described[case.operation.label, check.name] += 1
        if described[case.operation.label, check.name] <= shown:
            answer = "" if response is None else f"{response.status_code} {response.content[:300]!r}"
            body = f"{case.media_type} {case.body!r}"[:600]
            message = " ".join(check.failure_info.failure.message.split())[:300]
            summary.failures.append(f"{case.method} {case.path} {check.name}: {message}\n  {body}\n  {answer}")
        else:
            summary.failures.append(f"{case.operation.label} {check.name}")


def _was_left(recorder: Any, case: Any) -> bool:
    """Tell of a point whether other points of its collection were deleted, by ids that a body has, and it was not."""
    bodies = [node.value.body for node in recorder.cases.values() if node.value.method == "DELETE"]
    deleted = {each for body in bodies if isinstance(body, dict) for each in body.get("ids") or ()}
    point_id = (case.path_parameters or {}).get("id")
    return point_id is not None and point_id not in deleted


def map_body(context: Any, body: Any) -> Any:
    """Put pictures in the place of files, which schemathesis takes from a drawer of PDFs and the like."""
    if isinstance(body, dict) and isinstance(files := body.get("image"), list):
        pictures = [Binary(base64.b64decode(picture)) for picture in PICTURES]
        body["image"] = [pictures[i % 5] if isinstance(f, bytes | Binary) else f for i, f in enumerate(files)]
    return body


def filter_case(context: Any, case: Any) -> bool:
    """Leave out forms that have as many texts and as many files as may be, but not both, and files that are none."""
    if case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return True
    texts, files = case.body.get("text", []), case.body.get("image", [])
    if texts and files and sum(len(v) if isinstance(v, list) else 1 for v in (texts, files)) > Settings().max_inputs:
        return False
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    return not positive or all(_is_picture(file) for file in files)


def _is_picture(file: Any) -> bool:
    try:
        Image.open(io.BytesIO(getattr(file, "data", file)), formats=FORMATS).load()
    except Exception:
        return False
    return True


def map_case(context: Any, case: Any) -> Any:
    """Make of a request that is valid by its schema one that is possible."""
    if case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        changed = possible(case.body, case.operation.label)
        if changed != case.body:
            case.body = changed
    if case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.query, dict):
        _query(case)
    return case


def _query(case: Any) -> None:
    """Make of a listing one that is possible: its filter is JSON of fields that are there, it goes on from no page."""
    query = {name: value for name, value in case.query.items() if name != "after"}
    if query.get("filter") is not None:
        query["filter"] = json.dumps({"source": query["filter"].replace("\0", "")})
        case.path_parameters = {**case.path_parameters, "name": "default"}
    if query.get("max_radius") is not None and "min_radius" in query:
        low, high = sorted(float(query[name]) for name in ("min_radius", "max_radius"))
        query |= {"min_radius": low, "max_radius": high}
    if query != case.query:
        case.query = query


def possible(body: dict[str, Any], operation: str) -> dict[str, Any]:
    """Return a body that also keeps what JSON Schema cannot say."""
    body = {name: _possible(value) for name, value in body.items()}
    steps: dict[str, Callable[[dict[str, Any]], None]] = {
        "filter": _filter,
        "min_radius": _radii,
        "offset": _page,
        "weights": _weights,
        "points": _points,
        "labels": _labels,
        "taxonomy": _taxonomy,
        "rule": _rule,
    }
    for name, step in steps.items():
        if body.get(name) is not None:
            step(body)
    if operation == "POST /v1/embeddings" and body.get("modality") == "image":
        given = body["input"]
        body["input"] = (
            [_picture(item) if isinstance(item, str) else item for item in given]
            if isinstance(given, list)
            else _picture(given)
            if isinstance(given, str)
            else given
        )
    return body


def _possible(value: Any) -> Any:
    if isinstance(value, list):
        return [_possible(each) for each in value]
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if isinstance(value.get("image"), str):
        value["image"] = _picture(value["image"])
    if isinstance(value.get("embedding"), list):
        norm = math.sqrt(sum(float(x) ** 2 for x in value["embedding"]))
        if norm > _FARTHEST:
            value["embedding"] = [x * _FARTHEST / norm for x in value["embedding"]]
    return value


def _picture(given: str) -> str:
    return PICTURES[len(given) % len(PICTURES)]


def _filter(body: dict[str, Any]) -> None:
    body["filter"] = dict(zip(FIELDS, body["filter"].values(), strict=False))
    body["collection"] = "default"  # whose points have these fields


def _radii(body: dict[str, Any]) -> None:
    if body.get("max_radius") is not None:
        body["min_radius"], body["max_radius"] = sorted([body["min_radius"], body["max_radius"]])


def _rule(body: dict[str, Any]) -> None:
    if body.get("entailment") is False:
        del body["rule"]
    elif body["rule"]["form"] == "plane":
        body.pop("aperture_scale", None)


def _page(body: dict[str, Any]) -> None:
    body["offset"] = min(body["offset"], Settings().max_depth - body.get("k", 10))


def _weights(body: dict[str, Any]) -> None:
    weights = [body["weights"][i % len(body["weights"])] for i, _ in enumerate(body["inputs"])]
    body["weights"] = weights if any(weights) else [1.0] * len(weights)


def _points(body: dict[str, Any]) -> None:
    for i, point in enumerate(body["points"]):
        point["id"] = f"{point['id'][:500]} {i}"
        metadata = point.get("metadata", {})
        if nesting(metadata, MAX_NESTING + 1) > MAX_NESTING or len(json.dumps(metadata)) > 4000:
            point["metadata"] = {}


def _labels(body: dict[str, Any]) -> None:
    body["labels"] = list(dict.fromkeys(label[:_HALF_A_TEXT].strip() or "a" for label in body["labels"]))
    _templates(body, len(body["labels"]))


def _taxonomy(body: dict[str, Any]) -> None:
    edges = [[max(pair), min(pair)] for pair in body["taxonomy"] if pair[0] != pair[1]]
    body["taxonomy"] = [[name[:_HALF_A_TEXT].strip() or "a" for name in edge] for edge in edges]
    body["taxonomy"] = [edge for edge in body["taxonomy"] if edge[0] > edge[1]] or [["b", "a"]]
    _templates(body, len(body["taxonomy"]) + 1)


def _templates(body: dict[str, Any], labels: int) -> None:
    if "templates" in body:
        most = max(1, Settings().max_labels // labels)
        body["templates"] = [t if len(t) <= _HALF_A_TEXT else "{}" for t in body["templates"][:most]]
