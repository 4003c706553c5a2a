"""The chat: its commands, its memory, and the loop on a real terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bigram import byte, write_bigram
from commands import environment

from ref_engine import load
from ref_engine.cli.session import Session, Settings
from ref_engine.cli.slash import HELP, command, parameters
from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.sample import SamplingParams

GREEDY = Settings(params=SamplingParams(temperature=0))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def ask(session: Session, *messages: dict[str, str], settings: Settings = GREEDY) -> str:
    return "".join(event.text for event in session.answer(session.chat_ids(messages), settings))


# -- memory ---------------------------------------------------------------------------------------------------


def test_the_next_prompt_reuses_the_cache(bigram: str) -> None:
    session = Session(load(bigram))
    assert ask(session, user("x")) == "yz"
    assert (session.timing.prompt_tokens, session.timing.reused) == (2, 0)
    assert ask(session, user("x"), assistant("yz"), user("w")) == "xyz"
    assert (session.timing.prompt_tokens, session.timing.reused) == (5, 4)  # BOS x y z are known, w is new
    assert ask(session, user("xq"), assistant("yz"), user("w")) == "xyz"
    assert session.timing.reused == 2  # BOS x
    assert ask(session, user("xq"), assistant("yz"), user("w")) == "xyz"
    assert session.timing.reused == 5  # all but the last of six, whose logits are needed


def test_reuse_changes_no_answer(smollm2: Path) -> None:
    """Text and cache of a second turn are those of a session that sees both turns at once."""
    model = load(smollm2)
    settings = Settings(params=SamplingParams(temperature=0), max_tokens=3)
    first = [user("Say red.")]
    warm = Session(model)
    turns = [*first, assistant(ask(warm, *first, settings=settings)), user("Say blue.")]
    got = ask(warm, *turns, settings=settings)
    assert warm.timing.reused > 20
    cold = Session(model)
    assert ask(cold, *turns, settings=settings) == got
    assert cold.timing.reused == 0


def test_stopping_early_keeps_the_session(bigram: str) -> None:
    session = Session(load(bigram))
    events = session.answer(session.chat_ids([user("0")]), GREEDY)
    assert "".join(next(events).text for _ in range(5)) == "12345"
    assert ask(session, user("0"), assistant("12345"), user("x")) == "yz"
    assert session.timing.reused == 6  # BOS 0 1 2 3 4; the logits after 5 nobody needed


def test_an_interrupt_within_a_pass_keeps_the_session(bigram: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(load(bigram))
    events = session.answer(session.chat_ids([user("0")]), GREEDY)
    next(events)

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session.model, "last_logits", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(events)
    assert ask(session, user("0"), assistant("1"), user("x")) == "yz"


def test_a_long_prompt_is_read_in_pieces(bigram: str) -> None:
    session = Session(load(bigram))
    assert ask(session, user("ab" * 200 + "x")) == "yz"
    assert session.timing.prompt_tokens == 402


def test_old_messages_make_room(bigram: str) -> None:
    """A context of 40 leaves 30 for the prompt: BOS, 4 of the system, and pairs of 10 + 2."""
    session = Session(load(bigram, n_ctx=40))
    pairs = [user("a" * 10), assistant("yz"), user("b" * 10), assistant("yz")]
    system = {"role": "system", "content": "ssss"}
    ids, dropped = session.fitting([system, *pairs, user("ccc")])
    assert dropped == 2
    assert ids == [1, *[byte("s")] * 4, *[byte("b")] * 10, byte("y"), byte("z"), *[byte("c")] * 3]
    with pytest.raises(ContextFull, match="45 tokens do not fit a context of 40"):
        session.fitting([system, *pairs, user("c" * 40)])


def test_seeds_repeat(base: str) -> None:
    """At a high temperature answers differ, but not for the same seed."""
    session = Session(load(base))

    def draw(seed: int) -> str:
        params = SamplingParams(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
        return "".join(e.text for e in session.answer([1], Settings(params=params, max_tokens=16)))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


# -- commands -------------------------------------------------------------------------------------------------


def test_set_parameters() -> None:
    settings = Settings()
    for line in (
        "/set parameter temperature 0.5",
        "/set seed 7",
        "/set parameter num_predict 9",
        "/set parameter top_k 3",
    ):
        settings = command(line, settings).settings
    settings = command('/set parameter stop "a b" \\\\n', settings).settings
    assert (settings.params.temperature, settings.params.seed, settings.params.top_k) == (0.5, 7, 3)
    assert (settings.max_tokens, settings.stop) == (9, ("a b", "\n"))
    assert command("/set parameter max_tokens -1", settings).settings.max_tokens is None
    shown = parameters(settings)
    assert {"temperature 0.5", "seed 7", "top_k 3", "top_p 0.95", "max_tokens 9", "stop 'a b'"} <= set(shown)


def test_set_system() -> None:
    done = command('/set system """Be brief.\nBe kind."""', Settings())
    assert (done.settings.system, done.action) == ("Be brief.\nBe kind.", "clear")
    assert command("/show system", done.settings).text == "Be brief.\nBe kind."
    assert command('/set system ""', done.settings).settings.system == ""
    assert command("/set system", done.settings).settings.system is None


@pytest.mark.parametrize(
    ("line", "action"), [("/bye", "bye"), ("/clear", "clear"), ("/show info", "info"), ("/set verbose", "verbose")]
)
def test_actions(line: str, action: str) -> None:
    assert command(line, Settings()).action == action


def test_help() -> None:
    assert command("/?", Settings()).text == HELP


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/frob", "unknown command '/frob'"),
        ("/set", "usage"),
        ("/set parameter top_k", "usage"),
        ("/set parameter frob 1", "no parameter 'frob'"),
        ("/set parameter top_k 1.5", "top_k must be a whole number"),
        ("/set parameter temperature warm", "temperature must be a number"),
        ("/set parameter top_p 2", "top_p must be from 0 to 1"),
        ('/set parameter stop "a', "stop:"),
        ("/show frob", "usage"),
    ],
)
def test_commands_that_are_refused(line: str, error: str) -> None:
    with pytest.raises(RefEngineError, match=re.escape(error)):
        command(line, Settings())


# -- on a terminal --------------------------------------------------------------------------------------------


class Terminal:
    """A person at a terminal: types, and reads until something appears."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> str:
        """Wait for text; returns what came before it."""
        end = time.monotonic() + 60
        while text not in self._seen:
            ready = select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]
            if not ready:
                raise AssertionError(f"{text!r} did not appear; seen: {self._seen!r}")
            try:
                self._seen += os.read(self._master, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
            except OSError as error:  # the other side has closed
                raise AssertionError(f"{text!r} did not appear before the end: {self._seen!r}") from error
        before, _, self._seen = self._seen.partition(text)
        return before


def interruptible() -> None:
    """Where whoever runs the tests ignores Ctrl-C (a shell's background job), what they start would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def terminal(*args: str) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    """The command as the foreground job of a terminal: the shell leads a session and opens it as its own."""
    master, slave = pty.openpty()
    device = os.ttyname(slave)
    script = f'exec "$@" < {device} > {device} 2>&1'
    command_line = ["sh", "-c", script, "sh", sys.executable, "-m", "ref_engine", *args]
    with subprocess.Popen(
        command_line, start_new_session=True, env=environment(TERM="dumb"), preexec_fn=interruptible
    ) as running:
        try:
            yield Terminal(master), running
        finally:
            running.kill()
            os.close(slave)
            os.close(master)


def test_a_chat(tmp_path: Path) -> None:
    path = write_bigram(tmp_path / "endless.gguf", n_ctx=60000)
    with terminal("run", str(path)) as (screen, running):
        screen.expect(">>> ")
        screen.type("w\n")
        screen.expect("xyz\n")
        screen.expect(">>> ")

        screen.type("/set verbose\n")
        screen.expect(">>> ")
        screen.type('"""a\n')  # three lines of a message
        screen.expect("... ")
        screen.type("b\n")
        screen.expect("... ")
        screen.type('x"""\n')
        screen.expect("yz\n")
        screen.expect("prompt  10 tokens, 5 of them cached")  # BOS w x y z, then a \n b \n x
        screen.expect(">>> ")

        screen.type("0\n")
        screen.expect("123456789012345")
        screen.type("\x03")
        screen.expect("(stopped)")
        screen.expect(">>> ")
        screen.type("x\n")
        screen.expect("yz\n")
        screen.expect(">>> ")

        screen.type("/set parameter max_tokens 2\n")
        screen.expect(">>> ")
        screen.type("a\n")
        screen.expect("bc\n(max_tokens reached)")
        screen.expect(">>> ")
        screen.type("/show parameters\n")
        screen.expect("max_tokens 2\n")
        screen.expect(">>> ")
        screen.type("/set parameter top_p 7\n")
        screen.expect("error: top_p must be from 0 to 1")
        screen.expect(">>> ")
        screen.type("/clear\n")
        screen.expect(">>> ")
        screen.type("x\n")
        screen.expect("prompt  2 tokens")
        screen.expect(">>> ")

        time.sleep(0.5)  # until the prompt is being read: an interrupt just before that waits for the next key
        screen.type("half a message\x03")
        screen.expect("Ctrl-D or /bye to leave")
        screen.expect(">>> ")
        screen.type("/show info\n")
        screen.expect("architecture  llama, 1 layers, width 288, vocabulary 288")
        screen.expect(">>> ")
        screen.type("\x04")
        assert running.wait(60) == 0


def test_a_base_model_goes_on_with_one_text(base: str) -> None:
    with terminal("run", base, "--max-tokens", "3") as (screen, running):
        screen.expect(">>> ")
        screen.type("a\n")
        screen.expect("bcd\n")
        screen.expect(">>> ")
        screen.type("/set verbose\n")
        screen.expect(">>> ")
        screen.type("x\n")
        screen.expect("yz\n")
        screen.expect("prompt  6 tokens")  # BOS a b c d x
        screen.expect(">>> ")
        screen.type("/bye\n")
        assert running.wait(60) == 0


def test_a_model_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """The token 0xC3 is followed by 0xA9 in the vocabulary; a template shows that escapes are dropped on a terminal."""
    path = write_bigram(
        tmp_path / "m.gguf", template="{% for m in messages %}{{ m.content }}{% endfor %}\x1b]0;title\x07 w"
    )
    with terminal("run", str(path)) as (screen, running):
        screen.expect(">>> ")
        screen.type("/show template\n")
        shown = screen.expect("]0;title w\n")
        assert "\x1b" not in shown
        screen.expect(">>> ")
        screen.type("/bye\n")
        assert running.wait(60) == 0
