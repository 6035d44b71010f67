"""The explorer in a browser: its views, gestures, links and exports."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.processes import ROOT

RED = "name/red"


def open_at(page, place=""):
    """Open the page at a place and wait until nothing is loading."""
    page.goto(f"/#{place}" if place else "/")
    page.reload()
    expect(page.locator(".top")).to_be_visible()


def image(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(buffer, "PNG")
    return buffer.getvalue()


def drop(page, content, name="image.png", kind="image/png"):
    """Drop a file on the page, as a person does with a mouse."""
    transfer = page.evaluate_handle(
        """([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        [list(content), name, kind],
    )
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": transfer})


def test_the_page_opens(page):
    open_at(page)
    expect(page.get_by_role("tab", name="Map")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".legend")).to_contain_text("Centre: general")
    expect(page.get_by_role("heading", name="hypclip explorer")).to_be_visible()


@pytest.mark.slow
def test_one_click_from_the_first_look_to_what_an_image_is(page):
    open_at(page)
    page.locator(".starters").get_by_role("button", name="above an image").click()
    expect(page.locator(".cards .face").first).to_be_visible()
    expect(page.locator(".cards")).to_contain_text("a cold colour")


@pytest.mark.slow
def test_a_click_in_the_map_turns_it_to_the_point(page):
    open_at(page)
    expect(page.locator(".disk canvas").first).to_be_visible()
    page.get_by_text("Points in sight as a list").click()
    row = page.locator(".twin .row-face").last
    row.dblclick()
    expect(page).to_have_url(re.compile("/focus[?]of="))
    expect(page.locator(".crumbs")).to_contain_text("root")
    expect(page.locator(".legend")).to_contain_text("ancestor")
    expect(page.locator(".right")).to_contain_text("It is")


@pytest.mark.slow
def test_search_by_text(page):
    open_at(page)
    page.wait_for_load_state("networkidle")
    page.watch.requests.clear()
    page.locator("#query").fill("red")
    page.keyboard.press("Enter")
    first = page.locator(".cards .face").first
    expect(first).to_contain_text("red")
    expect(page.locator(".cards img").first).to_be_visible()
    assert page.locator("#query").input_value() == ""
    expect(page.locator(".right")).to_contain_text("It is 1 point")
    page.wait_for_load_state("networkidle")
    asked = [path for method, path in page.watch.requests if method == "POST"]
    assert asked.count("/embed") == asked.count("/retrieve") == 1
    assert len(asked) <= 6
    first.click()
    inspector = page.locator(".right")
    expect(inspector).to_contain_text("It is 1 point")
    expect(inspector).to_contain_text("a warm colour")
    expect(inspector).to_contain_text("Both are at the same place.")


@pytest.mark.slow
def test_search_by_a_dropped_image(page):
    open_at(page)
    expect(page.locator(".legend")).to_contain_text("Centre")
    drop(page, image((30, 60, 220)), "sea.png")
    expect(page).to_have_url(re.compile("/focus[?]of=image:"))
    expect(page.locator(".chips")).to_contain_text("sea.png")
    expect(page.locator(".crumbs")).to_contain_text("blue")
    page.get_by_role("tab", name="Grid").click()
    expect(page.locator(".cards .face").first).to_contain_text("blue")


@pytest.mark.slow
def test_a_link_to_an_image_has_its_point_and_not_the_image(page):
    open_at(page)
    page.locator("input[type=file]").first.set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": image((220, 30, 30))}
    )
    expect(page).to_have_url(re.compile("of=image:[A-Za-z0-9_-]{64}(&|$)"))  # 12 numbers of 4 bytes
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator(".crumbs")).to_contain_text("red")


@pytest.mark.slow
def test_several_parts_are_averaged_with_their_weights(page):
    open_at(page)
    page.locator("#query").fill("red")
    page.keyboard.press("Enter")
    page.locator("#query").fill("yellow")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".chips .chip")).to_have_count(2)
    expect(page.locator(".cards .face").first).to_contain_text("orange")
    weight = page.get_by_label("Weight of yellow")
    weight.fill("0")
    weight.blur()
    expect(page.locator(".cards .face").first).to_contain_text("red")
    assert "w=1%2C0" in page.url
    page.get_by_role("button", name="Remove yellow").click()
    expect(page.locator(".chips .chip")).to_have_count(1)


