"""Write docs/images/*.png: the page in Debian's Chromium, over a server with two small models.

    python docs/make_screenshots.py SMOLLM2.gguf

The mixture of experts is golden/models/tiny-moe.gguf. What is seen depends on the fonts of the machine: Inter and
JetBrains Mono where they are installed.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from ref_engine.library import Store
from ref_engine_app.logs import Log
from ref_engine_app.serve import Server
from ref_engine_app.settings import Settings

DOCS = Path(__file__).parent
MIXTURE = DOCS.parent / "golden" / "models" / "tiny-moe.gguf"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CODE = 'def area(width, height):\n    """Return the product."""\n    return width * height'
FACTS = "The capital of France is Paris. The capital of Italy is"
STORY = (
    "Once upon a time, there was a small village at the foot of a mountain. Every morning the baker opened his shop, "
    "and the smell of fresh bread woke everybody up. One day, a stranger came to the village. She carried a book "
    "that nobody could read, and she asked for a glass of"
)


def main(dense: str) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Store(Path(folder), read_only=())
        store.add_file("smollm2", dense)
        store.add_file("tiny-moe", MIXTURE)
        engine = {"n_threads": 1}
        server = Server(Settings(port=0, n_ctx=2048, grace=0.0, engine=engine), store, Log(io.StringIO()))
        server.start()
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(
            viewport={"width": 1120, "height": 780},
            device_scale_factor=1.25,
            color_scheme="light",
            reduced_motion="reduce",
        )
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.wait_for_selector("#send:enabled")
        draw(page)
        browser.close()
        server.stop()


def draw(page: Page) -> None:
    page.select_option("#model", "smollm2:latest")
    page.locator(".settings summary").click()
    page.fill("#temperature", "0")
    page.fill("#num_predict", "80")
    page.locator(".settings summary").click()
    for n, text in enumerate(("What is the capital of France?", "What is it known for?")):
        page.fill("#prompt", text)
        page.press("#prompt", "Enter")
        page.locator(".message.assistant[aria-busy=false]").nth(n).wait_for()
    page.mouse.move(0, 0)
    keep(page, "chat")

    look(page, STORY)
    page.locator(".strip .token").last.click()
    keep(page, "tokens")
    look(page, FACTS)
    view(page, "layers")
    keep(page, "logit-lens")
    view(page, "attention")
    page.select_option("[data-key=Layer]", "10")
    shown(page, "attention")
    keep(page, "attention")

    page.emulate_media(color_scheme="dark")
    page.select_option("#model", "tiny-moe:latest")
    look(page, CODE)
    view(page, "experts")
    keep(page, "experts")


def look(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("#sample button.main")
    shown(page, "tokens")


def view(page: Page, name: str) -> None:
    page.click(f"#tab-{name}")
    shown(page, name)


def shown(page: Page, view: str) -> None:
    page.wait_for_selector(f"#view[data-shown={view}]:not([aria-busy])")


def keep(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    folder = DOCS / "images"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1])
