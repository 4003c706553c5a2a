"""The microscope in a browser: what each view draws is what the endpoint says, on a dense model and on a mixture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
import requests
from browsing import Served, Tab, eventually
from playwright.sync_api import Locator, Page, expect

Open = Callable[..., Tab]
Json = dict[str, Any]
TEXTS = {"smollm2": "The capital of France is", "tiny-moe": "def add(a, b):\n    return a"}
BOTH = pytest.mark.parametrize("model", TEXTS)
LUMINANCE = """cells => cells.map(cell => {
  const [r, g, b] = getComputedStyle(cell).backgroundColor.match(/[\\d.]+/g).map(Number)
  return 0.2126 * r + 0.7152 * g + 0.0722 * b })"""


@pytest.fixture
def looking(tab: Open, real: Served) -> Callable[..., Tab]:
    """A page that looks at the model's text."""

    def look(model: str, **options: Any) -> Tab:
        one = tab(real, **options)
        one.open()
        one.choose(model)
        one.look(TEXTS[model])
        return one

    return look


def ask(served: Served, view: str, model: str, **more: object) -> Json:
    given = {} if "tokens" in more else {"prompt": TEXTS[model]}
    answer: Json = served.post(f"/api/lens/{view}", {"model": model, **given, **more})
    return answer


def shown(token: Json, length: int | None = None) -> str:
    """A token as the page writes it: spaces and line ends as signs, cut for a label."""
    text = re.sub("[ \n]", lambda sign: {" ": "·", "\n": "⏎"}[sign[0]], token["text"])
    return text if length is None or len(text) <= length else f"{text[: length - 1]}…"


def percent(text: str | None) -> float:
    found = re.fullmatch(r"(?:< )?([\d.e-]+) %", text or "")
    assert found is not None, text
    return float(found[1]) / 100


def candidates(page: Page) -> list[tuple[int, str, float]]:
    """id, text and probability of each of the candidates on the side."""
    rows = page.locator(".detail .candidate").evaluate_all(
        """rows => rows.map(row => [Number(row.dataset.id), row.querySelector('.token-text').textContent,
        row.querySelector('.number').textContent])"""
    )
    return [(id, text, percent(p)) for id, text, p in rows]


def table(place: Locator | Page) -> list[list[str]]:
    """The rows of the table behind the fold of a picture."""
    fold = place.locator("details.as-table").first
    fold.locator("summary").click()
    fold.locator("tbody tr").first.wait_for()
    rows: list[list[str]] = fold.locator("tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    return rows


def falls(values: list[float], by: list[float]) -> bool:
    """Whether a picture gets darker as the numbers rise; equal ones may be either way."""
    pairs = sorted(zip(by, values, strict=True))
    return all(b[1] <= a[1] + 1 for a, b in pairwise(pairs))


@BOTH
def test_tokens(looking: Callable[..., Tab], real: Served, model: str) -> None:
    one = looking(model)
    page, answer = one.page, ask(real, "tokens", model, top=10)
    cells = page.locator(".strip .token")
    expect(cells).to_have_count(len(answer["tokens"]) + 1)
    assert cells.evaluate_all("cells => cells.map(c => c.textContent)") == [*map(shown, answer["tokens"]), "next"]
    ids = cells.evaluate_all("cells => cells.slice(0, -1).map(c => Number(c.dataset.id))")
    assert ids == [token["id"] for token in answer["tokens"]]
    logprobs = [token["logprob"] for token in answer["tokens"][1:]]
    assert falls(cells.evaluate_all(LUMINANCE)[1:-1], logprobs)
    cells.nth(2).hover()
    third = answer["tokens"][2]
    expect(page.locator(".detail h3")).to_have_text(shown(third))
    facts = dict(
        zip(page.locator(".detail dt").all_inner_texts(), page.locator(".detail dd").all_inner_texts(), strict=True)
    )
    assert (facts["position"], facts["rank"]) == ("2", str(third["rank"]))
    assert percent(facts["probability"]) == pytest.approx(2.718281828 ** third["logprob"], rel=0.01, abs=1e-5)
    got = candidates(page)
    assert [(id, text) for id, text, _ in got] == [(each["id"], shown(each)) for each in third["top"]]
    for (_, _, p), each in zip(got, third["top"], strict=True):
        assert p == pytest.approx(2.718281828 ** each["logprob"], rel=0.03, abs=1e-5)
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".detail h3")).to_have_text(shown(answer["tokens"][1]))
    page.keyboard.press("End")
    assert [(id, text) for id, text, _ in candidates(page)] == [
        (each["id"], shown(each)) for each in answer["next"]["top"]
    ]
    rows = table(page)
    assert [row[1:3] for row in rows] == [[shown(token), str(token["id"])] for token in answer["tokens"]]


