"""The chat in a browser: it answers, stops, tries again, and shows whatever a model says as text."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from browsing import ALPHABET, Served, Tab, eventually
from playwright.sync_api import Route, expect

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&amp;<b>\u202egpj"
Open = Callable[..., Tab]


def answer_with(tab: Tab, *lines: dict[str, object]) -> None:
    """The server's next answers, in place of a model's."""
    body = "".join(json.dumps(line) + "\n" for line in lines)
    tab.page.route("**/api/chat", lambda route: route.fulfill(body=body, content_type="application/x-ndjson"))


def test_a_real_model_answers(tab: Open, real: Served) -> None:
    one = tab(real)
    page = one.open()
    one.choose("smollm2")
    one.settings(temperature=0, num_predict=8)
    one.say("What is the capital of France?")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    options = {"temperature": 0, "num_predict": 8}
    same = real.post("/api/chat", {"model": "smollm2", "messages": messages, "stream": False, "options": options})
    assert one.reply() == same["message"]["content"] and "Paris" in one.reply()
    expect(page.locator(".note").last).to_contain_text("8 tokens")
    expect(page.locator("#status")).to_have_text("The answer is complete.")
    assert page.locator("#log").get_attribute("aria-live") == "off"  # not a word for each token


def test_a_conversation_goes_on_is_tried_again_and_cleared(tab: Open, small: Served) -> None:
    one = tab(small)
    page = one.open()
    one.settings(temperature=0, system="S")
    one.say("a")
    assert one.reply() == ALPHABET
    asked: list[dict[str, object]] = []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
    one.say("x")
    expect(page.locator(".message.assistant .said").last).to_have_text("yz")
    said = [{"role": role, "content": text} for role, text in
            (("system", "S"), ("user", "a"), ("assistant", ALPHABET), ("user", "x"))]  # fmt: skip
    assert asked[-1]["messages"] == said and asked[-1]["options"] == {"temperature": 0}
    page.locator(".message.assistant").first.get_by_role("button", name="Retry").click()
    expect(page.locator(".message")).to_have_count(2)
    assert one.reply() == ALPHABET and asked[-1]["messages"] == said[:2]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator("#prompt")).to_be_focused()


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_frees_the_slot(tab: Open, small: Served, how: str) -> None:
    one = tab(small)
    page = one.open()
    one.settings(temperature=0)
    one.say("0")  # 1234567890123... to the end of the context
    expect(page.locator(".message.assistant .said")).to_contain_text("1234567890")
    assert small.speaking() == 1
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".note").last).to_have_text("Stopped.")
    eventually(lambda: small.speaking() == 0)
    expect(page.locator("#send")).to_be_visible()
    assert one.reply().startswith("12345678901")
    one.say("a")
    expect(page.locator(".message.assistant .said").last).to_have_text(ALPHABET)


def test_what_a_model_says_is_text(tab: Open, small: Served) -> None:
    one = tab(small)
    page = one.open()
    thought = {"message": {"role": "assistant", "content": "", "thinking": HOSTILE}, "done": False}
    answer_with(one, thought, {"message": {"role": "assistant", "content": HOSTILE}, "done": False},
                {"message": {"content": ""}, "done": True, "eval_count": 2, "eval_duration": 10**9})  # fmt: skip
    one.say(HOSTILE)
    assert page.locator(".message.user .said").text_content() == HOSTILE
    one.reply()
    message = page.locator(".message.assistant")
    assert message.locator(".said").text_content() == HOSTILE
    folded = message.locator("details.thinking")
    assert folded.get_attribute("open") is None
    folded.locator("summary").click()
    expect(folded.locator(".text")).to_be_visible()
    assert folded.locator(".text").text_content() == HOSTILE
    assert page.locator("main img, main script, .message b").count() == 0 and page.title() == "ref-engine"


def test_errors_are_said_plainly(tab: Open, small: Served) -> None:
    one = tab(small)
    one.expected.append("404")
    page = one.open()
    page.evaluate("document.querySelector('#model option').value = 'nowhere'")
    one.say("a")
    expect(page.locator(".note.bad")).to_contain_text("nowhere")
    answer_with(one, {"message": {"content": "half"}, "done": False}, {"error": "out of <b>luck</b>"})
    one.say("a")
    expect(page.locator(".note.bad").last).to_have_text("out of <b>luck</b>")
    expect(page.locator(".message.assistant .said").last).to_have_text("half")
    page.unroute("**/api/chat")
    page.route(
        "**/api/chat", lambda route: route.fulfill(body='{"message": {"con', content_type="application/x-ndjson")
    )
    one.say("a")
    expect(page.locator(".note.bad").last).to_have_text("the server's answer was cut")
    page.unroute("**/api/chat")
    answer_with(one, {"message": {"content": "no end"}, "done": False})
    one.say("a")
    expect(page.locator(".note.bad").last).to_have_text("the answer was cut")
    page.locator(".settings summary").click()
    page.fill("#temperature", "-1")
    messages = page.locator(".message").count()
    one.say("a")
    expect(page.locator("#trouble")).to_contain_text("Temperature")
    assert page.input_value("#prompt") == "a" and page.locator(".message").count() == messages


def test_copy(tab: Open, small: Served) -> None:
    one = tab(small, permissions=["clipboard-read", "clipboard-write"])
    page = one.open()
    one.settings(temperature=0)
    one.say("a")
    one.reply()
    page.locator(".message.assistant").get_by_role("button", name="Copy").click()
    expect(page.locator(".message.assistant").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == ALPHABET


def test_the_key_is_asked_for(tab: Open, start_server: Callable[..., Served]) -> None:
    one = tab(start_server(api_key="secret", n_ctx=100))
    one.expected.append("401")
    page = one.page
    page.goto(one.served.url)
    dialog = page.get_by_role("dialog")
    for key in ("wrong", "secret"):
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_role("button", name="Use this key").click()
        if key == "wrong":
            expect(page.locator("#key-problem")).to_contain_text("not the server's")
    page.wait_for_selector("#send:enabled")
    expect(dialog).to_be_hidden()
    one.settings(temperature=0)
    one.say("a")
    assert one.reply() == ALPHABET
    stored = page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
    assert "secret" not in stored[0] and "secret" in stored[1]
    page.reload()
    page.wait_for_selector("#send:enabled")  # the tab still knows it


def test_settings_outlive_a_reload(tab: Open, small: Served) -> None:
    one = tab(small)
    page = one.open()
    page.locator(".settings summary").click()
    page.fill("#system", "Say a")
    page.fill("#seed", "7")
    page.locator("#seed").blur()
    one.open()
    assert [page.input_value(field) for field in ("#system", "#seed", "#temperature")] == ["Say a", "7", ""]


def test_a_server_without_models_says_how_to_get_one(tab: Open, small: Served) -> None:
    one = tab(small)

    def nothing(route: Route) -> None:
        route.fulfill(json={"models": []})

    one.page.route("**/api/tags", nothing)
    one.page.goto(small.url)
    expect(one.page.locator("#trouble")).to_contain_text("ref-engine pull")
    assert one.page.locator("#send").is_disabled()
