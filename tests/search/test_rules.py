"""The rule of entailment of a collection: kept by every store and file, and never silently taken for another."""

import contextlib
import sqlite3

import pyarrow.parquet as pq
import pytest
import torch

from hypclip.errors import DataError, InputError, StoreError
from hypclip.indexing.parquet import read_points, read_space, write_points
from hypclip.indexing.units import space_of
from hypclip.search import Collection, Cone, LocalStore, ModelMismatch, Plane, Points, Space
from hypclip.search.local.sqlite import FILE
from hypclip.search.qdrant.store import QdrantStore
from hypclip.search.rules import as_entry, as_text, of_entry, of_text, same_rule
from tests.support.models import tiny_encoder
from tests.support.search import unchecked

RULES = [Cone(), Cone(0.7, 0.02, strict=False), Plane(), Plane(-0.1234567890123456), Plane(1e-9, strict=False)]
VECTORS = torch.tensor([[0.1, 0.2, 0.0], [1.0, 2.0, 0.1]])


def space(rule):
    return Space("m", 1.0, 3, "rev", rule)


def two():
    return Points(["a", "b"], VECTORS, ["text", "text"], None)


@contextlib.contextmanager
def opened(kind, folder):
    with LocalStore(folder, create=True) if kind == "local" else QdrantStore.connect(f"path:{folder}") as store:
        yield store


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_is_kept_to_the_last_digit(rule):
    assert of_text(as_text(rule)) == rule
    assert of_entry(as_entry(rule)) == rule


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"form": "ball"}', '{"form": ["plane"]}', '{"form": "plane"}',
     '{"form": "plane", "threshold": 0, "strict": "yes"}', '{"form": "plane", "threshold": NaN, "strict": true}',
     '{"form": "plane", "threshold": "0", "strict": true}', '{"form": "plane", "threshold": 0, "strict": true, "k": 1}',
     '{"form": "cone", "eta": -1, "min_radius": 0.1, "strict": true}'],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(InputError):
        of_text(text)


def test_rules_are_the_same_where_only_their_last_digits_differ():
    assert same_rule(Plane(0.3), Plane(0.3 * (1 + 1e-9)))
    assert same_rule(Plane(), Plane(1e-12))
    assert same_rule(Cone(0.7, 0.1), Cone(0.7, 0.1 * (1 + 1e-9)))
    for one, other in ((Plane(), Cone()), (Plane(), Plane(1e-4)), (Plane(), Plane(strict=False)), (Cone(), Cone(1.01)),
                       (Cone(), Cone(min_radius=0.11)), (Cone(), Cone(strict=False))):  # fmt: skip
        assert not same_rule(one, other)
        assert not same_rule(other, one)
        assert not space(one).same_as(space(other))


@pytest.mark.parametrize("ours", [Cone(), Plane(0.25)])
def test_a_collection_of_another_rule_is_refused_with_both_named(ours):
    theirs = Plane() if isinstance(ours, Cone) else Cone(0.7)
    with pytest.raises(ModelMismatch) as caught:
        Collection("things", space(ours), 0).check_space(space(theirs))
    named = {
        Cone(): "entailment by cones of eta 1 and min_radius 0.1",
        Cone(0.7): "entailment by cones of eta 0.7 and min_radius 0.1",
        Plane(): "entailment by half-spaces of threshold 0",
        Plane(0.25): "entailment by half-spaces of threshold 0.25",
    }
    message = str(caught.value)
    assert message.index(named[ours]) < message.index(named[theirs])
    assert "embed its contents again into a new collection" in message
    # Where the rule is the same, the message does not speak of it.
    with pytest.raises(ModelMismatch) as caught:
        Collection("things", space(ours), 0).check_space(Space("other", 1.0, 3, "rev", ours))
    assert "entailment" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, "plane", 0.3, Plane, {"form": "plane"}])
def test_a_space_takes_rules_only(wrong):
    with unchecked(), pytest.raises(InputError, match="entailment of a space must be a Cone or a Plane"):
        Space("m", 1.0, 3, "", wrong)