@BOTH
def test_logit_lens(looking: Callable[..., Tab], real: Served, model: str) -> None:
    one = looking(model)
    one.view("layers")
    page, answer = one.page, ask(real, "layers", model)
    n, ids = len(answer["tokens"]), [token["id"] for token in answer["tokens"]]
    cells = page.locator(".lens td")
    expect(cells).to_have_count((len(answer["layers"]) + 1) * n)
    best = [cell["top"][0] for row in answer["cells"] for cell in row]
    assert cells.evaluate_all("cells => cells.map(c => Number(c.dataset.id))") == [each["id"] for each in best]
    assert cells.evaluate_all("cells => cells.map(c => c.textContent)") == [shown(each, 9) for each in best]
    right = [
        cell["top"][0]["id"] == next for row in answer["cells"] for cell, next in zip(row, [*ids[1:], -1], strict=True)
    ]
    assert cells.evaluate_all("cells => cells.map(c => c.classList.contains('right'))") == right
    assert falls(cells.evaluate_all(LUMINANCE), [each["prob"] for each in best])
    last = page.locator(".lens tbody tr").last
    assert last.locator("th").inner_text() == "output"
    cells.nth(n + 1).hover()
    assert [(id, text) for id, text, _ in candidates(page)] == [
        (c["id"], shown(c)) for c in answer["cells"][1][1]["top"]
    ]
    cells.nth(n + 1).click()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".detail h3")).to_contain_text("Layer 2")
    assert [id for id, _, _ in candidates(page)] == [c["id"] for c in answer["cells"][2][1]["top"]]


@BOTH
def test_attention(looking: Callable[..., Tab], real: Served, model: str) -> None:
    one = looking(model)
    one.view("attention")
    page, answer = one.page, ask(real, "attention", model, layer=0)
    n, maps = len(answer["tokens"]), answer["maps"]
    one.expected.append("willReadFrequently")  # said to this test, which reads the canvas back
    assert page.locator(".heads canvas").count() == answer["n_heads"] == len(maps)
    pixels = (
        page.locator(".heads canvas")
        .nth(1)
        .evaluate("""canvas => {
      const cell = Number(canvas.dataset.cell), pen = canvas.getContext('2d'), n = canvas.height / cell
      return Array.from({length: n}, (_, i) => Array.from({length: n}, (_, j) =>
        [...pen.getImageData(j * cell + (cell >> 1), i * cell + (cell >> 1), 1, 1).data])) }""")
    )
    assert [[pixel[3] > 0 for pixel in row] for row in pixels] == [[j <= i for j in range(n)] for i in range(n)]
    seen = [(i, j) for i in range(n) for j in range(i + 1)]
    luminance = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), pixels[i][j], strict=False)) for i, j in seen]
    assert falls(luminance, [maps[1][i][j] for i, j in seen])

    page.select_option("[data-key=Layer]", "2")
    expect(page.locator("[data-key=Layer]")).to_have_value("2")
    page.locator(".head").nth(1).click()
    (alone,) = ask(real, "attention", model, layer=2, head=1)["maps"]
    cells = page.locator("svg.map rect.cell")
    expect(cells).to_have_count(n * (n + 1) // 2)
    page.locator("rect.cell[data-i='3'][data-j='1']").hover()
    tip = page.locator("#tip")
    expect(tip).to_contain_text(f"{shown(answer['tokens'][3])} (3)")
    expect(tip).to_contain_text(f"{shown(answer['tokens'][1])} (1)")
    assert float((tip.inner_text()).split("weight ")[1]) == alone[3][1]
    page.locator("svg.map").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".readout")).to_contain_text(f"query {shown(answer['tokens'][2])} (2)")
    rows = table(page)
    assert len(rows) == n
    assert [[float(x) if x else 0.0 for x in row[1:]] for row in rows] == alone


