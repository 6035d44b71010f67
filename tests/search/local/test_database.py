"""The file: what it refuses, what survives a kill, and filters in SQL that mean what where.matches says."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.errors import StoreError
from hypclip.search import LocalStore, Where
from hypclip.search.local.sqlite import FILE, FORMAT, Database
from hypclip.search.where import matches
from tests.support.search import SPACE, canonical, names, points, scalars, texts, values

BOUNDS = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers(-3, 3) | st.floats(-3, 3), min_size=1)


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path, create=True)
    yield database
    database.close()


@pytest.fixture(scope="module")
def shared():
    """A file for examples, which each write to a collection of their own."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(directory, create=True)
        database._writer.execute("PRAGMA synchronous = OFF")  # hundreds of writes that nobody needs to survive
        yield database
        database.close()


def write(database, collection, metadata, ids=None):
    ids = ids or [f"p{i}" for i in range(len(metadata))]
    vectors = np.ones((len(ids), 4), np.float32)
    texts = [canonical(m) for m in metadata]
    fields = {name for m in metadata for name in m}
    with database.writing:
        return database.write(collection, ids, vectors, ["text"] * len(ids), texts, fields)


def collection(database):
    return database.add_collection(f"c{time.monotonic_ns()}", SPACE)


def edited(directory, script):
    """Change a closed index behind its back."""
    with contextlib.closing(sqlite3.connect(directory / FILE)) as connection:
        connection.executescript(script)


# Filters --------------------------------------------------------------------------------------------------------------


def assert_same(database, metadata, filter):
    conditions = Where(filter).conditions
    number = collection(database)
    keys, _ = write(database, number, metadata)
    found = database.matching(number, conditions, 0, 2**62)
    stored = [json.loads(canonical(m)) for m in metadata]
    assert found.tolist() == [key for key, m in zip(keys.tolist(), stored, strict=True) if matches(m, conditions)]


@settings(max_examples=150)
@given(st.data())
def test_sql_means_what_the_definition_says(shared, data):
    # Names that no filter can have may be there too.
    keys = names | st.sampled_from(['a"b', '"a"', "a\\", "\\u0061", "a\n", ""])
    metadata = data.draw(st.lists(st.dictionaries(keys, values, max_size=4), min_size=1, max_size=4))
    # What is asked for occurs, most often.
    present = sorted({n for m in metadata for n in m if n and n.isprintable() and not set(n) & set('"\\')}) or ["a"]
    leaves = [v for m in metadata for value in m.values() for v in (value if isinstance(value, list) else [value])]
    plain = [v for v in leaves if isinstance(v, (str, bool)) or v is None or (is_small(v) and v == v)]
    wanted = st.sampled_from(plain) | scalars if plain else scalars
    condition = wanted | st.lists(wanted, min_size=1, max_size=3) | BOUNDS
    filter = data.draw(st.dictionaries(st.sampled_from(present) | names, condition, min_size=1, max_size=2))
    assert_same(shared, metadata, filter)


def is_small(value):
    return isinstance(value, (int, float)) and abs(value) <= 2**53


@settings(max_examples=60)
@given(st.lists(st.floats(-(2.0**53), 2.0**53), min_size=1, max_size=20), st.data())
def test_every_float_is_found_by_its_own_value(shared, numbers, data):
    wanted = data.draw(st.sampled_from(numbers))
    assert_same(shared, [{"v": number} for number in numbers], {"v": wanted})
    assert_same(shared, [{"v": number} for number in numbers], {"v": {"gte": wanted, "lte": wanted}})


@settings(max_examples=100)
@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_every_string_is_found_by_its_own_value(shared, strings, data):
    assert_same(shared, [{"v": string} for string in strings], {"v": data.draw(st.sampled_from(strings))})


@pytest.mark.parametrize("string", ["\x1f", "\x7f", "\u2028", "\uffff", "\U0010ffff", '"', "\\", "\\u0000"])
def test_strings_of_odd_characters_are_found(database, string):
    assert_same(database, [{"v": string}, {"v": string[:1]}, {"v": ""}, {"v": [string]}], {"v": string})


