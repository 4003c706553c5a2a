"""The page for those who use a keyboard, a screen reader, a telephone, a dark room; and how little there is to load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browsing import ALPHABET, Served, Tab
from playwright.sync_api import Page, expect

AXE = Path(__file__).with_name("node") / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("tokens", "layers", "attention", "experts", "norms", "times", "memory")
TEXT = "return a + b"
Open = Callable[..., Tab]


def tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Press Tab until the focus is there."""
    for _ in range(40):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by {key}")


@pytest.fixture(scope="module")
def axe() -> str:
    if shutil.which("npm") is None:
        pytest.skip("does not apply: there is no npm here")
    if not AXE.exists():
        pytest.skip("axe-core is not here: `make browser` fetches it")
    return AXE.read_text()


def check(axe: str, page: Page, where: str, *rules: str) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA and its own best practices, or against these rules alone."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe)
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found: list[dict[str, Any]] = page.evaluate(
        "options => axe.run(document, options).then(r => r.violations)", options
    )
    return [f"{where}: {each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def test_axe_finds_nothing(tab: Open, real: Served, axe: str) -> None:
    one = tab(real, color_scheme="light", reduced_motion="reduce")
    page = one.open()
    found = check(axe, page, "empty")
    one.choose("bigram")
    one.settings(temperature=0)
    page.locator(".settings summary").click()
    one.say("a")
    assert one.reply() == ALPHABET
    one.choose("tiny-moe")
    one.look(TEXT)
    for view in VIEWS:
        one.view(view)
        for fold in page.locator("details.as-table:not([open]) summary").all():
            fold.click()
        found += check(axe, page, view)
    one.view("attention")
    page.locator(".head").first.click()
    page.wait_for_selector("svg.map")
    found += check(axe, page, "one head")
    page.emulate_media(color_scheme="dark")
    for view in VIEWS:
        one.view(view)
        found += check(axe, page, f"{view}, dark", "color-contrast")
    assert found == []


def test_by_keyboard_alone(tab: Open, real: Served) -> None:
    one = tab(real)
    page = one.open()
    one.choose("bigram")
    one.settings(temperature=0)
    tab_to(page, "#prompt")
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("a")
    assert page.input_value("#prompt") == "a\na"
    page.keyboard.press("Enter")
    assert one.reply() == ALPHABET
    tab_to(page, ".message.assistant .actions button", "Shift+Tab")
    tab_to(page, ".message.assistant .actions button:first-child", "Shift+Tab")
    page.keyboard.press("Enter")
    one.shown("tokens")
    expect(page.locator("#microscope")).to_be_focused()
    one.choose("tiny-moe")
    tab_to(page, "#text")
    page.keyboard.type("return a")
    tab_to(page, "#sample button")
    page.keyboard.press("Enter")
    one.shown("tokens")
    expect(page.locator("#subject")).to_contain_text("return a")
    tab_to(page, "[role=tab]")
    for view in VIEWS[1:]:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        one.shown(view)
        expect(page.locator(f"#tab-{view}")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    one.shown("tokens")
    tab_to(page, ".strip .token")
    page.keyboard.press("ArrowLeft")
    tab_to(page, ".detail button.candidate")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the second alternative
    expect(page.locator("#trail button")).to_have_count(2)
    one.shown("tokens")
    focused = page.evaluate("document.getElementById('view').contains(document.activeElement)")
    assert focused, "the place is lost"
    ring = page.locator(":focus").evaluate("e => getComputedStyle(e).outlineStyle")
    assert ring != "none"


def test_views_keep_the_place(tab: Open, real: Served) -> None:
    one = tab(real)
    page = one.open()
    one.choose("tiny-moe")
    one.look(TEXT)
    one.view("attention")
    page.locator("[data-key=Layer]").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-key=Layer]")).to_have_value("1")
    expect(page.locator("[data-key=Layer]")).to_be_focused()


def test_light_dark_and_as_the_system_has_it(tab: Open, real: Served) -> None:
    one = tab(real, color_scheme="dark")
    page = one.open()
    one.choose("tiny-moe")
    one.look("a b c")
    ground = "getComputedStyle(document.body).backgroundColor"
    cell = "getComputedStyle(document.querySelector('.token:nth-child(3)')).backgroundColor"
    dark, dark_cell = page.evaluate(ground), page.evaluate(cell)
    page.emulate_media(color_scheme="light")
    expect(page.locator(".token").nth(2)).not_to_have_css("background-color", dark_cell)
    light = page.evaluate(ground)
    assert sum(map(int, light[4:-1].split(","))) > 600 > 100 > sum(map(int, dark[4:-1].split(",")))
    theme = page.locator("#theme")
    for name, want in (("light", light), ("dark", dark)):
        theme.click()
        expect(theme).to_have_attribute("aria-label", f"Theme: {name}")
        assert page.evaluate(ground) == want
    expect(page.locator(".token").nth(2)).to_have_css("background-color", dark_cell)  # what is drawn follows
    one.open()
    assert page.evaluate(ground) == dark  # and it is remembered
    theme.click()
    assert page.evaluate(ground) == light


def test_a_telephone_scrolls_one_way(tab: Open, real: Served) -> None:
    one = tab(real, viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    page = one.open()
    one.choose("bigram")
    one.settings(temperature=0)
    one.say("a" * 300)
    one.reply()
    one.choose("tiny-moe")
    one.look(TEXT)
    for view in VIEWS:
        one.view(view)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 360, view
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_little_stands_before_the_first_paint(tab: Open, small: Served) -> None:
    """Times are the machine's; what makes them is counted here."""
    one = tab(small)
    page = one.open()
    entries = page.evaluate(
        """['navigation', 'resource'].flatMap(kind => performance.getEntriesByType(kind)).map(
        e => ({name: new URL(e.name).pathname, bytes: e.encodedBodySize, blocking: e.renderBlockingStatus}))"""
    )
    names = [entry["name"] for entry in entries]
    assert sum(entry["bytes"] for entry in entries) < 100_000
    scripts = [name for name in names if name != "/page/icon.svg"]  # which is two things, in the page and in its tab
    assert len(scripts) < 40 and len(set(scripts)) == len(scripts)
    waited_for = {entry["name"] for entry in entries if entry["blocking"] == "blocking"}
    assert waited_for <= {f"/page/css/{name}.css" for name in ("base", "chat", "microscope", "views")}
    assert page.evaluate("document.querySelectorAll('script:not([src]), style, [onclick]').length") == 0
    assert page.evaluate("performance.getEntriesByType('paint').length") == 2