def test_experts_of_a_mixture(looking: Callable[..., Tab], real: Served) -> None:
    one = looking("tiny-moe")
    one.view("experts")
    page, answer = one.page, ask(real, "experts", "tiny-moe")
    sent = page.locator(".routing tbody tr").evaluate_all(
        """rows => rows.map(row => [...row.querySelectorAll('td')].map(
        cell => [...cell.querySelectorAll('.chip')].map(chip => Number(chip.textContent))))"""
    )
    assert sent == [layer["ids"] for layer in answer["layers"]]
    chips = page.locator(".chip")
    colours = chips.evaluate_all("chips => chips.map(c => [c.dataset.expert, getComputedStyle(c).backgroundColor])")
    assert len({colour for _, colour in colours}) > answer["n_experts"]  # eight hues, many strengths
    cell = page.locator(".routing td").nth(2)
    cell.hover()
    first = answer["layers"][0]
    said = page.locator(".readout").first
    pairs = zip(first["ids"][2], first["weights"][2], strict=True)
    expect(said).to_contain_text(", ".join(f"expert {id} at {weight:.4g}" for id, weight in pairs))
    cell.focus()
    page.keyboard.press("ArrowDown")
    expect(said).to_contain_text("layer 1")
    loads = [sum(layer["load"][e] for layer in answer["layers"]) for e in range(answer["n_experts"])]
    bars = page.locator("table.bars tbody tr")
    assert bars.evaluate_all("rows => rows.map(row => Number(row.cells[2].textContent))") == loads
    widths = bars.evaluate_all("rows => rows.map(row => parseFloat(row.querySelector('.bar').style.width))")
    assert widths == pytest.approx([100 * load / max(loads) for load in loads], abs=1e-3)
    page.select_option("[data-key=load]", "1")
    expect(page.locator("[data-key=load]")).to_have_value("1")
    assert bars.evaluate_all("rows => rows.map(row => Number(row.cells[2].textContent))") == answer["layers"][1]["load"]
    for row, layer in zip(table(page.locator(".pair")), answer["layers"], strict=True):
        bits = [max(layer["entropy"]), sum(layer["entropy"]) / len(layer["entropy"]), min(layer["entropy"])]
        assert [float(x) for x in row[1:]] == pytest.approx([x / 0.693147 for x in bits], rel=1e-3)


def test_a_dense_model_has_no_experts_and_says_so(looking: Callable[..., Tab]) -> None:
    one = looking("smollm2")
    one.view("experts")
    expect(one.page.locator("#view")).to_contain_text("This model is dense")


@BOTH
def test_norms_time_and_memory(looking: Callable[..., Tab], real: Served, model: str) -> None:
    one = looking(model)
    one.view("norms")
    page, answer = one.page, ask(real, "norms", model)
    for chosen, of in (("median", median), ("1", lambda row: row[1])):
        page.select_option("[data-key=norm]", chosen)
        expect(page.locator("[data-key=norm]")).to_have_value(chosen)
        rows = [[float(x) for x in row[1:]] for row in table(page)]
        want = [[of(answer["values"][name][layer]) for name in answer["names"]] for layer in answer["layers"]]
        assert [x for row in rows for x in row] == pytest.approx([x for row in want for x in row], rel=6e-4)
    assert page.locator(".chart path.line").count() == len(answer["names"])
    assert page.locator(".chart text.name").all_inner_texts() != []

    one.view("memory")
    parts = ask(real, "memory", model)["parts"]
    names = page.locator("table.bars tbody th").all_inner_texts()
    assert sorted(names) == sorted(part["name"] for part in parts)
    assert names[0] == max(parts, key=lambda part: part["bytes"])["name"]

    one.view("times")
    operations = ask(real, "times", model)["operations"]
    want = {" ".join(filter(None, (op["name"], op["tensors"]))): op["calls"] for op in operations}
    rows = page.locator("table.bars tbody tr").evaluate_all(
        "rows => rows.map(row => [row.cells[0].textContent, Number(row.cells[4].textContent)])"
    )
    assert dict(rows) == want
    with page.expect_request("**/api/lens/times"):
        page.get_by_role("button", name="Measure again").click()
    one.shown("times")


def test_an_alternative_goes_on(looking: Callable[..., Tab], real: Served) -> None:
    one = looking("smollm2")
    page, answer = one.page, ask(real, "tokens", "smollm2", top=10)
    page.get_by_label("go on for").fill("3")
    page.get_by_label("go on for").blur()
    cells = page.locator(".strip .token")
    cells.nth(3).click()
    other = answer["tokens"][3]["top"][1]
    page.locator(".detail button.candidate").nth(1).click()
    expect(page.locator("#trail [aria-current]")).to_have_text(f"3: {shown(other, 12)}")
    begun = [*(token["id"] for token in answer["tokens"][:3]), other["id"]]
    with requests.Session() as session:
        session.trust_env = False
        body = {"model": "smollm2", "tokens": begun, "max_tokens": 3, "temperature": 0}
        lines = session.post(f"{real.url}/api/lens/generate", json=body, timeout=60).text.splitlines()
    went_on = [json.loads(line)["id"] for line in lines[:-1]]
    assert len(went_on) == 3
    one.shown("tokens")
    expect(cells).to_have_count(len(begun) + 3 + 1)
    assert cells.evaluate_all("cells => cells.slice(0, -1).map(c => Number(c.dataset.id))") == begun + went_on
    page.locator("#trail button").first.click()
    one.shown("tokens")
    expect(cells).to_have_count(len(answer["tokens"]) + 1)
    cells.last.click()
    page.locator(".detail button.candidate").first.click()  # on from the end
    expect(page.locator("#trail button")).to_have_count(2)
    one.shown("tokens")