@pytest.mark.parametrize("name", ["a.b", "a[0]", "$", "$.a", "#-1", "[0]", ".", "名前", "😀", "'", "%", "?", " ", "0"])
def test_fields_of_any_name_are_found(database, name):
    metadata = [{name: 1}, {name: [2, 1]}, {name: {"b": 1}}, {"a": {"b": 1}, "b": 1}, {"a": [1]}, {}]
    assert_same(database, metadata, {name: 1})
    assert_same(database, metadata, {name: {"gte": 1}})


def test_matching_looks_at_one_collection_between_two_keys(database):
    ours, theirs = collection(database), collection(database)
    first, _ = write(database, ours, [{"k": 1}] * 3)
    write(database, theirs, [{"k": 1}] * 3)
    later, _ = write(database, ours, [{"k": 1}, {"k": 2}], ["x", "y"])
    conditions = Where({"k": 1}).conditions
    assert database.matching(ours, conditions, 0, 10**9).tolist() == [*first, later[0]]
    assert database.matching(ours, conditions, int(first[0]), int(first[2])).tolist() == first[1:].tolist()
    assert database.matching(ours, conditions, int(later[-1]), 10**9).tolist() == []


# Keys and transactions ------------------------------------------------------------------------------------------------


def test_a_key_is_never_given_again(tmp_path):
    seen = []
    for _ in range(3):
        database = Database(tmp_path, create=True)
        number = database.collections()[0][0] if seen else collection(database)
        for _ in range(2):
            keys, _ = write(database, number, [{}] * 5)
            seen += keys.tolist()
            database.delete(number, [f"p{i}" for i in range(5)])
        database.close()
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    "point_id", ["a", "1", "é", "😀", "a'b", 'a"b', "a\\b", " ", "null", "a\nb", "a\0b", "\0", "\uffff"]
)
def test_a_point_is_found_replaced_and_deleted_by_any_id(database, point_id):
    number = collection(database)
    (first,), none = write(database, number, [{"v": 1}], [point_id])
    assert none.tolist() == []
    (second,), replaced = write(database, number, [{"v": 2}], [point_id])
    assert replaced.tolist() == [first]
    assert list(database.by_id(number, [point_id])) == [point_id]
    assert database.by_key(np.array([second]))[0].id == point_id
    assert database.labels([int(second)]) == {second: (point_id, '{"v": 2}')}
    assert database.delete(number, [point_id, "unknown"]).tolist() == [second]


def test_a_failing_write_leaves_nothing(database):
    number = collection(database)
    write(database, number, [{}], ["a"])
    database._writer.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON points WHEN NEW.id = 'b' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(StoreError, match=r"cannot use the index .*points\.sqlite3: no"):
        write(database, number, [{"new": 1}, {}, {}], ["x", "a", "b"])
    assert list(database.by_id(number, ["a", "b", "x"])) == ["a"]
    assert database.collections()[0][3] == set()
    write(database, number, [{}], ["c"])
    assert set(database.by_id(number, ["a", "c"])) == {"a", "c"}