@pytest.mark.slow
def test_verbs_lead_up_and_down(page):
    open_at(page, f"/default/grid?of=id:{RED}&sel={RED}")
    verbs = page.get_by_role("group", name="Ask about this point")
    verbs.get_by_role("button", name="Above").click()
    expect(page.locator(".toolbar")).to_contain_text("1 point")
    expect(page.locator(".cards")).to_contain_text("a warm colour")
    verbs.get_by_role("button", name="Below").click()
    expect(page.locator(".toolbar")).to_contain_text("8 points that are")
    page.get_by_label("Sort").select_option("distance")
    expect(page).to_have_url(re.compile("sort=distance"))


@pytest.mark.slow
def test_the_way_to_the_root_and_what_lies_beside_it(page):
    open_at(page, "/default/path?of=id:red/0.png")
    way = page.locator(".way")
    expect(way).to_contain_text("a warm colour")
    expect(way.locator(".stop").last).to_contain_text("root")
    way.locator(".stop").nth(1).get_by_role("button", name="what else is below").click()
    expect(way.locator(".cards .face")).to_have_count(8)
    page.get_by_label("only what entails the place").uncheck()
    expect(page).to_have_url(re.compile("entailment=0"))


@pytest.mark.slow
def test_two_points_are_compared(page):
    open_at(page, "/default/grid?of=id:red/0.png&sel=yellow/0.png")
    page.get_by_role("group", name="Ask about this point").get_by_role("button", name="Compare").click()
    view = page.locator(".compare-view")
    expect(view).to_contain_text("Neither entails the other.")
    expect(view.locator(".rows")).to_contain_text("a warm colour")
    expect(view.locator(".cards .face").first).to_be_visible()
    page.get_by_role("button", name="The way between").click()
    expect(page.locator(".way .stop").first).to_be_visible()


@pytest.mark.slow
def test_a_taxonomy_goes_down_as_far_as_the_threshold_says(page):
    open_at(page, "/default/classify?of=id:red/0.png")
    page.locator("#classes").fill("a warm colour\n  red\n  orange\n  yellow\na cold colour\n  blue\n  teal")
    page.get_by_role("button", name="Classify", exact=True).click()
    view = page.locator(".classify-view")
    expect(view.locator(".sentence")).to_contain_text("a warm colour")
    before = len(page.watch.requests)
    page.locator("#least").fill("1")
    expect(view.locator(".sentence")).to_contain_text("No root is that probable.")
    page.locator("#least").fill("0")
    expect(view.locator(".sentence")).to_contain_text("red")
    assert len(page.watch.requests) == before
    page.get_by_role("button", name="Taxonomy of the collection").click()
    expect(page.locator("#classes")).to_have_value(re.compile(r'\["violet","a cold colour"\]'))
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(view.locator(".sentence")).to_contain_text("a warm colour › red")
    page.locator("#classes").fill("red, blue")
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(view.locator(".bars li").first).to_contain_text("red")
    page.locator("#classes").fill("[1]")
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator("#classes-error")).to_contain_text("JSON")


@pytest.mark.slow
def test_collections_are_listed_and_opened(page):
    open_at(page, "/default/collections")
    cards = page.locator(".collection")
    expect(cards).to_have_count(3)
    expect(cards.filter(has_text="default")).to_contain_text("56 points")
    expect(cards.filter(has_text="default")).to_contain_text("this server's")
    cards.filter(has_text="empty").get_by_role("button").click()
    expect(page.locator("#panel")).to_contain_text("no points yet")


@pytest.mark.slow
def test_filters_narrow_what_is_found(page):
    open_at(page, "/default/grid")
    expect(page.locator(".toolbar")).to_contain_text("56 points")
    page.get_by_role("group", name="Kind").get_by_role("button", name="text 8").click()
    expect(page.locator(".toolbar")).to_contain_text("8 points")
    page.get_by_role("button", name="Clear filters").click()
    facet = page.locator(".facet").filter(has=page.locator("summary", has_text="class"))
    facet.locator("summary").click()
    facet.get_by_label("teal").check()
    expect(page.locator(".toolbar")).to_contain_text("8 points")
    assert "f.class=teal" in page.url
    page.get_by_label("Smallest radius").fill("1.19")
    page.get_by_role("button", name="any radius").click()
    expect(page.locator(".toolbar")).to_contain_text("8 points")


@pytest.mark.slow
def test_strictness_counts_as_the_server_does(page):
    open_at(page, "/default/focus?of=id:red/0.png")
    slider = page.get_by_label("How many ancestors to let in")
    expect(slider).to_be_visible()
    for step in ("1", "4"):
        slider.fill(step)
        expect(page.locator(".legend")).to_contain_text(f"{step} ancestor")
    assert "eta=" in page.url


