"""The prompt of a command that looks into a model: text, token ids, or a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ref_engine.cli.options import parse_ids
from ref_engine.cli.output import clean, read_text

if TYPE_CHECKING:
    from ref_engine.model import Model

F = TypeVar("F", bound=Callable[..., Any])


def prompt_options(command: F) -> F:
    """--prompt, --tokens, --file: arguments of `prompt_ids`."""
    for option in (
        click.option("-f", "--file", metavar="FILE", help='Text to run, from a file ("-": standard input).'),
        click.option("--tokens", metavar="IDS", help="Token ids to run instead, such as 1,2,3."),
        click.option("-p", "--prompt", metavar="TEXT", help="Text to run."),
    ):
        command = option(command)
    return command


def given(prompt: str | None, tokens: str | None, file: str | None) -> bool:
    """Whether there is a prompt. Raises UsageError for more than one."""
    n = sum(x is not None for x in (prompt, tokens, file))
    if n > 1:
        raise click.UsageError("give one of --prompt TEXT, --tokens IDS and --file FILE")
    return n == 1


def prompt_ids(model: Model, prompt: str | None, tokens: str | None, file: str | None) -> list[int]:
    """The ids to run. Raises UsageError unless there is one prompt, RefEngineError for ids that cannot be run."""
    if not given(prompt, tokens, file):
        raise click.UsageError("give one of --prompt TEXT, --tokens IDS and --file FILE")
    if tokens is not None:
        return checked(model, parse_ids(tokens))
    return checked(model, model.tokenize(clean(prompt or "") if file is None else read_text(file)))


def checked(model: Model, ids: list[int]) -> list[int]:
    """Ids that this model can run in one sequence."""
    from ref_engine.errors import ContextFull, RefEngineError

    if not ids:
        raise RefEngineError("the prompt is empty: there is no token to run")
    model.checked_ids(ids)
    if len(ids) > model.spec.n_ctx_most:
        raise ContextFull(f"{len(ids)} tokens do not fit in a context of {model.spec.n_ctx_most}; --n-ctx raises that")
    return ids
