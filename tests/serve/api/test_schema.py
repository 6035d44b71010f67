"""The document says what the server does: requests made from it, good and bad ones, are answered as it says."""

from collections import Counter

import pytest
from fastapi.testclient import TestClient

from hypclip.search.limits import MAX_SINH_RADIUS
from tests.support import schema_run
from tests.support.serving import FakeEngine, app_at

pytestmark = pytest.mark.slow

CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "use_after_free",
    "ensure_resource_availability",
    "missing_required_header",
    "ignored_auth",
    "unsupported_method",
    "allow_header_conformance",
}


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return schema_run.run(tmp_path_factory.mktemp("serve"), examples=8)


def test_nothing_fails(summary):
    assert not summary.failures, "\n".join(summary.failures[:20])
    assert not summary.not_made, "schemathesis cannot read the document"


def test_every_check_and_phase_takes_part(summary):
    assert summary.checks.keys() >= CHECKS
    assert {"examples", "coverage", "fuzzing", "stateful"} <= {name for name, count in summary.phases.items() if count}


def test_good_and_bad_requests_come_to_every_operation(summary, tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        paths = client.get("/openapi.json").json()["paths"]
    operations = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert summary.cases.keys() == operations
    assert summary.cases.total() > 1500
    assert summary.codes[200] > 300
    assert summary.codes[422] > 500


def test_the_limits_of_this_server_and_its_model_are_in_the_document(tmp_path):
    limits = {"max_k": 7, "max_inputs": 3, "max_text_chars": 50, "max_points": 9, "max_labels": 5, "max_depth": 70}
    with TestClient(app_at(tmp_path, max_taxonomy_edges=11, **limits)) as client:
        document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    def field(schema, name):
        return schemas[schema]["properties"][name]

    assert field("RetrieveRequest", "k")["maximum"] == 7
    assert field("RetrieveRequest", "offset")["maximum"] == 70
    assert field("EmbedRequest", "inputs")["maxItems"] == 3
    assert field("TextItem", "text")["maxLength"] == 50
    assert field("PutPointsRequest", "points")["maxItems"] == 9
    assert field("ClassifyRequest", "labels")["anyOf"][0]["maxItems"] == 5
    assert field("ClassifyRequest", "taxonomy")["anyOf"][0]["maxItems"] == 11
    embedding = field("EmbeddingItem", "embedding")
    assert embedding["minItems"] == embedding["maxItems"] == FakeEngine.dim
    assert embedding["items"]["maximum"] == pytest.approx(MAX_SINH_RADIUS / FakeEngine.curv**0.5)
    assert "x-limits" not in str(document)


def test_the_document_follows_the_model(tmp_path):
    class Wider(FakeEngine):
        dim = 24

    from serve.app import create_app
    from serve.settings import Settings

    async def load():
        return Wider("fake-2")

    app = create_app(Settings(index=tmp_path / "index", create_index=True), FakeEngine(), load=load)
    with TestClient(app) as client:

        def dim():
            schemas = client.get("/openapi.json").json()["components"]["schemas"]
            return schemas["EmbeddingItem"]["properties"]["embedding"]["minItems"]

        assert dim() == 12
        assert client.post("/admin/reload").status_code == 200
        assert dim() == 24


def test_no_keyword_is_left_out_by_accident(tmp_path):
    """Whatever a client sends has bounds where the server has them."""
    with TestClient(app_at(tmp_path)) as client:
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    requests = [name for name in schemas if name.endswith(("Request", "Item", "Point"))]
    unbounded = Counter()
    for name in requests:
        assert schemas[name].get("additionalProperties") is False or name == "EmbeddingsRequest", name
        for field, schema in schemas[name]["properties"].items():
            for each in [schema, *schema.get("anyOf", [])]:
                if each.get("type") == "array" and not {"minItems", "maxItems"} <= each.keys():
                    unbounded[f"{name}.{field}"] += 1
    assert not unbounded
