"""How the tests call commands: in this process, or in one of their own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

ROOT = Path(__file__).parents[2]
Invoke = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command that is run from the source tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}
