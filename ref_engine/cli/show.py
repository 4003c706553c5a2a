"""ref-engine show"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ref_engine.cli.options import json_option
from ref_engine.cli.output import emit_json, one_line, say, shown, size, table

if TYPE_CHECKING:
    from ref_engine.library import ModelInfo

_LONG = 16  # an array longer than this is not printed in full


@click.command()
@click.argument("model")
@click.option("--template", "part", flag_value="template", help="Only the chat template.")
@click.option("--system", "part", flag_value="system", help="Only the system prompt.")
@click.option("--parameters", "part", flag_value="parameters", help="Only the sampling parameters.")
@click.option("--license", "part", flag_value="license", help="Only the licence.")
@click.option("--modelfile", "part", flag_value="modelfile", help="All of these as an Ollama Modelfile.")
@click.option("--all", "whole", is_flag=True, help="Arrays of the metadata in full.")
@json_option
def show(model: str, part: str | None, whole: bool, as_json: bool) -> None:
    """Show what a model is: architecture, sizes, template, licence, metadata."""
    from ref_engine.library import Store

    info = Store().show(model)
    if as_json:
        emit_json(_json(info, whole))
    elif part is not None:
        text = {
            "template": _template(info) or "",
            "system": info.system or "",
            "parameters": "\n".join(_parameters(info)),
            "license": _license(info),
            "modelfile": modelfile(info),
        }[part]
        say(shown(text.removesuffix("\n")))
    else:
        _print(info, whole)


def _print(info: ModelInfo, whole: bool) -> None:
    facts = info.facts
    rows = [("architecture", facts.family), ("parameters", facts.parameters), ("type", facts.quantisation)]
    rows += [("size", size(info.size)), ("file", str(info.path))]
    rows += [("system", info.system)] if info.system else []
    rows += [("parameter", line) for line in _parameters(info)]
    rows += [("licence", _license(info)[:100])] if _license(info) else []
    table((one_line(info.name), ""), rows)
    say()
    table(("METADATA", "VALUE"), [(key, _brief(value, whole)) for key, value in info.metadata.items()])


def _template(info: ModelInfo) -> str | None:
    """The GGUF file's Jinja template, which the engine uses; else the manifest's, in Ollama's own language."""
    value = info.metadata.get("tokenizer.chat_template")
    return value if isinstance(value, str) else info.template


def _license(info: ModelInfo) -> str:
    if info.licenses:
        return "\n".join(info.licenses)
    return str(info.metadata.get("general.license", ""))


def _parameters(info: ModelInfo) -> list[str]:
    """`name value`, one line for each value of a list."""
    lines = []
    for name, value in info.parameters.items():
        for item in value if isinstance(value, list) else [value]:
            lines.append(f"{name} {_quoted(item) if isinstance(item, str) else item}")
    return lines


def modelfile(info: ModelInfo) -> str:
    """The model as an Ollama Modelfile. The template is left out where it is the file's own: FROM brings it."""
    lines = [f"FROM {info.path}"]
    if info.template is not None:
        lines.append(f"TEMPLATE {_quoted(info.template)}")
    if info.system is not None:
        lines.append(f"SYSTEM {_quoted(info.system)}")
    lines += [f"PARAMETER {line}" for line in _parameters(info)]
    lines += [f"MESSAGE {m.get('role')} {_quoted(str(m.get('content')))}" for m in info.messages]
    lines += [f"LICENSE {_quoted(text)}" for text in info.licenses]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """In the quotes of a Modelfile: three where the text has quotes or lines of its own."""
    return f'"""{text}"""' if "\n" in text or '"' in text else f'"{text}"'


def _brief(value: object, whole: bool) -> str:
    if not isinstance(value, str) and hasattr(value, "__len__") and len(value) > _LONG and not whole:
        return f"({len(value)} items)"
    text = str(value.tolist()) if hasattr(value, "tolist") else str(value)
    return text if whole or len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _json(info: ModelInfo, whole: bool) -> dict[str, object]:
    def kept(value: object) -> object:
        long = not isinstance(value, str) and hasattr(value, "__len__") and len(value) > _LONG
        return None if long and not whole else value

    return {
        "name": info.name,
        "path": str(info.path),
        "size": info.size,
        **asdict(info.facts),
        "template": _template(info),
        "system": info.system,
        "model_parameters": info.parameters,
        "messages": info.messages,
        "license": _license(info) or None,
        "metadata": {key: kept(value) for key, value in info.metadata.items()},
    }
