"""Pictures of taxonomies: places, what is chosen of a large one, names, and files."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from hypclip.errors import InputError
from hypclip.geometry import lorentz, poincare
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy.drawing import disk_picture
from hypclip.taxonomy.drawing.labels import Label, shown, width
from hypclip.taxonomy.drawing.picture import points_between
from hypclip.taxonomy.drawing.tree import Tree
from hypclip.taxonomy.embedding import place

SVG = "{http://www.w3.org/2000/svg}"


def complete(branches: int, depth: int) -> Taxonomy:
    """A node is called by its way from the root."""
    edges, level = [], ["r"]
    for _ in range(depth):
        below = [(f"{up}{i}", up) for up in level for i in range(branches)]
        edges += below
        level = [child for child, _ in below]
    return Taxonomy(edges)


def dots(picture):
    """Return by phrase where a dot is in the unit disk, and the distance that it tells."""
    found = {}
    for dot in picture.dots:
        phrase, _, told = dot.title.rpartition(", ")
        found[phrase] = (np.array(dot.at), float(told))
    return found


@pytest.mark.parametrize("curv", [1.0, 0.3])
def test_points_of_two_dimensions_are_drawn_where_they_are(curv):
    phrases, x = place(complete(3, 3), 2, 1.5, torch.float64)
    x = x / math.sqrt(curv)
    found = dots(disk_picture(complete(3, 3), phrases, x, curv))
    ball = poincare.from_lorentz(x, curv) * math.sqrt(curv)
    for phrase, p in zip(phrases, ball, strict=True):
        assert found[phrase][0] == pytest.approx(p.numpy(), abs=1e-12)


def test_a_centre_is_in_the_middle_and_all_distances_to_it_are_true():
    taxonomy = complete(3, 3)
    phrases, x = place(taxonomy, 2, 1.5, torch.float64)
    found = dots(disk_picture(taxonomy, phrases, x, centre="R01"))
    assert set(found) == set(phrases)
    middle = x[phrases.index("r01")]
    for phrase, point in zip(phrases, x, strict=True):
        d = float(lorentz.dist(middle, point, 1.0))
        assert np.linalg.norm(found[phrase][0]) == pytest.approx(math.tanh(d / 2), abs=1e-9)
        assert found[phrase][1] == pytest.approx(d, abs=0.006)


def test_of_more_dimensions_distances_are_true_on_one_scale_and_what_is_general_is_amid_what_is_below_it():
    taxonomy = complete(3, 3)
    phrases, x = place(taxonomy, 5, 1.0, torch.float64)
    x[phrases.index("r0")] *= 1.7
    picture = disk_picture(taxonomy, phrases, x)
    found = dots(picture)
    scales = [
        math.atanh(np.linalg.norm(at)) / float(lorentz.radius(x[phrases.index(phrase)], 1.0))
        for phrase, (at, _) in found.items()
        if phrase != "r"
    ]
    assert max(scales) == pytest.approx(min(scales), rel=1e-9)
    assert 0.9 < max(np.linalg.norm(at) for at, _ in found.values()) < 0.99
    for ring in picture.rings:
        assert math.atanh(ring.radius) / float(ring.words) == pytest.approx(scales[0])
    angle = {phrase: math.atan2(at[1], at[0]) for phrase, (at, _) in found.items()}
    middle = np.angle(sum(np.exp(1j * angle[f"r1{i}"]) for i in range(3)))
    assert angle["r1"] == pytest.approx(middle, abs=1e-9)


def test_what_is_above_a_centre_is_at_the_top_and_takes_at_most_a_third():
    taxonomy = complete(4, 4)
    phrases, x = place(taxonomy, 8, 1.0)
    found = dots(disk_picture(taxonomy, phrases, x, centre="r0"))
    assert math.atan2(*reversed(found["r"][0])) == pytest.approx(math.pi / 2)
    upwards = [at for phrase, (at, _) in found.items() if not phrase.startswith("r0")]
    assert all(at[1] >= math.sin(math.pi / 6) * np.linalg.norm(at) - 1e-9 for at in upwards)


def test_lines_are_geodesics_of_the_disk():
    p, q = (0.3, 0.6), (-0.7, 0.1)
    ends = torch.tensor([p, q], dtype=torch.float64)
    line = torch.tensor(points_between(p, q), dtype=torch.float64)
    assert torch.allclose(line[[0, -1]], ends)
    direct = poincare.dist(ends[:1], ends[1:], 1.0)
    way = poincare.dist(ends[:1].expand_as(line), line, 1.0) + poincare.dist(line, ends[1:].expand_as(line), 1.0)
    assert torch.allclose(way, direct.expand_as(way), atol=1e-9)
    assert points_between((0.1, 0.2), (-0.3, -0.6)) == [(0.1, 0.2), (-0.3, -0.6)]


def test_of_a_large_tree_the_most_general_and_what_is_below_the_centre_are_drawn():
    taxonomy = complete(4, 6)
    assert len(taxonomy) == 5461
    tree = Tree.of(taxonomy, None, 80, None)
    assert len(tree.phrases) == 80
    assert {each for each in taxonomy.phrases if taxonomy.level(each) <= 3} > set(tree.phrases)
    assert {each for each in taxonomy.phrases if taxonomy.level(each) < 3} < set(tree.phrases)
    centred = set(Tree.of(taxonomy, "r0123", 100, None).phrases)
    assert len(centred) == 100
    assert {"r", "r0", "r01", "r012", "r0123", "r0122"} < centred  # the way up, and what stands beside
    assert set(taxonomy.descendants("r0123")) < centred
    near = Tree.of(taxonomy, "r0123", 100, 1)
    assert set(near.phrases) == {"r0123", "r012", *(f"r0123{i}" for i in range(4))}
    for tree in (near, Tree.of(taxonomy, "r01", 37, None)):
        assert all(up is None or up in tree.parent for up in tree.parent.values())


def test_a_file_of_a_large_tree_is_small():
    taxonomy = complete(9, 5)
    phrases = list(taxonomy.phrases)
    x = torch.randn(len(phrases), 4, generator=torch.Generator().manual_seed(0))
    assert len(phrases) == 66430
    picture = disk_picture(taxonomy, phrases, x, most=400)
    assert len(picture.svg()) < 90_000


def test_several_roots_are_around_the_origin_and_a_centre_shows_its_own_tree():
    taxonomy = Taxonomy([("a1", "a"), ("a2", "a"), ("b1", "b")])
    phrases, x = place(taxonomy, 3, 1.0)
    assert set(dots(disk_picture(taxonomy, phrases, x))) == {"a", "a1", "a2", "b", "b1"}
    assert set(dots(disk_picture(taxonomy, phrases, x, centre="a1"))) == {"a", "a1", "a2"}


def test_a_second_parent_has_a_line_too():
    taxonomy = Taxonomy([("pet", "animal"), ("mammal", "animal"), ("dog", "mammal"), ("dog", "pet")])
    phrases, x = place(taxonomy, 3, 1.0)
    picture = disk_picture(taxonomy, phrases, x)
    assert sum(len(arcs.pairs) for arcs in picture.arcs) == 4


def test_names_do_not_touch_and_the_most_general_are_there():
    taxonomy = complete(8, 3)
    phrases, x = place(taxonomy, 8, 1.0)
    picture = disk_picture(taxonomy, phrases, x, name=lambda phrase: f"the phrase {phrase}")
    boxes = [_samples(name.label) for name in picture.names]
    assert {"the phrase r", *(f"the phrase r{i}" for i in range(8))} <= {name.label.text for name in picture.names}
    assert 40 < len(boxes) < len(phrases)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            nearest = np.linalg.norm(one[:, None] - other[None], axis=-1).min()
            assert nearest > 7
        assert (one > 0).all()
        assert (one < picture.side).all()


def _samples(label: Label) -> np.ndarray:
    """Return points along the middle of a name."""
    length = width(label.text, label.size) - label.size
    start = {"start": label.size / 2, "middle": -length / 2, "end": -length - label.size / 2}[label.anchor]
    along = start + np.linspace(0, length, 30)
    turn = math.radians(label.turn)
    return np.array([label.x, label.y]) + along[:, None] * np.array([math.cos(turn), math.sin(turn)])


HOSTILE = [
    '<script>alert("1")</script>',
    "a & b",
    "evil \u202etxt.exe",
    "bell\x07",
    "\ud800 lone",
    "x" * 300,
    "犬",
    "כלב",
]


def test_hostile_names_are_escaped_shortened_and_shown():
    taxonomy = Taxonomy([(name, "animal") for name in HOSTILE])
    phrases, x = place(taxonomy, 3, 1.0)
    svg = disk_picture(taxonomy, phrases, x).svg()
    svg.encode()
    root = ET.fromstring(svg)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "a & b" in texts
    assert "כלב" in texts
    assert "evil \ufffdtxt.exe" in texts
    assert max(map(len, texts)) <= 26
    assert max(len(title.text) for title in root.iter(f"{SVG}title")) <= 220
    assert not list(root.iter(f"{SVG}script"))
    assert "\u202e" not in svg


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("  a\n dog ", "a dog"),
        ("x" * 40, "x" * 25 + "…"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\ufeffa\x00", "\ufffda\ufffd"),
    ],
)
def test_a_name_is_one_short_line(name, expected):
    assert shown(name) == expected


def test_a_hollow_dot_and_synsets_by_their_words():
    taxonomy = Taxonomy([("domestic_dog.n.01", "animal.n.01")])
    phrases, x = place(taxonomy, 3, 1.0)
    picture = disk_picture(taxonomy, phrases, x, hollow={"domestic_dog.n.01"})
    assert [(dot.title.split(",")[0], dot.hollow) for dot in picture.dots] == [
        ("domestic dog", True),
        ("animal", False),
    ]
    assert 'fill="#fff"><title>domestic dog' in picture.svg()


def test_a_png_shows_the_same(tmp_path):
    taxonomy = complete(3, 2)
    phrases, x = place(taxonomy, 3, 1.0)
    picture = disk_picture(taxonomy, phrases, x)
    picture.write(tmp_path / "disk.PNG")
    image = Image.open(tmp_path / "disk.PNG")
    assert image.size == (picture.side, picture.side)
    for dot in picture.dots:
        px = tuple(round(v) for v in picture.place(dot.at))
        wanted = tuple(int(dot.colour[i : i + 2], 16) for i in (1, 3, 5))
        assert image.getpixel(px) == pytest.approx(wanted, abs=40)
    assert Image.open(io.BytesIO(picture.png(300))).size == (300, 300)
    with pytest.raises(InputError, match=r"a file .svg or .png, got .*disk.pdf"):
        picture.write(tmp_path / "disk.pdf")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"centre": "rr1"}, "the centre 'rr1' is not in the taxonomy; did you mean 'r1'"),
        ({"centre": "quite another"}, "is not in the taxonomy$"),
        ({"most": 0}, "most must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"phrases": ["r", "r0", "r1", "other"]}, "phrases of the taxonomy have no point: r2"),
        ({"x": torch.full((4, 3), torch.nan)}, "NaN or infinite"),
        ({"x": torch.zeros(4, 1)}, r"shape \(N, D ≥ 2\), got \(4, 1\)"),
        ({"x": torch.zeros(3, 3)}, r"got \(3, 3\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, said):
    phrases, x = place(complete(3, 1), 3, 1.0)
    given = {"phrases": phrases, "x": x, **options}
    with pytest.raises(InputError, match=said):
        disk_picture(complete(3, 1), **given)


def test_a_word_is_given_the_synset_that_may_be_meant():
    taxonomy = Taxonomy([("guinea_pig.n.01", "animal.n.01")])
    phrases, x = place(taxonomy, 3, 1.0)
    with pytest.raises(InputError, match=r"did you mean 'guinea_pig\.n\.01'"):
        disk_picture(taxonomy, phrases, x, centre="Guinea pig")


def test_points_in_one_place_are_drawn():
    taxonomy = complete(2, 1)
    picture = disk_picture(taxonomy, list(taxonomy.phrases), torch.zeros(3, 4))
    assert all(np.allclose(dot.at, 0) for dot in picture.dots)
    ET.fromstring(picture.svg())
