"""A taxonomy over phrases: levels, ancestors, and what is refused."""

import json

import pytest

from hypclip.data.quickstart.art import concepts
from hypclip.errors import DataError
from hypclip.taxonomy import Taxonomy, emoji_edges
from hypclip.taxonomy import load as load_taxonomy

EDGES = [
    ("a dog", "an animal"),
    ("a poodle", "a dog"),
    ("a poodle", "a pet"),
    ("a pet", "an animal"),
    ("a rose", "a plant"),
]


def test_what_stands_above_a_phrase_nearest_level_first():
    taxonomy = Taxonomy(EDGES)
    assert taxonomy.ancestors("a poodle") == ("a dog", "a pet", "an animal")
    assert taxonomy.ancestors("a rose") == ("a plant",)
    assert taxonomy.ancestors("an animal") == ()
    assert taxonomy.ancestors("a car") == ()
    assert taxonomy.most_ancestors == 3


def test_levels_are_the_longest_way_from_a_root():
    taxonomy = Taxonomy([*EDGES, ("a poodle", "an animal")])
    assert {p: taxonomy.level(p) for p in taxonomy.phrases} == {
        "a plant": 0, "an animal": 0, "a dog": 1, "a pet": 1, "a rose": 1, "a poodle": 2,
    }  # fmt: skip
    assert taxonomy.general == ("a plant", "an animal", "a dog", "a pet")
    with pytest.raises(KeyError):
        taxonomy.level("a car")


def test_case_and_spacing_make_no_difference():
    taxonomy = Taxonomy([("A  Dog", "an animal"), ("a poodle", "a dog")])
    assert len(taxonomy) == 3
    assert taxonomy.ancestors(" a POODLE ") == ("a dog", "an animal")
    assert "a Dog" in taxonomy
    assert "a car" not in taxonomy


def test_a_cycle_is_named():
    with pytest.raises(DataError, match=r"has a cycle.*: a → b → c → a"):
        Taxonomy([("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])
    with pytest.raises(DataError, match=r"has a cycle.*: a dog → a dog"):
        Taxonomy([("a dog", "A dog")])


def test_one_level_is_a_taxonomy_and_none_is_not():
    assert Taxonomy([("a dog", "an animal")]).general == ("an animal",)
    with pytest.raises(DataError, match="at least one is-a edge"):
        Taxonomy([])


def test_a_file_is_read(tmp_path):
    file = tmp_path / "is_a.json"
    file.write_text(json.dumps([list(edge) for edge in EDGES]))
    assert load_taxonomy(file).edges == Taxonomy(EDGES).edges
    assert load_taxonomy(str(file)).edges == load_taxonomy(EDGES).edges


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot read a taxonomy"),
        ('{"a": "b"}', r"a tree .*; below 'a' it has 'b'"),
        ('[["a"]]', r"must hold is-a edges .*, got \['a'\]"),
        ('[["a", "b"], ["c", 3]]', r"must hold is-a edges .*, got \['c', 3\]"),
        ('[["a", " "]]', r"must hold is-a edges .*, got \['a', ' '\]"),
        ("[]", "at least one is-a edge"),
        ('[["a", "b"], ["b", "a"]]', "cycle"),
    ],
)
def test_a_file_of_other_content_is_refused_by_name(tmp_path, content, said):
    file = tmp_path / "is_a.json"
    file.write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        load_taxonomy(file)
    assert "is_a.json" in str(caught.value)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(DataError, match=r"no taxonomy 'emojis'.*emoji, emoji-held-out"):
        load_taxonomy("emojis")


def test_the_emoji_are_families_kinds_and_names_and_a_fifth_of_the_names_is_apart():
    known, held_out = load_taxonomy("emoji"), load_taxonomy("emoji-held-out")
    assert known.ancestors("a green apple") == ("a fruit", "food")
    assert known.ancestors("a bird") == ("an animal",)
    kinds = {c.kind for c in concepts()}
    apart = {c.name for c in concepts() if c.index % 5 == 0 and c.name not in kinds}
    assert len(held_out.edges) == len(apart) == 204
    assert not {child for child, _ in held_out.edges} & set(known.phrases)
    assert [sum(known.level(p) == level for p in known.phrases) for level in range(4)] == [11, 66, 807, 0]
    assert len(emoji_edges()) == 66 + 807
