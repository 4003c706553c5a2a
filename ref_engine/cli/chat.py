"""The chat on a terminal: read a message, stream an answer, remember both."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from ref_engine.cli.output import clean, one_line, say, shown, write
from ref_engine.cli.progress import progress
from ref_engine.cli.session import Message, Session, Settings, system_message
from ref_engine.cli.slash import command, unquoted
from ref_engine.errors import RefEngineError

_LINE, _MORE = ">>> ", "... "


class Chat:
    """A conversation as the user sees it. Without a template the model continues one running text instead."""

    def __init__(
        self, session: Session, settings: Settings, *, verbose: bool = False, messages: Sequence[Message] = ()
    ) -> None:
        self.session = session
        self.settings = settings
        self.verbose = verbose
        self._opening = list(messages)  # what the model's manifest begins every conversation with
        self._messages = list(messages)
        self._text = ""

    def loop(self) -> None:
        """Until /bye or the end of input."""
        with suppress(ImportError):  # line editing, where Python has it
            import readline  # noqa: F401
        print("/? for help, Ctrl-D to leave", file=sys.stderr)
        while (message := read_message()) is not None:
            if not message.strip():
                continue
            try:
                if message.startswith("/"):
                    if not self._command(message):
                        return
                else:
                    self._answer(message)
            except RefEngineError as error:
                print(f"error: {one_line(str(error))}", file=sys.stderr)
            except KeyboardInterrupt:
                say()

    def _command(self, line: str) -> bool:
        """Carry out a /command; False to leave."""
        outcome = command(line, self.settings)
        self.settings = outcome.settings
        if outcome.text:
            say(shown(outcome.text))
        match outcome.action:
            case "clear":
                self._messages, self._text = list(self._opening), ""
            case "verbose" | "quiet":
                self.verbose = outcome.action == "verbose"
            case "template":
                say(shown(self.session.model.chat_template or "this model has no chat template"))
            case "info":
                for line in info(self.session):
                    say(shown(line))
        return outcome.action != "bye"

    def _answer(self, message: str) -> None:
        """Stream the answer; what was shown of it is remembered, also when it was stopped."""
        ids = self._prompt(message)
        answer: list[str] = []
        reason: str | None = None
        try:
            with progress("tokens", lines=False) as bar:
                events = self.session.answer(ids, self.settings, bar)
            for event in events:
                write(event.text)
                answer.append(event.text)
                reason = event.finish_reason
        except KeyboardInterrupt:
            reason = "interrupted"
        say()
        self._remember(message, "".join(answer))
        if reason in ("context", "length", "interrupted"):
            why = {"context": "the context is full", "length": "max_tokens reached", "interrupted": "stopped"}[reason]
            print(f"({why})", file=sys.stderr)
        if self.verbose:
            print(timings(self.session), file=sys.stderr)

    def _prompt(self, message: str) -> list[int]:
        if self.session.template is None:
            return self.session.model.tokenize(self._text + message)
        asked = {"role": "user", "content": message}
        ids, dropped = self.session.fitting([*system_message(self.settings), *self._messages, asked])
        if dropped:
            print(f"({dropped} old messages no longer fit the context)", file=sys.stderr)
        return ids

    def _remember(self, message: str, answer: str) -> None:
        self._text += message + answer
        self._messages += [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]


def read_message() -> str | None:
    """One line, or several between triple quotes; None at the end of input. Ctrl-C drops what was typed."""
    try:
        line = clean(input(_LINE))
        if not line.lstrip().startswith('"""') and not _opens_block(line):
            return line
        lines = [line]
        while not _closed(lines):
            lines.append(clean(input(_MORE)))
    except EOFError:
        say()
        return None
    except KeyboardInterrupt:
        say("\nCtrl-D or /bye to leave")
        return ""
    text = "\n".join(lines)
    return text if text.startswith("/") else unquoted(text.strip())


def _opens_block(line: str) -> bool:
    """`/set system \"\"\"` goes on over several lines, too."""
    return line.startswith("/set system ") and '"""' in line


def _closed(lines: list[str]) -> bool:
    text = "\n".join(lines)
    return text.count('"""') >= 2 and text.rstrip().endswith('"""')


def info(session: Session) -> list[str]:
    """A few lines about the model."""
    spec, metadata = session.model.spec, session.model.metadata
    name = metadata.get("general.name")
    return [
        f"name          {clean(str(name)) if name else session.model.file.path.name}",
        f"architecture  {spec.arch}, {spec.n_layer} layers, width {spec.d_model}, vocabulary {spec.n_vocab}",
        f"context       {session.model.n_ctx} tokens",
        f"backend       {session.model.ops.name}, activations {session.model.activations}",
        f"template      {'the one in the file' if session.template else 'none: the model continues the text'}",
    ]


def timings(session: Session) -> str:
    t = session.timing
    fresh = t.prompt_tokens - t.reused
    lines = [f"prompt  {t.prompt_tokens} tokens, {t.reused} of them cached; {_rate(fresh, t.prompt_s)}"]
    lines.append(f"answer  {t.new_tokens} tokens; {_rate(t.new_tokens - 1, t.new_s)}")
    return "\n".join(lines)


def _rate(n: int, seconds: float) -> str:
    return f"{seconds:.2f} s" + (f", {n / seconds:.1f} tokens/s" if seconds > 0 and n > 0 else "")
