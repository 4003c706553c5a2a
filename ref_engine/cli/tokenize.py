"""ref-engine tokenize"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ref_engine.cli.options import find_model, json_option, parse_ids
from ref_engine.cli.output import clean, emit_json, piece, read_stdin, say, shown, table

if TYPE_CHECKING:
    from ref_engine.text.tokenizer import Tokenizer

_KINDS = ("undefined", "normal", "unknown", "control", "user defined", "unused", "byte")  # tokenizer.ggml.token_type


@click.command()
@click.argument("model")
@click.argument("text", required=False)
@click.option("--ids", "only_ids", is_flag=True, help="Only the ids, on one line.")
@click.option("--no-special", is_flag=True, help="Do not put BOS and the like around the text.")
@click.option("--no-parse-special", is_flag=True, help="Text such as <s> is text, not a control token.")
@click.option("--decode", metavar="IDS", help="The other way: print the text of token ids such as 1,2,3.")
@json_option
def tokenize(
    model: str,
    text: str | None,
    only_ids: bool,
    no_special: bool,
    no_parse_special: bool,
    decode: str | None,
    as_json: bool,
) -> None:
    """Show the tokens of TEXT, or of standard input where TEXT is "-".

    MODEL may also be a file that holds only a vocabulary.
    """
    if (text is None) == (decode is None):
        raise click.UsageError("give TEXT, - for standard input, or --decode IDS")
    from ref_engine.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(find_model(model))
    if decode is not None:
        _print_text(tokenizer, parse_ids(decode), as_json)
        return
    content = read_stdin() if text == "-" else clean(text or "")
    ids = tokenizer.encode(content, add_special=not no_special, parse_special=not no_parse_special)
    if as_json:
        emit_json({"ids": ids, "tokens": [token_json(tokenizer, id) for id in ids]})
    elif only_ids:
        say(",".join(map(str, ids)))
    else:
        rows = [(str(id), piece(tokenizer.token_bytes(id)), _kind(tokenizer, id)) for id in ids]
        table(("ID", "PIECE", "KIND"), rows, right=(0,))


def _print_text(tokenizer: Tokenizer, ids: list[int], as_json: bool) -> None:
    text = tokenizer.decode(ids)
    if as_json:
        emit_json({"ids": ids, "text": text})
    else:
        say(shown(text))


def token_json(tokenizer: Tokenizer, id: int) -> dict[str, object]:
    """A token as JSON; `bytes` in hex, `text` null where they are no whole UTF-8 characters."""
    spelling = tokenizer.token_bytes(id)
    try:
        text: str | None = spelling.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {"id": id, "text": text, "bytes": spelling.hex(), "kind": _kind(tokenizer, id)}


def _kind(tokenizer: Tokenizer, id: int) -> str:
    number = tokenizer.vocab.types[id]
    return _KINDS[number] if 0 <= number < len(_KINDS) else f"type {number}"