PLACES = (
    "/default/map?m=image&r=0.2-1.1",
    "/default/focus?of=id:red/0.png&sel=name/red&eta=1.5",
    "/default/grid?of=text:a+%2B+b+%26+c%3Dd&verb=above&sort=radius",
    "/default/grid?of=id:name/red&of=text:blue&w=1%2C0.5&f.class=red&f.class=blue&n.year=2001..2004",
    "/default/path?of=id:red/0.png&with=id:blue/0.png&steps=all&entailment=0",
    "/default/compare?of=id:red/0.png&with=text:blue",
)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_link_says_everything_about_a_view(page, place):
    open_at(page, place)
    again = page.evaluate(
        "async () => { const s = await import('/explorer/js/state.js'); return s.toHash(s.fromHash(location.hash)); }"
    )
    once_more = page.evaluate(
        "async (hash) => { const s = await import('/explorer/js/state.js'); return s.toHash(s.fromHash(hash)); }", again
    )
    assert again == once_more
    assert again.replace("%2F", "/") == f"#{place}"
    page.wait_for_load_state("networkidle")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    shown = page.locator("#panel").inner_text()
    page.reload()
    expect(page.locator("#panel")).to_have_text(shown, use_inner_text=True)


@pytest.mark.slow
def test_back_leads_to_what_was_before(page):
    open_at(page, f"/default/grid?of=id:{RED}")
    page.get_by_role("tab", name="Path").click()
    expect(page.locator(".way")).to_be_visible()
    page.go_back()
    expect(page.locator(".cards .face").first).to_be_visible()


@pytest.mark.slow
def test_rows_are_saved_as_json_and_csv_and_the_disk_as_an_image(page, tmp_path):
    open_at(page, f"/default/grid?of=id:{RED}")
    expect(page.locator(".cards .face").first).to_be_visible()
    files = {}
    page.get_by_role("button", name="Export").click()
    for kind in ("JSON", "CSV"):
        with page.expect_download() as download:
            page.locator("#export-dialog").get_by_role("button", name=kind).click()
        files[kind] = download.value.path().read_text()
    rows = json.loads(files["JSON"])["rows"]
    assert rows[0]["id"] == RED
    assert files["CSV"].splitlines()[1].startswith(f"{RED},")
    open_at(page, "/default/map")
    expect(page.locator(".legend")).to_contain_text("Centre")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.locator("#export-dialog").get_by_role("button", name="PNG").click()
    with Image.open(download.value.path()) as saved:
        assert saved.format == "PNG"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "found"),
    [
        (f"/default/grid?of=id:{RED}&verb=below", "red/"),
        ("/default/grid?f.class=red&r=0.5-", "red/0.png"),
        (f"/default/grid?of=id:{RED}&of=text:yellow&w=1%2C2", "orange/"),
        ("/default/focus?of=id:red/0.png&eta=1.5", "a warm colour"),
        ('/default/path?of=text:it\'s+"x"&with=root:', r"\[ROOT\]"),
        ("/default/compare?of=id:red/0.png&with=text:orange", "a warm colour"),
        ("/default/map", ""),
        ("/default/collections", "hostile"),
    ],
)
def test_what_is_copied_runs(page, place, found, tmp_path):
    open_at(page, place)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.get_by_role("button", name="Export").click()
    sections = page.locator("#export-dialog section")
    for i, program in enumerate((["bash", "-c"], [sys.executable, "-c"])):
        sections.nth(i).get_by_role("button", name="copy").click()
        code = page.evaluate("navigator.clipboard.readText()")
        paths = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*program, code], cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert re.search(found, done.stdout), done.stdout


@pytest.mark.slow
def test_the_page_computes_margins_as_the_server_does(page, url):
    open_at(page)
    worst = page.evaluate(
        """async () => {
            const { relation } = await import("/explorer/js/geometry.js");
            const ask = async (path, body) => (await fetch(path, { method: "POST", body: JSON.stringify(body),
                headers: { "content-type": "application/json" } })).json();
            const model = await (await fetch("/model")).json();
            const of = { id: "red/0.png" };
            const { points: [point] } = await ask("/collections/default/points/lookup", { ids: ["red/0.png"] });
            const { hits } = await ask("/hierarchy/ancestors", { of, k: 50, aperture_scale: 3 });
            return Math.max(...hits.map((hit) => Math.abs(hit.margin
                - relation(hit.radius, point.radius, hit.distance, model.curv, model.entailment, 3).margin)));
        }"""
    )
    assert worst < 1e-4
