from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone, Entailment, Plane, pairwise_score
from hypclip.geometry.metric import Metric
from tests.support.browser import chromium
from tests.support.disk import angles_to, collection, disk_page, focus_of, map_of

pytestmark = pytest.mark.slow

MADE = collection(kinds=4, names=4, images=4)
IMAGE = int((MADE.modality == 1).nonzero()[9])
NAME = 7 + 7 * 4 + 5
RULES: list[Entailment] = [
    Cone(),
    Cone(eta=0.6, min_radius=0.3),
    Cone(eta=1.7, min_radius=0.2),
    Plane(),
    Plane(threshold=0.15),
    Plane(threshold=-0.2),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    chromium()
    data = {
        "map": map_of(MADE),
        "image": focus_of(MADE, IMAGE),
        "name": focus_of(MADE, NAME, Plane()),
        "two": focus_of(MADE, IMAGE, target=NAME),
    }
    with disk_page(data, reduced_motion="reduce") as opened:
        opened.evaluate(
            """() => {
          window.settle = async () => {
            for (let i = 0; i < 3; i++) await new Promise((done) => setTimeout(() => requestAnimationFrame(done), 60));
          };
          window.turn = async (name) => { disk.setFocus(name && await columns(name)); await settle(); };
          window.spots = () => [...disk.picture.sx].map((x, i) => [x, disk.picture.sy[i]]);
          window.apart = () => {
            const { labels, pictures } = disk.picture.captioned;
            const all = [...labels, ...pictures];
            return all.every((a, i) => all.slice(0, i).every((b) => !overlap(a, b)));
          };
        }"""
        )
        yield opened


@pytest.fixture(autouse=True)
def fresh(page: Any) -> None:
    """Begin each test with the whole map, nothing marked and no calls."""
    page.mouse.move(1, 1)
    page.evaluate(
        """async () => {
          disk.setFocus(null); disk.setMap(map); disk.home();
          disk.setOptions({ trueScale: false, thumbnails: true, thumbnailSize: 48, labels: true });
          disk.setMarks({ selected: null, hovered: null, query: null, set: null, path: [] });
          await settle();
          for (const name of ["hover", "select", "open", "lasso"]) calls[name].length = 0;
        }"""
    )


@pytest.mark.parametrize("view", ["map", "true scale", "focus"])
def test_drawn_radius_has_the_order_of_the_true_radius(page: Any, view: str) -> None:
    assert page.evaluate(
        """async (view) => {
          const made = new layout.Layout(map, view === "true scale");
          if (view === "focus") { made.setFocus(await columns("image")); made.aim(); made.step(1); }
          const rows = [...made.byRadius];
          return rows.every((row, i) => !i || Math.sign(made.drawn.radius[row] - made.drawn.radius[rows[i - 1]])
            === Math.sign(map.radius[row] - map.radius[rows[i - 1]]));
        }""",
        view,
    )


def test_scale_keeps_neighbouring_floats_apart(page: Any) -> None:
    """The hardest case: equal quantiles, radii one unit in the last place apart, and radii beyond the largest."""
    assert page.evaluate(
        """() => {
          const at = scale.stretched(0.7, [0.2, 0.2, 0.2, 0.5, 0.5, 0.6, 0.7, 0.7]);
          const radii = [0, 1e-30, 0.1];
          for (const r of [0.2, 0.5, 0.6, 0.7]) for (let k = -3; k <= 3; k++) radii.push(r * (1 + k * 2 ** -23));
          radii.push(0.75, 0.9, 2);
          return radii.every((r, i) => !i || at(r) > at(radii[i - 1])) && at(Infinity) === 1;
        }"""
    )


def test_angle_scale_is_odd_and_takes_the_circle_onto_itself(page: Any) -> None:
    assert page.evaluate(
        """async () => {
          const at = scale.angleScale((await columns("image")).angle);
          const steps = Array.from({ length: 400 }, (_, i) => (Math.PI * i) / 399);
          return steps.every((t, i) => Math.abs(at(-t) + at(t)) < 1e-12 && (!i || at(t) > at(steps[i - 1])))
            && Math.abs(at(0)) < 1e-12 && Math.abs(at(Math.PI) - Math.PI) < 1e-9;
        }"""
    )


def test_translations_undo_each_other_and_take_what_is_held_along(page: Any) -> None:
    worst = page.evaluate(
        """() => {
          let worst = 0;
          for (let i = 0; i < 500; i++) {
            const random = (limit) => {
              const [r, t] = [limit * Math.sqrt(Math.random()), 7 * Math.random()];
              return [r * Math.cos(t), r * Math.sin(t)];
            };
            const [z, a] = [random(0.95), random(0.9)];
            const back = mobius.translate(mobius.translate(z, a), [-a[0], -a[1]]);
            const w = mobius.translate(z, a);
            const found = mobius.translationBetween(z, w);
            worst = Math.max(worst, Math.hypot(back[0] - z[0], back[1] - z[1]));
            worst = Math.max(worst, Math.hypot(found[0] - a[0], found[1] - a[1]));
            const { centre, radius } = mobius.circle(Math.hypot(...z), a);
            worst = Math.max(worst, Math.abs(Math.hypot(w[0] - centre[0], w[1] - centre[1]) - radius));
          }
          return worst;
        }"""
    )
    assert worst < 1e-10


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("radius", [0.15, 0.8, 2.2])
def test_regions_hold_the_points_that_the_rule_says(page: Any, rule: Entailment, radius: float) -> None:
    """Membership by formula, and by the outline as it is drawn, against the flags of the library in float64."""
    curv = 0.7
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(3000, 4, generator=generator, dtype=torch.float64), dim=1)
    radii = 2.5 * torch.rand(3000, 1, generator=generator, dtype=torch.float64)
    points = lorentz.exp_map0(directions * radii, curv)
    x = lorentz.exp_map0(radius * directions[:1], curv)
    below = pairwise_score(rule, x, points, Metric(), curv)[0]
    above = pairwise_score(rule, points, x, Metric(), curv)[:, 0]
    theta = 2 * torch.atan2((directions - directions[:1]).norm(dim=1), (directions + directions[:1]).norm(dim=1))
    rho = (math.sqrt(curv) * radii[:, 0]).tolist()
    form = {"form": rule.form, **{k: v for k, v in vars(rule).items() if k not in ("form", "strict")}}
    found = page.evaluate(
        """([rule, x, rho, theta]) => {
          const [radial, angular] = [scale.stretched(2, [0, 0.5, 1.5, 2]), scale.angleScale(theta)];
          const place = (p) => [radial(p.rho) * Math.cos(angular(p.theta)), radial(p.rho) * Math.sin(angular(p.theta))];
          const outlines = [plane.below(rule, x, 2), plane.above(rule, x, 20)]
            .map((region) => (region === "all" ? region : region.map(place)));
          return rho.map((r, i) => [
            plane.margin(rule, x, r, theta[i]), plane.margin(rule, r, x, theta[i]),
            ...[1, -1].flatMap((side) => outlines.map((outline) =>
              outline === "all" || nearby.contains(outline, ...place({ rho: r, theta: side * theta[i] })))),
          ]);
        }""",
        [form, math.sqrt(curv) * radius, rho, theta.tolist()],
    )
    for row, (deep, high) in enumerate(zip(below.tolist(), above.tolist(), strict=True)):
        if row == 0:
            continue  # the direction of x itself: on the edge of both regions where it is not inside
        assert found[row][0] == pytest.approx(-deep, abs=1e-7)
        assert found[row][1] == pytest.approx(-high, abs=1e-7)
        for drawn in (found[row][2:4], found[row][4:6]):
            if abs(deep) > 0.02:
                assert drawn[0] == (deep >= 0), (row, deep, rho[row], theta[row].item())
            if abs(high) > 0.02:
                assert drawn[1] == (high >= 0), (row, high, rho[row], theta[row].item())


