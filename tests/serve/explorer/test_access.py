"""The explorer for everybody: keyboards, screen readers, small and dark screens; and texts of others."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.support.explorer import HOSTILE

pytestmark = pytest.mark.slow

PLACES = {
    "map": "/default/map",
    "focus": "/default/focus?of=id:red/0.png&sel=name/red",
    "grid": "/default/grid?of=text:red&sel=red/0.png",
    "listing": "/default/grid",
    "no match": "/default/grid?of=id:name/red&verb=above&m=image",
    "path": "/default/path?of=id:red/0.png",
    "compare": "/default/compare?of=id:red/0.png&with=id:blue/0.png",
    "classify": "/default/classify?of=id:red/0.png",
    "collections": "/default/collections",
    "empty": "/empty/map",
    "missing": "/nowhere/map",
}
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def assert_accessible(page):
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    found = Axe().run(page, options=WCAG).response["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, name, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"/#{PLACES[name]}")
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    assert_accessible(page)


@pytest.mark.parametrize("opened", ["Help", "Export"])
def test_axe_finds_nothing_in_dialogs(page, opened):
    page.goto("/#/default/grid?of=text:red")
    page.get_by_role("button", name=opened).click()
    expect(page.locator("dialog[open]")).to_be_visible()
    assert_accessible(page)


@pytest.mark.parametrize("status", [401, 403, 429, 504])
def test_axe_finds_nothing_in_errors(page, status):
    page.watch.expect_status(status)
    body = '{"error": {"type": "x", "message": "why", "request_id": "r"}}'
    answer = {"status": status, "content_type": "application/json", "body": body, "headers": {"retry-after": "50"}}
    page.route(re.compile("/retrieve$"), lambda route: route.fulfill(**answer))
    page.goto("/#/default/grid?of=id:name/red")
    expect(page.locator(".banner, [role=alert]:not(:empty), dialog[open]").first).to_be_visible()
    found = Axe().run(page, options=WCAG).response["violations"]
    assert [each["id"] for each in found] == []


def test_everything_can_be_done_with_keys(page):
    page.goto("/")
    expect(page.locator(".legend")).to_contain_text("Centre")
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    expect(page.locator(".cards .face").first).to_be_visible()
    page.keyboard.press("Escape")
    page.locator(".cards .face").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator(".right h2")).to_contain_text("red")
    page.keyboard.press("u")
    expect(page.locator(".right h2")).to_contain_text("a warm colour")
    page.keyboard.press("d")
    expect(page.locator(".right h2")).not_to_contain_text("a warm colour")
    page.keyboard.press("c")
    expect(page.locator(".compare-view")).to_be_visible()
    page.keyboard.press("1")
    expect(page).to_have_url(re.compile("/focus"))
    page.keyboard.press("Escape")
    expect(page.locator(".right")).to_contain_text("the query")
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help-dialog")).to_be_hidden()
    page.goto("/#/default/map")
    disk = page.get_by_role("application")
    disk.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page).to_have_url(re.compile("/focus[?]of=id:"))
    page.get_by_role("tab", name="Map").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Grid")).to_be_focused()


def test_counts_are_announced(page):
    page.goto("/#/default/grid?of=id:name/red&verb=below")
    expect(page.locator("[role=status][aria-live=polite]").last).to_have_text("8 points found")


@pytest.mark.parametrize("options", [{"viewport": {"width": 375, "height": 720}, "has_touch": True}])
@pytest.mark.parametrize("name", PLACES)
def test_a_telephone_shows_it_without_scrolling_sideways(page, name):
    page.goto(f"/#{PLACES[name]}")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, input:not(.hidden), select, summary")].filter((each) => {
            const box = (each.closest("label") ?? each).getBoundingClientRect();
            return box.width && !each.closest(".disk") && (box.height < 23.5 || box.width < 15.5);
        }).map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert small == []


@pytest.mark.parametrize("options", [{"viewport": {"width": 375, "height": 720}, "has_touch": True}])
def test_on_a_telephone_the_inspector_is_a_sheet(page):
    page.goto("/#/default/grid?of=text:red")
    expect(page.locator(".right")).to_be_hidden()
    page.locator(".cards .face").first.click()
    expect(page.locator(".right")).to_be_visible()
    page.get_by_role("button", name="Close the inspector").click()
    expect(page.locator(".right")).to_be_hidden()


def test_the_theme_is_that_of_the_system_until_it_is_chosen(page):
    page.emulate_media(color_scheme="light")
    page.goto("/")
    page.get_by_role("button", name="Dark colours").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Light colours").click()
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


# Texts of others


@pytest.mark.parametrize("view", ["map", "grid", "collections"])
def test_hostile_texts_are_shown_and_do_nothing(page, view):
    page.goto(f"/#/hostile/{view}")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelectorAll('iframe, object, img[src=x], svg[onload]').length") == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_id_and_its_fields_do_nothing_in_any_view(page, text):
    page.goto("/#/hostile/grid")
    found = page.evaluate(
        """async (id) => {
            const { start, toHash } = await import("/explorer/js/state.js");
            const { show } = await import("/explorer/js/text.js");
            const part = { kind: "id", id, weight: 1 };
            const places = ["grid", "path", "classify", "compare", "focus"].map((view) => toHash(
                { ...start("hostile"), view, parts: [part], selected: id, other: { kind: "text", text: id } }));
            return { places, shown: show(id) };
        }""",
        text,
    )
    assert not re.search("[\\u0000-\\u001f\\u202a-\\u202e\\u2066-\\u2069\\u200b]", found["shown"])
    for place in found["places"]:
        page.goto(f"/{place}")
        expect(page.locator(".details")).to_contain_text(found["shown"])
    page.locator(".facet summary").first.click()
    assert page.evaluate("document.querySelectorAll('iframe, object, img[src=x], svg[onload]').length") == 0


def test_a_hostile_name_of_a_collection_does_nothing(page):
    text = HOSTILE[0]
    rule = {"form": "cone", "eta": 1, "min_radius": 0.1}
    info = {"name": text, "count": 1, "model": text, "revision": text, "curv": 2, "dim": 12, "entailment": rule}
    body = {"collections": [{**info, "counts": {"text": 1}, "index": None}]}
    page.route(re.compile("/collections$"), lambda route: route.fulfill(json=body))
    page.watch.expect_status(404, 422)
    page.goto("/#/default/collections")
    expect(page.locator(".collection")).to_contain_text(text)
    page.goto("/#/default/map")
    expect(page.locator("#panel")).to_contain_text(text)


def test_csv_holds_no_formulas(page):
    page.goto("/")
    csv = page.evaluate(
        """async () => (await import("/explorer/js/exports.js")).csvOf([{ id: "=1+1", n: -2, text: '@x "y"' }])"""
    )
    assert csv.split("\r\n")[1] == """'=1+1,-2,"'@x ""y""\""""
