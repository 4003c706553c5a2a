"""How soon the page shows something: `python docs/benchmarks/first_paint.py`, with playwright and Debian's Chromium.

A server of our own without a model, and a new browser profile for each visit. Prints the milliseconds from the start of
the visit to its first contentful paint, by the browser's own account: median (least to most).
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from playwright.sync_api import Browser, sync_playwright

VISITS = 15
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> None:
    path = shutil.which("chromium")
    if path is None:
        sys.exit("first_paint: there is no chromium")
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "ref_engine", "serve", "--port", "0", "--quiet"]
        env = {**os.environ, "REF_ENGINE_MODELS": store}
        server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+:\d+", server.stdout.readline())
            assert found is not None, "the server did not start"
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
                times = [visit(browser, found[0]) for _ in range(VISITS)]
                browser.close()
        finally:
            server.terminate()
            server.wait(30)
    print(f"first paint {statistics.median(times):.0f} ms ({min(times):.0f}-{max(times):.0f}), {VISITS} visits")


def visit(browser: Browser, url: str) -> float:
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    while (found := page.evaluate(PAINT)) is None:
        time.sleep(0.05)
    context.close()
    return float(found)


if __name__ == "__main__":
    main()
