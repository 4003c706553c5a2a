"""The group of commands, and what each kind of error means for the exit status.

0  done
1  two computations part (compare), the reader of a pipe went away, or a defect of this program
2  bad input: an unknown option, a file that is not a model, a name that is not known; one line says what
130  interrupted by Ctrl-C
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from ref_engine.cli.bench import bench
from ref_engine.cli.compare import compare
from ref_engine.cli.convert import convert
from ref_engine.cli.cp import cp
from ref_engine.cli.create import create
from ref_engine.cli.imatrix import imatrix
from ref_engine.cli.kl import kl
from ref_engine.cli.list import list_models
from ref_engine.cli.logits import logits
from ref_engine.cli.output import one_line, ready_streams, say
from ref_engine.cli.perplexity import perplexity
from ref_engine.cli.plan import plan
from ref_engine.cli.ps import ps
from ref_engine.cli.pull import pull
from ref_engine.cli.quantize import quantize
from ref_engine.cli.quantize_report import quantize_report
from ref_engine.cli.rm import rm
from ref_engine.cli.run import run
from ref_engine.cli.serve import serve
from ref_engine.cli.show import show
from ref_engine.cli.stop import stop
from ref_engine.cli.tokenize import tokenize
from ref_engine.cli.trace import trace
from ref_engine.cli.verify import verify
from ref_engine.errors import RefEngineError
from ref_engine.version import __version__


class Root(click.Group):
    """A group that prints every error as one line. With REF_ENGINE_DEBUG=1 the traceback is shown as well."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        call = super().main
        if not standalone_mode:
            return call(args, prog_name, complete_var, standalone_mode=False, **extra)
        ready_streams()
        sys.exit(status_of(lambda: call(args, prog_name, complete_var, standalone_mode=False, **extra)))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order below, not by the alphabet


def status_of(command: Callable[[], object]) -> int:
    """Run a command, print its error if there is one, and return the exit status."""
    debug = os.environ.get("REF_ENGINE_DEBUG", "") not in ("", "0")
    try:
        result = command()
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except (RefEngineError, click.ClickException, OSError) as error:
        if debug:
            raise
        _print_error(f"error: {_message(error)}")
        return 2
    except Exception as error:
        if debug:
            raise
        _print_error(f"internal error: {type(error).__name__}: {error}; REF_ENGINE_DEBUG=1 shows where")
        return 1
    except SystemExit as stop:  # click's own way of leaving when a pipe's reader has gone
        return stop.code if isinstance(stop.code, int) else 1
    return result if isinstance(result, int) else 0


def _message(error: Exception) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()} (see {error.ctx.command_path} --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def _print_error(text: str) -> None:
    print(f"ref-engine: {one_line(text)}", file=sys.stderr)


def _reader_gone() -> int:
    """Leave quietly: what is still buffered goes nowhere, so that the interpreter does not complain at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return 1


@click.group(
    cls=Root,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="ref-engine", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run GGUF models, and look at what they are made of.

    MODEL is a name that `ref-engine list` shows or a path to a .gguf file.
    """
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())


for _command in (
    run,
    serve,
    pull,
    list_models,
    show,
    cp,
    rm,
    create,
    ps,
    stop,
    tokenize,
    logits,
    perplexity,
    trace,
    compare,
    kl,
    verify,
    plan,
    convert,
    quantize,
    quantize_report,
    imatrix,
    bench,
):
    main.add_command(_command)
