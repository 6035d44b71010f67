"""Heavy and odd input: each works, or is refused in words that say why, and the next search works."""

import io
import re
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.explorer import FIELDS, LONG, Running, make_odd_app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a server with the colours in `default`, and with odd collections."""
    running = Running(make_odd_app(tmp_path_factory.mktemp("odd")))
    yield running.url
    running.close()


@pytest.fixture
def page(page):
    """A window in which a search still works at the end of the test."""
    page.goto("/")
    expect(page.locator(".legend .kind").first).to_be_visible()
    yield page
    page.locator(".collection-pick select").select_option("default")
    expect(page.get_by_role("tab", name="Map")).to_have_attribute("aria-selected", "true")
    search(page, "red")
    expect(page.locator(".cards .face").first).to_contain_text("red")


def search(page, text):
    page.locator("#query").fill(text)
    page.locator("#query").press("Enter")


def refused(page):
    return page.locator("[role=alert]").filter(has_text=re.compile("."))


def drop(page, content, name, kind="", count=1):
    """Drop files on the page that all have the same name and content."""
    transfer = page.evaluate_handle(
        """([bytes, name, type, count]) => {
            const transfer = new DataTransfer();
            const content = new Uint8Array(bytes);
            for (let i = 0; i < count; i++) transfer.items.add(new File([content], name, { type }));
            return transfer;
        }""",
        [list(content), name, kind, count],
    )
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": transfer})


def image(size, format="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (30, 60, 220)).save(buffer, format)
    return buffer.getvalue()


def test_of_many_dropped_images_the_first_is_taken_and_the_page_says_so(page):
    drop(page, image((32, 24)), "sea.png", "image/png", count=1000)
    expect(page.locator(".toast")).to_contain_text("the first of 1,000")
    expect(page.locator(".chips .chip")).to_have_count(1)
    expect(page.locator(".crumbs")).to_contain_text("blue")


def test_a_photo_of_40_megapixels_is_embedded(page):
    photo = {"name": "sea.jpg", "mimeType": "image/jpeg", "buffer": image((8000, 5000), "JPEG")}
    page.locator("input[type=file]").first.set_input_files(photo)
    expect(page.locator(".crumbs")).to_contain_text("blue")


def test_a_file_of_200_megabytes_is_too_large(page, tmp_path):
    page.watch.expect_status(413)
    file = tmp_path / "film.png"
    with file.open("wb") as film:
        film.truncate(200_000_000)
    page.locator("input[type=file]").first.set_input_files(file)
    expect(refused(page)).to_contain_text("Too large")
    expect(refused(page)).to_contain_text("bytes")


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("notes.md", "text/markdown", b"# red"),
        ("drawing.svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("cut.png", "image/png", image((64, 64))[:60]),
        ("empty.png", "image/png", b""),
    ],
)
def test_a_file_that_is_no_image_is_refused(page, name, kind, content):
    page.watch.expect_status(422)
    drop(page, content, name, kind)
    expect(refused(page)).to_contain_text("The server cannot take this")
    expect(refused(page)).to_contain_text("image")


def test_a_dropped_text_file_has_the_labels(page):
    drop(page, b"red\nblue\n", "LABELS.TXT")
    expect(page.locator("#classes")).to_have_value("red\nblue\n")


def test_a_file_of_labels_may_not_stop_the_page(page, tmp_path):
    file = tmp_path / "labels.txt"
    with file.open("wb") as labels:
        labels.truncate(200_000_000)
    page.get_by_role("tab", name="Classify").click()
    page.get_by_label("Open a file").set_input_files(file)
    expect(page.locator("#classes-error")).to_contain_text("labels.txt” is too large for labels or a taxonomy")
    expect(page.locator("#classes")).to_have_value("")


def classify(page, classes):
    page.goto("/#/default/classify?of=id:name/red")
    page.locator("#classes").fill(classes)
    page.get_by_role("button", name="Classify", exact=True).click()


def test_thousands_of_labels(page):
    classify(page, "red, blue")
    drop(page, "\n".join(["red", *(f"colour {i}" for i in range(3999))]).encode(), "labels.txt")
    expect(page.locator("#classes")).to_have_value(re.compile("colour 3998$"))
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator(".classify-view")).to_contain_text("and 3960 more")
    expect(page.locator(".bars li").first).to_contain_text("red")
    page.watch.expect_status(422)
    drop(page, "\n".join(f"colour {i}" for i in range(5000)).encode(), "labels.txt")
    expect(page.locator("#classes")).to_have_value(re.compile("colour 4999$"))
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(refused(page)).to_contain_text("labels times templates")
    expect(refused(page)).to_contain_text("4,096")


def test_a_taxonomy_that_goes_in_circles_is_refused(page):
    page.watch.expect_status(422)
    classify(page, '[["red", "a colour"], ["a colour", "a warm colour"], ["a warm colour", "red"]]')
    expect(refused(page)).to_contain_text("the taxonomy has a cycle")
    page.locator("#classes").fill('[["red", "a colour"], ["blue", "a colour"]]')
    page.get_by_role("button", name="Classify", exact=True).click()
    expect(page.locator(".classify-view .sentence")).to_contain_text("a colour › red")


def test_a_long_text_is_a_query_and_a_longer_one_is_refused(page):
    search(page, "red " * 2000)
    expect(page.locator(".cards .face").first).to_be_visible()
    expect(page.locator(".right h2")).to_contain_text("red red")
    page.watch.expect_status(422)
    search(page, "x" * 10_000)
    expect(refused(page).first).to_contain_text("characters of a text")
    expect(refused(page).first).to_contain_text("8,192")


@pytest.mark.parametrize("name", ["single", "together", "rooted", "long", "wide"])
def test_collections_at_the_edge(page, name):
    page.goto(f"/#/{name}/map")
    expect(page.locator(".legend .kind").first).to_be_visible()
    page.get_by_text("Points in sight as a list").click()
    expect(page.locator(".twin .row-face").first).to_be_visible()
    page.locator(".twin .row-face").first.dblclick()
    expect(page.locator(".legend")).to_contain_text("ancestor")
    expect(page.locator(".right")).to_contain_text("radius")
    search(page, "red")
    page.get_by_role("tab", name="Grid").click()
    expect(page.locator(".cards .face").first).to_be_visible()
    for view in ("Path", "Collections"):
        page.get_by_role("tab", name=view).click()
    expect(page.locator("main")).to_contain_text(name)


def test_an_empty_collection(page):
    page.goto("/#/empty/map")
    expect(page.locator("main")).to_contain_text("This collection has no points yet")
    search(page, "red")
    expect(page.locator(".notice")).to_be_visible()


def test_a_collection_of_another_model_can_be_looked_at_and_not_searched(page):
    page.watch.expect_status(409)
    page.goto("/#/foreign/map")
    expect(page.locator(".legend .kind").first).to_be_visible()
    search(page, "red")
    expect(refused(page).first).to_contain_text("A collection of another model")
    expect(refused(page).first).to_contain_text("another-model")


def test_many_fields_can_be_filtered_by(page):
    page.goto("/#/wide/grid")
    expect(page.locator(".facet")).to_have_count(FIELDS + 1)
    facet = page.locator(".facet").filter(has_text="field 198")
    facet.locator("summary").click()
    facet.get_by_role("checkbox").first.check()
    expect(page.locator(".cards .face")).to_have_count(3)
    page.locator(".cards .face").first.click()
    expect(page.locator(".details dt")).to_have_count(FIELDS + 2)


def test_an_id_of_512_characters_is_a_query_that_can_be_shared(page):
    point = f"{LONG[:-1]}3"
    assert len(point) == 512
    page.goto(f"/#/long/grid?of=id:{quote(point)}&sel={quote(point)}")
    expect(page.locator(".details")).to_contain_text(point)
    expect(page.locator(".cards .face")).to_have_count(9)