@pytest.mark.parametrize("kind", ["local", "qdrant"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_stores_keep_the_rule(tmp_path, kind, rule):
    with opened(kind, tmp_path) as store:
        store.create_collection("c", space(rule))
        store.upsert("c", two())
    with opened(kind, tmp_path) as store:
        assert store.describe("c").space == space(rule)
        assert [one.space for one in store.collections()] == [space(rule)]
        assert store.create_collection("c", space(rule)).count == 2
        other = next(one for one in RULES if not same_rule(one, rule))
        with pytest.raises(ModelMismatch, match="entailment by"):
            store.create_collection("c", space(other))
        assert store.cone("c", VECTORS[1], "ancestors") == store.cone("c", VECTORS[1], "ancestors", rule)


def test_what_searches_go_by_is_the_rule_of_each_collection(tmp_path):
    """b lies behind the plane of a, and outside of its cone."""
    with LocalStore(tmp_path, create=True) as store:
        x = torch.tensor([[1.0, 0.0, 0.0], [4.0, 2.0, 0.0]])
        for name, rule in (("cones", Cone()), ("planes", Plane())):
            store.create_collection(name, space(rule))
            store.upsert(name, Points(["a", "b"], x, ["text"] * 2, None))
        totals = {name: store.cone(name, x[0], "descendants").total for name in ("cones", "planes")}
        assert totals == {"cones": 0, "planes": 1}
        assert store.cone("cones", x[0], "descendants", Plane()).total == 1
        assert store.cone("planes", x[1], "ancestors", Cone()).total == 0
        assert store.cone("planes", x[1], "ancestors").hits[0].id == "a"


def as_before(folder):
    """Make of an index one of the format before this, in which no rule was."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        connection.executescript("ALTER TABLE collections DROP COLUMN entailment; PRAGMA user_version = 2")


def test_an_index_of_before_has_the_cones_of_meru(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", space(Cone()))
        store.upsert("c", two())
    as_before(tmp_path)
    for _ in range(2):
        with LocalStore(tmp_path) as store:
            assert store.describe("c").space == space(Cone())
            assert sorted(store.get("c", ["a", "b"]).ids) == ["a", "b"]
            store.create_collection("new", space(Plane(0.2)))
            assert store.describe("new").space == space(Plane(0.2))
            with pytest.raises(ModelMismatch, match=r"cones of eta 1 .* half-spaces of threshold 0"):
                store.create_collection("c", space(Plane()))
    with LocalStore(tmp_path) as store:
        copy = store.snapshot("c")
    with LocalStore(copy) as store:
        assert store.describe("c").space == space(Cone())
        assert store.describe("c").count == 2


def test_a_damaged_rule_of_an_index_is_named(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", space(Plane()))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript("UPDATE collections SET entailment = '{}'")
    with pytest.raises(StoreError, match=r"points\.sqlite3 is damaged: the rule of entailment"):
        LocalStore(tmp_path)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_files_keep_the_rule(tmp_path, rule):
    file = tmp_path / "points.parquet"
    write_points(file, space(rule), [two()])
    assert read_space(file) == space(rule)
    assert len(list(read_points(file, space=space(rule)))) == 1
    other = next(one for one in RULES if not same_rule(one, rule))
    with pytest.raises(DataError, match=r"holds points of model 'm' .*entailment by .*, not of model 'm' .*entailment"):
        read_space(file, space(other))


@pytest.mark.parametrize("text", ["{}", "plane", '{"form": "plane", "threshold": null, "strict": true}'])
def test_files_of_before_have_the_cones_of_meru_and_damaged_ones_are_named(tmp_path, text):
    file = tmp_path / "points.parquet"
    write_points(file, space(Plane()), [two()])
    table = pq.read_table(file)
    entries = {key: value for key, value in table.schema.metadata.items() if key != b"hypclip.entailment"}
    pq.write_table(table.replace_schema_metadata(entries), file)
    assert read_space(file) == space(Cone())
    pq.write_table(table.replace_schema_metadata({**entries, b"hypclip.entailment": text.encode()}), file)
    with pytest.raises(DataError, match=r"points\.parquet: its key-value metadata names no space"):
        read_space(file)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_space_of_a_model_has_its_rule(rule):
    assert space_of(tiny_encoder(entailment=as_entry(rule))).entailment == rule
