"""ref-engine run"""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ref_engine.cli.options import engine_options, expert_cache_report, find_model, json_option, load_model
from ref_engine.cli.output import clean, emit_json, read_stdin, say, write
from ref_engine.cli.presets import preset_of
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.cli.session import Message, Session, Settings

_CONTINUATION = 256  # tokens of a continuation, which seldom ends by itself
_PATIENCE = 2.0  # seconds before saying that standard input is being waited for


@click.command()
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--system", metavar="TEXT", help='System prompt, instead of the template\'s own; "": an empty one.')
@click.option("--temperature", type=float, metavar="X", help="0: always the likeliest token (0.8).")
@click.option("--top-k", type=int, metavar="N", help="Choose among the N likeliest; 0: all (40).")
@click.option("--top-p", type=float, metavar="X", help="Choose among the likeliest that together have X (0.95).")
@click.option("--min-p", type=float, metavar="X", help="Leave out what is less likely than X times the best (0.05).")
@click.option("--seed", type=int, metavar="N", help="Repeatable answers.")
@click.option("--max-tokens", type=click.IntRange(min=0), metavar="N", help="Length of an answer at most.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated.")
@click.option(
    "--json-schema",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="The answer is JSON that meets this schema.",
)
@click.option(
    "--grammar",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="The answer obeys a grammar: GBNF (with a rule `root`), or Lark (with `start`) in a file called .lark.",
)
@click.option("--raw", is_flag=True, help="No chat template: continue the prompt as it is.")
@engine_options
@click.option("-v", "--verbose", is_flag=True, help="Timings on stderr.")
@json_option
def run(
    model: str,
    prompt: tuple[str, ...],
    system: str | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None,
    max_tokens: int | None,
    stop: tuple[str, ...],
    json_schema: TextIO | None,
    grammar: TextIO | None,
    raw: bool,
    verbose: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Answer PROMPT and exit, or chat.

    Several words of PROMPT are joined by spaces. What is piped in comes before them. Without either, on a terminal,
    a chat begins; /? lists its commands.

    The prompt goes through the chat template of the model. A model without one, or --raw, continues the text as it
    is, for 256 tokens unless --max-tokens says otherwise. A model of the built-in catalog that is not in the store
    is pulled first. Options that are not given come from the model's Modelfile, if it came with one; `smollm2` has
    temperature 0.2, top_p 0.9 and an empty system prompt.
    """
    from ref_engine.cli.chat import Chat, timings
    from ref_engine.cli.grammar import read_grammar
    from ref_engine.cli.session import Session

    text = _prompt(prompt)
    if text is None and as_json:
        raise click.UsageError("--json needs a PROMPT")
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    if json_schema is not None and grammar is not None:
        raise click.UsageError("give either --json-schema or --grammar")
    given: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}
    path, settings, messages = _model(model)
    settings = replace(
        settings,
        params=replace(settings.params, **given),
        stop=stop or settings.stop,
        max_tokens=max_tokens if max_tokens is not None else settings.max_tokens,
        system=clean(system) if system is not None else settings.system,
    )
    began = time.perf_counter()
    session = Session(load_model(path, **engine), raw=raw)
    session.grammar = read_grammar(json_schema, grammar, session.model.tokenizer)
    load_s = time.perf_counter() - began
    if session.template is None:
        if system is not None:
            raise click.UsageError("--system needs a chat template")
        if settings.max_tokens is None:
            settings = replace(settings, max_tokens=_CONTINUATION)
    if verbose:
        print(f"load    {load_s:.2f} s", file=sys.stderr)
    if text is None:
        Chat(session, settings, verbose=verbose, messages=messages).loop()
    else:
        _answer(session, text, settings, messages, as_json)
        if verbose:
            print(timings(session), file=sys.stderr)
        if report := expert_cache_report(session.model):
            print(report, file=sys.stderr)


def _prompt(words: tuple[str, ...]) -> str | None:
    """The prompt of the command line with what is piped in before it; None for a chat.

    One line break at the end of piped text is dropped where nothing follows it: `echo` puts it there.
    """
    prompt = clean(" ".join(words))
    if sys.stdin is None or sys.stdin.isatty():
        return prompt if words else None
    _wait_for_stdin()
    piped = read_stdin()
    if not words:
        if not piped:
            raise click.UsageError("no prompt: give one, pipe one in, or run this on a terminal to chat")
        return piped.removesuffix("\n").removesuffix("\r")
    return f"{piped} {prompt}" if piped else prompt


def _wait_for_stdin() -> None:
    """Say so where a pipe that nobody writes to keeps the command from starting."""
    try:
        number = sys.stdin.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError):  # not a stream of the system, as in tests
        return
    if (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and sys.platform != "win32":
        if not select.select([number], [], [], _PATIENCE)[0]:
            print("ref-engine: reading standard input (< /dev/null to go without)", file=sys.stderr)


def _model(model: str) -> tuple[Path, Settings, list[Message]]:
    """The model's file, and what it brings along from a store: parameters, a system prompt, first messages."""
    from ref_engine.cli.session import Settings
    from ref_engine.cli.slash import from_model
    from ref_engine.library import Store
    from ref_engine.library.layout import is_path

    path = find_model(model, fetch=True)
    preset = preset_of(path)
    settings = Settings()
    if preset is not None:
        settings = replace(from_model(settings, preset.parameters), system=preset.system)
    if is_path(model):
        return path, settings, []
    info = Store().show(model)
    settings = from_model(settings, info.parameters)
    if info.system is not None:
        settings = replace(settings, system=info.system)
    return path, settings, [dict(message) for message in info.messages]


def _answer(
    session: Session,
    text: str,
    settings: Settings,
    messages: list[Message],
    as_json: bool,
) -> None:
    """One answer on stdout, as text while it comes or as one JSON object."""
    from ref_engine.cli.session import system_message

    if session.template is None:
        ids = session.model.tokenize(text)
    else:
        ids = session.chat_ids([*system_message(settings), *messages, {"role": "user", "content": text}])
    with progress("tokens", lines=False, quiet=as_json) as bar:
        events = session.answer(ids, settings, bar)
    answer = ""
    for event in events:
        answer += event.text
        if not as_json:
            write(event.text)
    if as_json:
        emit_json(
            {
                "text": answer,
                "finish_reason": event.finish_reason,
                "stop_sequence": event.stop_sequence,
                "seed": session.seed,
                "timing": asdict(session.timing),
            }
        )
    elif not answer.endswith("\n"):
        say()
