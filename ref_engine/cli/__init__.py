"""The command `ref-engine`: one file per command, each over what the rest of the package does.

root.py     the group of commands, errors to exit statuses     options.py     what several commands accept
output.py   tables, JSON, text that a terminal can take        progress.py    bars, lines or silence on stderr
session.py  one conversation: prompts, cache, prefix reuse     chat.py        the loop on a terminal
slash.py    its /commands                                      machine.py     how much memory there is

Modules of this folder import NumPy, the engine and the library inside their functions, so that `--help` is quick.
"""

from ref_engine.cli.root import main

__all__ = ["main"]