def test_a_continuation_stops(looking: Callable[..., Tab], real: Served) -> None:
    one = looking("smollm2")
    page = one.page
    page.get_by_label("go on for").fill("500")
    page.get_by_label("go on for").blur()
    page.locator(".strip .token").last.click()
    for stop in (lambda: page.get_by_role("button", name="Stop").last.click(), lambda: page.keyboard.press("Escape")):
        before = page.locator(".strip .token").count()
        page.locator(".detail button.candidate").first.click()
        expect(page.locator(".strip .token").nth(before + 2)).to_be_visible()
        stop()
        eventually(lambda: real.speaking() == 0)
        page.wait_for_selector(".strip .token.next")
        assert page.locator(".strip .token").count() < 400
        page.locator(".strip .token").last.click()


def test_messages_can_be_looked_into(tab: Open, real: Served) -> None:
    one = tab(real)
    page = one.open()
    one.choose("smollm2")
    one.settings(temperature=0, num_predict=4)
    one.say("Hello")
    reply = one.reply()
    user = {"role": "user", "content": "Hello"}
    for role, messages in (("user", [user]), ("assistant", [user, {"role": "assistant", "content": reply}])):
        page.locator(f".message.{role}").get_by_role("button", name="Look inside").click()
        want = real.post("/api/lens/tokens", {"model": "smollm2", "messages": messages})["tokens"]
        expect(page.locator(".strip .token")).to_have_count(len(want) + 1)
        texts = page.locator(".strip .token").evaluate_all("cells => cells.slice(0, -1).map(c => c.textContent)")
        assert texts == [shown(token) for token in want]
    assert "".join(texts).endswith(shown({"text": reply}))  # the reply itself comes last, and no new turn after it


def test_text_under_the_microscope_is_text(looking: Callable[..., Tab]) -> None:
    one = looking("tiny-moe")
    one.look("<img src=x onerror=\"document.title='broken'\">")
    for view in ("layers", "attention", "experts", "norms", "tokens"):
        one.view(view)
        assert one.page.locator("main img").count() == 0
    assert "".join(one.page.locator(".strip .token").all_inner_texts()).find("<img·src=x·onerror=") >= 0
    assert one.page.title() == "ref-engine"


def test_what_cannot_be_looked_at_is_said(looking: Callable[..., Tab]) -> None:
    one = looking("tiny-moe")
    one.expected.append("400")
    one.page.fill("#text", "word " * 3000)
    one.page.click("#sample button.main")
    one.shown("error")
    assert re.search(r"has \d+ tokens", one.page.locator("#view [role=alert]").inner_text())


def test_long_texts_are_shown_in_parts(looking: Callable[..., Tab], real: Served) -> None:
    one = looking("tiny-moe")
    text = "def add(a, b):\n    return a + b\n\n" * 5
    one.look(text)
    ids = [token["id"] for token in real.post("/api/lens/tokens", {"model": "tiny-moe", "prompt": text})["tokens"]]
    assert len(ids) > 48
    one.view("experts")
    ends = one.page.locator(".window span")
    expect(ends).to_have_text(f"tokens {len(ids) - 24}–{len(ids) - 1} of {len(ids)}")
    one.page.get_by_role("button", name="Earlier").click()
    expect(ends).to_have_text(f"tokens {len(ids) - 48}–{len(ids) - 25} of {len(ids)}")
    sent = one.page.locator(".routing tbody tr").first.evaluate(
        "row => [...row.querySelectorAll('.chip')].map(x => Number(x.textContent))"
    )
    routed = real.post("/api/lens/experts", {"model": "tiny-moe", "tokens": ids})["layers"][0]["ids"]
    assert sent == [id for row in routed[-48:-24] for id in row]
    one.view("layers")
    expect(ends).to_have_text(f"tokens {len(ids) - 48}–{len(ids) - 25} of {len(ids)}")  # the same part