def test_contours_are_circles_of_true_distance(page: Any) -> None:
    assert page.evaluate(
        """() => [0.1, 0.9, 2].every((rho) => [0.05, 0.9, 3].every((d) => plane.contour(rho, d)
          .every((p) => Math.abs(plane.distance(rho, p.rho, p.theta) - d) < 1e-9)))"""
    )


def test_hover_hits_the_nearest_point(page: Any) -> None:
    spots = page.evaluate("spots()")
    for row in (0, NAME, IMAGE):
        x, y = spots[row]
        near = min(range(len(spots)), key=lambda i: math.dist(spots[i], (x + 1, y)))
        page.mouse.move(x + 1, y)
        assert page.evaluate("calls.hover.at(-1)") == near
    page.mouse.move(2, 2)
    assert page.evaluate("calls.hover.at(-1)") is None


def test_tooltip_has_caption_and_true_radius(page: Any) -> None:
    page.evaluate(f"disk.setVisible(Uint8Array.from(map.key, (key) => Number(key === {IMAGE})))")
    x, y = page.evaluate("spots()")[IMAGE]
    page.mouse.move(x, y)
    page.evaluate("settle()")  # its caption is not on the map, and comes after the tooltip
    shown = page.inner_text(".disk-tooltip")
    assert MADE.names[IMAGE] in shown
    assert f"r = {MADE.radius[IMAGE].item():.3g} · image" in shown


