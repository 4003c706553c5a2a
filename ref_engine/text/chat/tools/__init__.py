"""Tools and thinking: how a model is told of tools, and how its calls and its thinking are found in what it writes.

format.py     ToolFormat: all that depends on the model, chosen from its template
formats.py    the table of formats            parser.py, channels.py   an answer taken apart as it comes
json_calls.py, header_calls.py, xml_calls.py, pythonic_calls.py, recipient_calls.py   the ways to write a call
render.py     conversations with tools, for templates that know tools and for those that do not
"""

from ref_engine.text.chat.tools.format import AnswerParser, ToolFormat, choose_format
from ref_engine.text.chat.tools.formats import ThinkingTags
from ref_engine.text.chat.tools.parts import (
    Call,
    CallArguments,
    CallEnd,
    CallStart,
    Part,
    Text,
    Thinking,
    Tool,
)

__all__ = [
    "AnswerParser",
    "Call",
    "CallArguments",
    "CallEnd",
    "CallStart",
    "Part",
    "Text",
    "Thinking",
    "ThinkingTags",
    "Tool",
    "ToolFormat",
    "choose_format",
]
