"""Write api.json: what the installed CuPy has, so that the stand-in has no more. Needs CuPy, not a device.

    python tests/gpu/standin/make_api.py

functions: name -> parameters; ufuncs: name -> number of inputs, of outputs, and the loops by type letters; methods of
arrays: name -> parameters, as the compiled module documents them, or null for an attribute.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import cupy


def parameters(signature: str) -> str:
    """`(self, int axis=-1, kind=None) -> x` -> `(axis=-1, kind=None)`: without self, types and result."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    parts = [re.sub(r"^(\**)(?:\w+ )?(\w+)", r"\1\2", part.strip()) for part in inside.split(", ")]
    return f"({', '.join(part for part in parts if part not in ('', 'self'))})"


def bare(function: Any) -> str:
    """A Python function's parameters without their types."""
    known = inspect.signature(function)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in known.parameters.values()]
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", str(inspect.Signature(plain)))


def main() -> None:
    api: dict[str, dict[str, Any]] = {"functions": {}, "ufuncs": {}, "methods": {}}
    for name in dir(cupy):
        made = getattr(cupy, name)
        if name.startswith("_") or isinstance(made, type):
            continue
        if isinstance(made, cupy.ufunc):
            api["ufuncs"][name] = {"nin": made.nin, "nout": made.nout, "loops": list(made.types)}
        elif callable(made):
            try:
                api["functions"][name] = bare(made)
            except ValueError:
                continue  # compiled without a signature: none that we use
    for name in dir(cupy.ndarray):
        made = getattr(cupy.ndarray, name)
        if name.startswith("_"):
            continue
        first = (made.__doc__ or "").partition("\n")[0].strip()
        if not callable(made):
            api["methods"][name] = None
        elif "(" in first and name in first:
            api["methods"][name] = parameters(first.partition(" -> ")[0])
        else:
            api["methods"][name] = parameters(str(inspect.signature(made)))
    lines = []
    for kind, names in api.items():
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(names.items()))
        lines.append(f" {json.dumps(kind)}: {{\n{rows}\n }}")
    text = f'{{\n "version": {json.dumps(cupy.__version__)},\n' + ",\n".join(lines) + "\n}\n"
    Path(__file__).with_name("api.json").write_text(text)


if __name__ == "__main__":
    main()