def test_writes_are_synchronous(database):
    pragmas = [database._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


def test_readers_cannot_write(database):
    with pytest.raises(StoreError, match="readonly"), database.reading() as connection:
        connection.execute("DELETE FROM points")


def test_a_reader_waits_for_no_writer(database):
    number = collection(database)
    write(database, number, [{}], ["a"])
    with database.transaction() as connection:
        connection.execute("DELETE FROM points")
        assert list(database.by_id(number, ["a"])) == ["a"]
    assert database.by_id(number, ["a"]) == {}


# What is refused ------------------------------------------------------------------------------------------------------


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


def refused(directory, message, error=StoreError):
    """Opening fails, says why and in which file, and leaves every byte as it was."""
    before = files(directory)
    with pytest.raises(error, match=message):
        LocalStore(directory)
    assert files(directory) == before
    with pytest.raises(error, match=message):
        LocalStore(directory, create=True)
    assert files(directory) == before


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A closed index of 200 points in cells."""
    directory = tmp_path_factory.mktemp("template")
    ids = [f"p{i:03}" for i in range(200)]
    with LocalStore(directory, create=True) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", points(ids, metadata=[{"k": i % 2, "pad": "x" * 200} for i in range(200)]))
        store.optimize("c", 4)
    return directory


@pytest.fixture
def index(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "index"))


def test_no_index_is_made_unasked(tmp_path):
    with pytest.raises(StoreError, match=f"there is no index in .*nowhere: {FILE} not found"):
        LocalStore(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(StoreError, match="there is no index in"):
        LocalStore(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use the index .*points\.sqlite3"):
        LocalStore(tmp_path / "file" / "index", create=True)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    refused(tmp_path, r"points\.sqlite3: file is not a database")


@pytest.mark.parametrize("script", ["CREATE TABLE other (x)", "PRAGMA application_id = 77; CREATE TABLE points (x)"])
def test_a_database_of_something_else_is_refused(tmp_path, script):
    edited(tmp_path, script)
    refused(tmp_path, r"points\.sqlite3 is a database of something else, not an index of hypclip")


def test_an_empty_file_is_no_index(tmp_path):
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(StoreError):
        LocalStore(tmp_path)
    assert files(tmp_path) == {FILE: b""}
    LocalStore(tmp_path, create=True).close()  # what a kill at the first start leaves is completed


@pytest.mark.parametrize("version", [1, FORMAT + 1])
def test_an_index_of_another_format_is_refused(index, version):
    edited(index, f"PRAGMA user_version = {version}")
    refused(index, rf"has format {version}; this version of hypclip reads format {FORMAT}.*train/embed\.py")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_truncated_file_is_refused(index, share):
    content = (index / FILE).read_bytes()
    (index / FILE).write_bytes(content[: int(share * len(content))])
    refused(index, r"points\.sqlite3")


def test_garbage_in_the_middle_is_refused(index):
    content = bytearray((index / FILE).read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = random.randbytes(8192)
    (index / FILE).write_bytes(content)
    refused(index, r"points\.sqlite3")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE points SET vector = x'00' WHERE id = 'p007'",
        "UPDATE points SET vector = substr(vector, 1, 12) WHERE id = 'p007'",
        "UPDATE points SET vector = x'0000c07f000000000000000000000000' WHERE id = 'p007'",  # NaN
        "UPDATE points SET vector = x'0000807f000000000000000000000000' WHERE id = 'p007'",  # infinite
        "UPDATE points SET vector = zeroblob(12) WHERE id = 'p007';"
        "UPDATE points SET vector = zeroblob(20) WHERE id = 'p008'",
        "UPDATE points SET modality = 'smell' WHERE id = 'p007'",
        "UPDATE points SET collection = 9 WHERE id = 'p007'",
        "UPDATE collections SET curv = 0",
        "UPDATE collections SET dim = 3",
        "DELETE FROM collections",
        "UPDATE cells SET starts = x'00'",
        "UPDATE cells SET centroids = x'00'",
        "UPDATE cells SET keys = x'00'",
        "UPDATE cells SET centroids = substr(centroids, 1, 16)",
    ],
)
def test_a_damaged_index_is_refused(index, damage):
    edited(index, damage)
    refused(index, r"points\.sqlite3 is damaged")


def test_damaged_metadata_is_explained_when_it_is_read(index):
    edited(index, "UPDATE points SET metadata = '{' WHERE id = 'p007'")
    with LocalStore(index) as store:
        for call in (
            lambda: store.get("c", ["p007"]),
            lambda: store.knn("c", torch.zeros(1, 4), 200),
            lambda: store.count("c", Where({"k": 1})),
            lambda: list(store.scan("c")),
        ):
            with pytest.raises(StoreError, match=r"points\.sqlite3"):
                call()
        assert store.get("c", ["p008"]).ids == ["p008"]


@contextlib.contextmanager
def as_nobody():
    """Root may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_that_cannot_be_written_is_refused(template):
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(shutil.copytree(template, Path(parent) / "index"))
        for path in (directory, *directory.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        Path(parent).chmod(0o755)
        with as_nobody():
            refused(directory, r"cannot use the index .*points\.sqlite3.*(Permission denied|readonly)")
        directory.chmod(0o755)


def test_one_store_at_a_time(tmp_path):
    with LocalStore(tmp_path, create=True), pytest.raises(StoreError, match="it is open elsewhere, and one process"):
        LocalStore(tmp_path)
    LocalStore(tmp_path).close()
    with filelock.FileLock(tmp_path / "lock"):
        refused(tmp_path, "it is open elsewhere")


def test_a_store_may_be_closed_by_another_thread(tmp_path):
    store = LocalStore(tmp_path, create=True)
    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join()
    LocalStore(tmp_path).close()


def test_a_refused_file_is_let_go(index):
    edited(index, "UPDATE points SET modality = 'smell'")
    refused(index, "damaged")
    edited(index, "UPDATE points SET modality = 'text'")
    LocalStore(index).close()
    LocalStore(index).close()


def test_closing_twice_does_no_harm(database):
    database.close()
    database.close()


# Kill -9 --------------------------------------------------------------------------------------------------------------

_WRITER = """
import os, signal, sys, time
import torch
from hypclip.search import LocalStore, Points, Space

def write(start):
    store = LocalStore(sys.argv[1], create=True)
    store.create_collection("c", Space("m", 1.0, 2))
    for batch in range(start, start + 100_000):
        ids = [f"{batch}-{i}" for i in range(50)] + ["last"]
        store.upsert("c", Points(ids, torch.full((51, 2), batch / 1000), ["text"] * 51, [{"batch": batch}] * 51))
        if batch % 3 == 2:
            store.delete("c", [f"{batch - 1}-{i}" for i in range(50)])
        os.write(1, b"%d\\n" % batch)  # whole or not at all, where print may be cut in two

torch.set_num_threads(1)
while start := sys.stdin.readline():
    child = os.fork()
    if child == 0:
        write(int(start))
    time.sleep(float(sys.stdin.readline()))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_a_kill_and_batches_are_whole(tmp_path):
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    kept, start, rng = set(), 0, random.Random(0)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        for _ in range(3):
            print(start, file=child.stdin, flush=True)
            begun = [int(child.stdout.readline()) for _ in range(rng.randint(3, 9))]
            if start == 0:
                assert begun[0] == 0
                with pytest.raises(StoreError, match="open elsewhere"):
                    LocalStore(tmp_path)
            print(rng.uniform(0, 0.05), file=child.stdin, flush=True)  # at any moment of a write
            acknowledged = max([*begun, *(int(line) for line in iter(child.stdout.readline, "killed\n"))])
            kept = check_what_was_kept(tmp_path, kept, start, acknowledged)
            start = max(kept) + 1
        child.stdin.close()
    assert len(kept) > 6


def check_what_was_kept(directory, before, start, acknowledged):
    """Check the batches in the file after a kill, and return their numbers."""
    with LocalStore(directory) as store:
        sizes: dict[int, int] = {}
        for block in store.scan("c"):
            for point_id, vector, metadata in zip(block.ids, block.vectors, block.metadata, strict=True):
                assert vector.tolist() == pytest.approx([metadata["batch"] / 1000] * 2)
                if point_id != "last":
                    sizes[metadata["batch"]] = sizes.get(metadata["batch"], 0) + 1
        assert set(sizes.values()) == {50}
        last = store.get("c", ["last"]).metadata[0]["batch"]
        (found,) = store.knn("c", torch.full((1, 2), last / 1000), 51)
        assert {hit.metadata["batch"] for hit in found.hits} == {last}
    assert acknowledged <= last <= acknowledged + 1
    deleted = {batch - 1 for batch in range(start, last + 1) if batch % 3 == 2}
    expected = (before | set(range(start, last + 1))) - deleted
    # Where the last batch was not acknowledged, its deletion may not have been reached.
    assert expected <= set(sizes) <= (expected | {last - 1} if last > acknowledged else expected)
    return set(sizes)


def test_a_copy_holds_one_collection_and_opens_as_an_index(database, tmp_path):
    other, ours = collection(database), collection(database)
    write(database, other, [{"x": 1}] * 3)
    write(database, ours, [{"k": 1}, {"k": 2}])
    (tmp_path / "copy").mkdir()
    database.copy(ours, tmp_path / "copy")
    copied = Database(tmp_path / "copy", create=False)
    ((_, name, space, fields),) = copied.collections()
    assert (name, space, fields) == (database.collections()[1][1], SPACE, {"k"})
    assert [row.id for row in copied.by_id(ours, ["p0", "p1"]).values()] == ["p0", "p1"]
    copied.close()