def test_characters_that_turn_text_round_are_shown_as_symbols(page: Any) -> None:
    page.evaluate(r"disk.captions.texts.known.set(999999, { text: 'a\u202Eb\u0007' })")
    assert page.evaluate("disk.captions.text(999999)") == "a⟨RLO⟩b␇"


def test_click_selects_and_double_click_opens_the_same_point(page: Any) -> None:
    x, y = page.evaluate("spots()")[NAME]
    page.mouse.dblclick(x, y)
    assert page.evaluate("[calls.select, calls.open]") == [[NAME], [NAME]]


def test_drag_takes_the_point_along_and_keeps_the_numbers_of_rings(page: Any) -> None:
    x, y = page.evaluate("spots()")[IMAGE]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(430, 370, steps=5)
    page.mouse.up()
    page.evaluate("settle()")
    assert page.evaluate("spots()")[IMAGE] == pytest.approx([430, 370], abs=0.5)
    before = page.evaluate("disk.visibleByGenerality(1000).length")
    page.keyboard.press("0")
    page.click('[aria-label^="Back"]')
    page.evaluate("settle()")
    assert page.evaluate("spots()")[IMAGE] == pytest.approx([x, y], abs=1e-3)
    assert before <= page.evaluate("disk.visibleByGenerality(1000).length") == len(MADE.radius)


def test_wheel_and_pinch_scale_about_the_centre(page: Any) -> None:
    spread = "Math.hypot(spots()[1][0] - 400, spots()[1][1] - 400)"
    before = page.evaluate(spread)
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -100)
    page.evaluate("settle()")
    wheeled = page.evaluate(spread)
    assert wheeled > 1.1 * before
    page.evaluate(
        """async () => {
          const send = (type, pointerId, clientX) => disk.picture.overlay.dispatchEvent(
            new PointerEvent(type, { pointerId, clientX, clientY: 400, pointerType: "touch", bubbles: true }));
          disk.picture.overlay.setPointerCapture = () => {};
          send("pointerdown", 11, 380); send("pointerdown", 12, 420);
          send("pointermove", 11, 360); send("pointermove", 12, 440);
          send("pointerup", 11, 360); send("pointerup", 12, 440);
          delete disk.picture.overlay.setPointerCapture;
          await settle();
        }"""
    )
    assert page.evaluate(spread) == pytest.approx(2 * wheeled, rel=0.1)
    assert page.evaluate("calls.select") == []


def test_lasso_returns_the_visible_points_inside(page: Any) -> None:
    page.evaluate("disk.setVisible(Uint8Array.from(map.key, (_, i) => i % 2))")
    page.evaluate("settle()")
    corners = [(250, 250), (560, 230), (600, 520), (420, 420), (240, 560)]
    page.click('[aria-label^="Lasso"]')
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=2)
    page.mouse.up()
    inside = [i for i, spot in enumerate(page.evaluate("spots()")) if i % 2 and _winding(corners, spot)]
    assert len(inside) > 20
    assert page.evaluate("calls.lasso") == [inside]
    assert page.get_attribute('[aria-label^="Lasso"]', "aria-pressed") == "false"
    page.keyboard.down("Shift")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(500, 300)
    page.mouse.move(400, 500)
    page.mouse.up()
    page.keyboard.up("Shift")
    found = page.evaluate("calls.lasso[1]")
    triangle = [(300, 300), (500, 300), (400, 500)]
    assert found == [i for i, spot in enumerate(page.evaluate("spots()")) if i % 2 and _winding(triangle, spot)]


@pytest.mark.parametrize("view", [None, "image", "name", "two"])
def test_captions_do_not_overlap_and_begin_with_the_most_general(page: Any, view: str | None) -> None:
    page.evaluate("turn", view)
    page.evaluate("settle()")
    labels = page.evaluate("disk.picture.captioned.labels.map(({ text }) => text)")
    assert labels
    assert page.evaluate("apart()")
    if view == "two":
        assert MADE.names[NAME] in labels  # the target
        assert page.evaluate("disk.picture.captioned.pictures[0].row") == IMAGE
    if view is None:
        assert {f"family {i}" for i in range(7)} <= set(labels[:7])
        assert page.evaluate("disk.picture.captioned.pictures.length") > 10
        page.evaluate("disk.setOptions({ thumbnails: false })")
        page.evaluate("settle()")
        assert page.evaluate("disk.picture.captioned.pictures.length") == 0


def test_a_set_dims_the_other_points_and_takes_their_captions(page: Any) -> None:
    members = [row for row in range(len(MADE.radius)) if row % 3 == 0]
    page.evaluate("(keys) => disk.setMarks({ set: new Set(keys) })", members)
    page.evaluate("settle()")
    page.evaluate("settle()")
    captioned = page.evaluate("""(() => {
      const { labels, pictures } = disk.picture.captioned;
      return [...labels, ...pictures].map(({ row }) => row);
    })()""")
    assert len(captioned) > 20
    assert all(row % 3 == 0 for row in captioned)


