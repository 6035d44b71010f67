"""Taxonomies in files of every format, and in folders."""

import pytest

from hypclip.errors import DataError
from hypclip.taxonomy import Taxonomy, load

EDGES = {("dog", "animal"), ("poodle", "dog"), ("cat", "animal")}

FILES = {
    "pairs.json": '[["dog", "animal"], ["poodle", "dog"], ["cat", "animal"]]',
    "tree.json": '{"animal": {"dog": ["poodle"], "cat": null}}',
    "edges.csv": "child,parent\ndog,animal\n# a comment\npoodle,dog\n\ncat,animal\n",
    "closure.tsv": "id1\tid2\tweight\ndog\tanimal\t1\npoodle\tdog\t1\ncat\tanimal\t1\n",
    "indented.txt": "animal\n  - dog\n\n      - poodle\n  - cat\n",
    "terms.obo": """format-version: 1.2

[Term]
id: X:1
name: animal

[Term]
id: X:2
name: dog
is_a: X:1 ! animal

[Term]
id: X:3
name: poodle
is_a: X:2 ! dog
relationship: part_of X:4

[Term]
id: X:4
name: cat
is_a: X:1

[Term]
id: X:5
name: unicorn
is_a: X:1
is_obsolete: true
""",
    "concepts.ttl": """@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix : <http://x.org/> .
:1 skos:prefLabel "animal"@en, "Tier"@de .
:2 skos:broader :1 ; skos:prefLabel "Hund"@de, "dog"@en .
:2 skos:narrower :3 .
:3 skos:prefLabel "poodle" .
:cat skos:broader :1 .
""",
    "classes.owl": """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:owl="http://www.w3.org/2002/07/owl#"
         xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#">
  <owl:Class rdf:about="http://x.org/o#animal">
    <rdfs:subClassOf rdf:resource="http://www.w3.org/2002/07/owl#Thing"/></owl:Class>
  <owl:Class rdf:about="http://x.org/o#D1"><rdfs:label>dog</rdfs:label>
    <rdfs:subClassOf rdf:resource="http://x.org/o#animal"/>
    <rdfs:subClassOf><owl:Restriction/></rdfs:subClassOf></owl:Class>
  <owl:Class rdf:about="http://x.org/o#poodle"><rdfs:subClassOf rdf:resource="http://x.org/o#D1"/></owl:Class>
  <owl:Class rdf:about="http://x.org/o#cat"><rdfs:subClassOf rdf:resource="http://x.org/o#animal"/></owl:Class>
</rdf:RDF>
""",
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_edges(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    assert set(load(tmp_path / name).edges) == EDGES


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"animal": "dog"}', r"tree .*; below 'animal' it has 'dog'"),
        ("a.json", '{"animal": {" ": null}}', "a name at or below 'animal' is empty"),
        ("a.json", "[" * 100_000, "cannot read a taxonomy"),
        ("a.csv", "dog,animal\ncat\n", "line 2: expected a child and its parent, got 'cat'"),
        ("a.csv", "dog,\n", "line 1: expected a child"),
        ("a.txt", "animal\n        dog\n    cat\n", "line 3: 'cat' is indented like no line before it"),
        ("a.txt", "animal\nplant\n", "at least one is-a edge"),
        ("a.obo", "[Term]\nname animal", "cannot read a taxonomy|at least one is-a edge"),
        ("a.ttl", "not turtle at all", "cannot read a taxonomy"),
        ("a.owl", "<rdf", "cannot read a taxonomy"),
        ("a.xlsx", "", r"expected one of the formats \.json"),
    ],
)
def test_other_content_is_refused_with_the_file_and_the_place(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        load(tmp_path / name)
    assert name in str(caught.value)


def test_two_terms_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "a.obo").write_text(
        "[Term]\nid: X:1\nname: root\n\n[Term]\nid: X:2\nname: part\nis_a: X:1\n\n"
        "[Term]\nid: X:3\nname: Part\nis_a: X:1\n"
    )
    assert set(load(tmp_path / "a.obo").phrases) == {"root", "part (x:2)", "part (x:3)"}


def test_folders_within_folders(tmp_path):
    for place in ("animal/dog/poodle", "animal/cat", "food/fruit/other", "food/other", ".git/x/y", "animal/guinea_pig"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "animal" / "photo.jpg").touch()
    assert set(load(tmp_path).edges) == {
        ("dog", "animal"), ("poodle", "dog"), ("cat", "animal"), ("guinea pig", "animal"), ("fruit", "food"),
        ("other (food/fruit)", "fruit"), ("other (food)", "food"),
    }  # fmt: skip
    with pytest.raises(DataError, match="no folders within its folders"):
        load(tmp_path / "food" / "fruit")


def test_an_unknown_source_names_what_there_is(tmp_path):
    with pytest.raises(DataError, match=r"no taxonomy 'word-net'.*wordnet-nouns.*a folder of classes.*\.obo"):
        load("word-net")
    assert isinstance(load([["dog", "animal"]]), Taxonomy)
