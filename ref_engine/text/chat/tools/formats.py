"""Which way a model writes thinking and calls: known from what its chat template has in it.

Sources: the chat templates themselves, which write the calls of earlier turns as the model has been trained to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ref_engine.text.chat.tools.header_calls import NAME, HeaderCalls
from ref_engine.text.chat.tools.json_calls import JsonCalls
from ref_engine.text.chat.tools.pythonic_calls import PythonicCalls
from ref_engine.text.chat.tools.recipient_calls import RecipientCalls
from ref_engine.text.chat.tools.session import Syntax
from ref_engine.text.chat.tools.xml_calls import XmlCalls


@dataclass(frozen=True)
class ThinkingTags:
    """begin    opens thinking, unless the prompt has done so
    end      closes it
    after    what usually stands between it and the answer
    """

    begin: str
    end: str
    after: str = "\n\n"


# -- thinking ---------------------------------------------------------------------------------------------------

THINK = ThinkingTags("<think>", "</think>")
CHANNELS = ThinkingTags("<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant<|channel|>final<|message|>")
THINKING = (
    THINK,
    ThinkingTags("[THINK]", "[/THINK]", ""),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>", ""),
    ThinkingTags("<seed:think>", "</seed:think>", ""),
    ThinkingTags("<think:opensource>", "</think:opensource>", ""),
    ThinkingTags("<|inner_prefix|>", "<|inner_suffix|>", ""),
    ThinkingTags("<mm:think>", "</mm:think>", ""),
    ThinkingTags("◁think▷", "◁/think▷", ""),
    ThinkingTags("<thought>", "</thought>", ""),
    ThinkingTags("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", "\n"),
)

# -- calls ------------------------------------------------------------------------------------------------------

HERMES = JsonCalls("<tool_call>\n", "\n</tool_call>")
QWEN_XML = XmlCalls(
    "<function=",
    ">\n",
    "<parameter=",
    ">\n",
    "\n</parameter>\n",
    "</function>",
    section=("<tool_call>\n", "\n</tool_call>"),
    pad="\n",
)
SEED = XmlCalls(
    "<function=",
    ">\n",
    "<parameter=",
    ">",
    "</parameter>\n",
    "</function>",
    section=("<seed:tool_call>\n", "\n</seed:tool_call>"),
)
GLM = XmlCalls("<tool_call>", "\n", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", "</tool_call>")
GLM_DENSE = XmlCalls("<tool_call>", "", "<arg_key>", "</arg_key><arg_value>", "</arg_value>", "</tool_call>", joint="")
HUNYUAN = XmlCalls(
    "<tool_call:opensource>",
    "<tool_sep:opensource>\n",
    "<arg_key:opensource>",
    "</arg_key:opensource>\n<arg_value:opensource>",
    "</arg_value:opensource>\n",
    "</tool_call:opensource>",
    section=("<tool_calls:opensource>\n", "\n</tool_calls:opensource>"),
    each=False,
)
MINIMAX = XmlCalls(
    '<invoke name="',
    '">\n',
    '<parameter name="',
    '">',
    "</parameter>\n",
    "</invoke>",
    section=("<minimax:tool_call>\n", "\n</minimax:tool_call>"),
    each=False,
)
DSML = XmlCalls(
    '<｜DSML｜invoke name="',
    '">\n',
    '<｜DSML｜parameter name="',
    '">',
    "</｜DSML｜parameter>\n",
    "</｜DSML｜invoke>",
    section=("<｜DSML｜function_calls>\n", "\n</｜DSML｜function_calls>"),
    each=False,
    typed=('" string="true">', '" string="false">'),
)
MINICPM = XmlCalls('<function name="', '">', '<param name="', '">', "</param>", "</function>")
DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
DEEPSEEK_R1 = HeaderCalls(
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    "\n```json\n",
    "\n```<｜tool▁call▁end｜>",
    section=DEEPSEEK_SECTION,
    joint="\n",
    trigger="<｜tool▁call▁begin｜>",
    split=("\n", "```json", "{"),
    pattern=rf"\s*(?:function)?(?:<｜tool▁sep｜>)?({NAME})\s*",
)
DEEPSEEK_V3 = HeaderCalls("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", section=DEEPSEEK_SECTION)
KIMI = HeaderCalls(
    "<|tool_call_begin|>functions.",
    ":{i}<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    trigger="<|tool_call_begin|>",
    split=("<|tool_call_argument_begin|>",),
    pattern=r"\s*(?:functions\.)?([^\s<>\[\]{}|\":]+)(?::\d+)?\s*",
)
MISTRAL = HeaderCalls("[TOOL_CALLS]", "[ARGS]", "", pattern=rf"\s*({NAME})\s*(?:\[CALL_ID\][^\[\]]*)?")
MISTRAL_IDS = replace(MISTRAL, middle="[CALL_ID]{i}[ARGS]", split=("[ARGS]",), counter="[a-zA-Z0-9]{9}")
SOLAR = HeaderCalls(
    "<|tool_call:begin|>{i}<|tool_call:name|>",
    "<|tool_call:args|>",
    "<|tool_call:end|>",
    section=("<|tool_calls|>", ""),
    trigger="<|tool_call:begin|>",
    pattern=rf"[^<>|]*<\|tool_call:name\|>({NAME})",
    counter="[a-zA-Z0-9]{1,16}",
)
FUNCTION_TAG = HeaderCalls("<function=", ">", "</function>")
LLAMA = JsonCalls("", "", arguments_key="parameters", bare=True, others=("<|python_tag|>",))
MISTRAL_NEMO = JsonCalls("[TOOL_CALLS]", "", array=True)
FIREFUNCTION = JsonCalls(" functools", "", array=True)
COMMAND_R7B = JsonCalls(
    "<|START_ACTION|>", "<|END_ACTION|>", array=True, name_key="tool_name", arguments_key="parameters"
)
COMMAND_R = JsonCalls(
    "Action: ```json\n", "\n```", array=True, name_key="tool_name", arguments_key="parameters", others=("Action:",)
)
LFM2 = PythonicCalls("<|tool_call_start|>", "<|tool_call_end|>")

# The first row whose texts are all in the template decides: special tags before common ones.
CALLS: tuple[tuple[str, tuple[str, ...], Syntax], ...] = (
    ("harmony", ("<|channel|>", "commentary", "functions."), JsonCalls("", "")),
    ("deepseek-dsml", ("｜DSML｜", "function_calls"), DSML),
    (
        "deepseek-dsml-4",
        ("｜DSML｜", "tool_calls"),
        replace(DSML, section=("<｜DSML｜tool_calls>\n", "\n</｜DSML｜tool_calls>")),
    ),
    ("deepseek-r1", ("<｜tool▁calls▁begin｜>", "```json"), DEEPSEEK_R1),
    ("deepseek-v3", ("<｜tool▁calls▁begin｜>",), DEEPSEEK_V3),
    ("kimi-k2", ("<|tool_calls_section_begin|>",), KIMI),
    ("solar", ("<|tool_call:begin|>", "<|tool_call:args|>"), SOLAR),
    ("hunyuan", ("<tool_call:opensource>", "<arg_key:opensource>"), HUNYUAN),
    ("hunyuan", ("<tool_call{}>", "<arg_key{}>"), HUNYUAN),
    ("minimax-xml", ("minimax:tool_call", "<invoke name="), MINIMAX),
    ("generic", ("]<]minimax[>[",), HERMES),  # MiniMax M3 has a tag for every argument: not known here
    ("minimax-m1", ("MiniMax", "<tool_calls>"), JsonCalls("<tool_calls>\n", "\n</tool_calls>", joint="\n")),
    ("minicpm-xml", ('<function name="', '<param name="'), MINICPM),
    ("seed-oss", ("<seed:tool_call>",), SEED),
    ("qwen3-coder", ("<function=", "<parameter=", "<tool_call>"), QWEN_XML),
    ("glm-dense", ("</arg_key><arg_value>",), GLM_DENSE),
    ("glm-dense", ('"</arg_key>" -}}', "<arg_value>"), GLM_DENSE),
    ("glm", ("<arg_key>", "<arg_value>"), GLM),
    ("mistral-ids", ("[TOOL_CALLS]", "[CALL_ID]"), MISTRAL_IDS),
    ("mistral", ("[TOOL_CALLS]", "[ARGS]"), MISTRAL),
    ("mistral-nemo", ("[TOOL_CALLS]",), MISTRAL_NEMO),
    ("command-r7b", ("<|START_ACTION|>",), COMMAND_R7B),
    ("command-r-json", ("Action: ```json", "tool_name"), COMMAND_R),
    ("command-r-json", ("Action:", "tool_name"), COMMAND_R),
    ("apertus", ("<|tools_prefix|>",), JsonCalls("<|tools_prefix|>", "<|tools_suffix|>", array=True, keyed=True)),
    ("functionary-3.2", (">>>", "recipient"), RecipientCalls()),
    ("functionary-3.1", ("<function=", "</function>"), FUNCTION_TAG),
    ("firefunction", ("functools[",), FIREFUNCTION),
    ("nemotron-json", ("<TOOLCALL>",), JsonCalls("<TOOLCALL>", "</TOOLCALL>", array=True)),
    ("lfm2-python", ("<|tool_call_start|>",), LFM2),
    ("lfm2-python", ("<|tool_list_start|>",), LFM2),
    ("gigachat", ("<|function_call|>",), JsonCalls("<|function_call|>", "")),
    ("gigachat", ("<|role_sep|>", "function call"), JsonCalls("<|message_sep|>\n\nfunction call<|role_sep|>\n", "")),
    ("granite-3", ("<|tool_call|>",), JsonCalls("<|tool_call|>", "", array=True)),
    ("apriel", ("<tool_calls>[",), JsonCalls("<tool_calls>", "</tool_calls>", array=True)),
    ("hermes", ("<tool_call>",), replace(HERMES, others=("<tool_call>",))),
    ("apriel", ("<tool_calls>",), JsonCalls("<tool_calls>", "</tool_calls>", array=True)),
    ("llama-3", ("<|python_tag|>",), LLAMA),
    ("llama-pythonic", ("[func_name1(",), PythonicCalls(bare=True)),
    ("llama-3", ('{"name": function name, "parameters":',), LLAMA),
)
GENERIC: tuple[str, Syntax] = ("generic", HERMES)


def syntax_of(source: str) -> tuple[str, Syntax]:
    """Name and syntax of the calls that a template writes; the generic one where it writes none that is known."""
    for name, marks, syntax in CALLS:
        if all(mark in source for mark in marks):
            return name, syntax
    return GENERIC


def thinking_of(source: str, tokens: Sequence[str] = ()) -> ThinkingTags | None:
    """The tags of thinking that a template, or else the vocabulary, knows."""
    if CHANNELS.begin.partition("analysis")[0] in source and "analysis" in source:
        return CHANNELS
    for tags in THINKING:
        if tags.begin in source or tags.end in source:
            return tags
    known = set(tokens)
    return next((tags for tags in THINKING if tags.begin in known and tags.end in known), None)