def test_another_state_of_a_collection_keeps_the_focus(page: Any) -> None:
    page.evaluate("turn", "name")
    before = page.evaluate("spots()")
    page.evaluate("(disk.setMap({ ...map }), settle())")
    assert page.evaluate("spots()") == before
    page.evaluate("(disk.setMap({ ...map, header: { ...map.header, collection: 'other' } }), settle())")
    assert page.evaluate("spots()") != before


def test_more_labels_as_one_zooms(page: Any) -> None:
    page.evaluate("disk.setOptions({ thumbnails: false })")
    page.evaluate("settle()")
    names = "new Set(disk.picture.captioned.labels.map(({ text }) => text))"
    before = set(page.evaluate(f"[...{names}]"))
    for _ in range(3):
        page.mouse.move(400, 400)
        page.mouse.wheel(0, -400)
    page.evaluate("settle()")
    page.evaluate("settle()")
    assert set(page.evaluate(f"[...{names}]")) - before
    assert page.evaluate("apart()")


@pytest.mark.parametrize(("name", "of"), [("image", IMAGE), ("name", NAME)])
def test_focus_has_every_point_at_its_true_radius_and_on_its_side(page: Any, name: str, of: int) -> None:
    page.evaluate("turn", name)
    angles = angles_to(MADE, of)
    drawn, radii, axis = page.evaluate(
        """async (name) => {
          const made = new layout.Layout(map, false);
          const home = [...made.drawn.radius];
          made.setFocus(await columns(name)); made.aim();
          let stays = true;
          for (const share of [0.3, 0.7, 1]) { // they turn along their rings
            made.step(share);
            stays &&= [...made.drawn.radius].every((r, i) => Math.abs(r - home[i]) < 1e-6);
          }
          return [[...made.drawn.angle], stays, made.axis];
        }""",
        name,
    )
    assert radii
    turned = torch.remainder(torch.tensor(drawn, dtype=torch.float64) - axis + math.pi, 2 * math.pi) - math.pi
    assert torch.equal(turned[angles.abs() > 1e-3] > 0, angles[angles.abs() > 1e-3] > 0)
    order = angles.abs().argsort()
    assert (turned.abs()[order].diff() > -1e-5).all()


def test_arrows_walk_enter_opens_and_escape_leaves(page: Any) -> None:
    page.focus("#host")
    page.keyboard.press("ArrowRight")
    first = page.evaluate("calls.hover.at(-1)")
    assert first == page.evaluate("disk.visibleByGenerality(1)[0]")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("calls.hover.at(-1)")
    spots = page.evaluate("spots()")
    assert spots[second][0] > spots[first][0]
    page.keyboard.press("Enter")
    page.keyboard.press(" ")
    assert page.evaluate("[calls.open, calls.select]") == [[second], [second]]
    assert "r = " in page.inner_text("[aria-live]")
    page.keyboard.press("Escape")
    assert page.evaluate("calls.hover.at(-1)") is None


def test_list_twin_is_by_generality_and_without_filtered_points(page: Any) -> None:
    page.evaluate("disk.setVisible(Uint8Array.from(map.key, (_, i) => i % 2))")
    keys = page.evaluate("disk.visibleByGenerality(50)")
    assert len(keys) == 50
    assert all(key % 2 for key in keys)
    assert MADE.radius[keys].diff().min() >= -1e-7


def test_png_has_two_pixels_for_each_of_the_page(page: Any) -> None:
    data = bytes(page.evaluate("disk.toPNG().then((b) => b.arrayBuffer()).then((b) => [...new Uint8Array(b)])"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1600, 1600)


def test_disk_is_named_and_leaves_nothing_behind(page: Any) -> None:
    assert page.get_attribute("#host", "role") == "application"
    assert page.get_attribute("#host", "aria-label").startswith("Disk")
    left = page.evaluate(
        """async () => {
          const { Disk } = await import("/explorer/js/disk/disk.js");
          const host = document.createElement("div");
          document.body.append(host);
          const other = new Disk(host, {});
          other.setMap(map); other.destroy();
          const left = [host.childElementCount, host.className];
          host.remove();
          return left;
        }"""
    )
    assert left == [0, ""]


def _winding(corners: list[tuple[int, int]], spot: list[float]) -> bool:
    """Whether a spot is inside a polygon, by the sum of the angles under which its edges are seen."""
    turns = [math.atan2(y - spot[1], x - spot[0]) for x, y in corners]
    steps = [math.remainder(b - a, 2 * math.pi) for a, b in zip(turns, [*turns[1:], turns[0]], strict=True)]
    return abs(sum(steps)) > math.pi
