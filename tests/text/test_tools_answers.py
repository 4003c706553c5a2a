# ruff: noqa: E501  (transcripts stay in one line where they are)
"""Answers as the documentation of each model shows them, taken apart, in any pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from tool_answers import PING, WEATHER, Answer, Tool, read, read_every_way, schema

from ref_engine.text.chat.tools import Call, CallArguments, CallEnd, CallStart, Text, ToolFormat, choose_format
from ref_engine.text.chat.tools.formats import CALLS

# Enough of each template to choose its format by; the templates themselves are in test_tools_templates.py.
TEMPLATES = {
    "hermes": "<tools> <tool_call> {{ tool | tojson }} </tool_call>",
    "qwen3": "<tool_call></tool_call> <think> </think>",
    "qwen3-coder": "<tool_call> <function=example> <parameter=x> </parameter> <think></think>",
    "llama-3": "<|python_tag|> builtin_tools",
    "llama-pythonic": "in the format [func_name1(params_name1=params_value1)]",
    "nemo": "[TOOL_CALLS] [AVAILABLE_TOOLS]",
    "mistral": "[TOOL_CALLS] [ARGS] [THINK]",
    "mistral-ids": "[TOOL_CALLS] [CALL_ID] [ARGS]",
    "deepseek-r1": "<｜tool▁calls▁begin｜> ```json </think>",
    "deepseek-v3.1": "<｜tool▁calls▁begin｜> </think>",
    "deepseek-v3.2": "｜DSML｜ function_calls </think>",
    "glm": "<tool_call>{name} <arg_key> <arg_value> <think></think>",
    "kimi": "<|tool_calls_section_begin|> <think></think>",
    "granite-3": "<|tool_call|> <think></think><response></response>",
    "gpt-oss": "<|channel|>analysis commentary functions.",
    "minimax": '<minimax:tool_call> <invoke name="x"> <think>',
    "functionary-3.1": "<function=example_function_name> </function>",
    "functionary-3.2": ">>>${recipient}",
    "firefunction": "functools[",
    "command-r7b": "<|START_ACTION|> <|START_THINKING|>",
    "apertus": "<|tools_prefix|> <|inner_prefix|>",
    "nemotron-json": "<TOOLCALL> <think>",
    "lfm2-python": "<|tool_call_start|>",
    "seed": "<seed:tool_call> <seed:think>",
    "none": "{{ messages }}",
}

STOCKS = Tool("get_stock_fundamentals", schema(["symbol"], symbol="string"))
RUN = Tool("write_file", schema(["path", "content"], path="string", content="string", mode="integer", force="boolean"))
TOOLS = (WEATHER, PING, STOCKS, RUN)


@dataclass(frozen=True)
class Case:
    template: str
    answer: str
    expected: Answer
    prompt: str = ""


PARIS = ("get_weather", {"city": "Paris"})
CASES = [
    # https://github.com/NousResearch/Hermes-Function-Calling: the arguments come before the name
    Case(
        "hermes",
        '<tool_call>\n{"arguments": {"symbol": "TSLA"}, "name": "get_stock_fundamentals"}\n</tool_call>',
        Answer(calls=(("get_stock_fundamentals", {"symbol": "TSLA"}),)),
    ),
    Case(
        "hermes",
        'I will look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>\n',
        Answer("I will look.", calls=(PARIS, ("ping", {}))),
    ),
    # https://qwen.readthedocs.io/en/latest/framework/function_call.html
    Case(
        "qwen3",
        "<think>\nThe user asks for {weather}.\n\nSo <tool_call> it is.\n</think>\n\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "\\u00e9\\"}\\\\", "days": 2}}\n</tool_call>',
        Answer(
            thinking="The user asks for {weather}.\n\nSo <tool_call> it is.",
            calls=(("get_weather", {"city": 'é"}\\', "days": 2}),),
        ),
    ),
    Case("qwen3", "<think>\n\n</think>\n\nHello!\n", Answer("Hello!\n")),
    Case(
        "qwen3",
        "it is late.\n</think>\n\nGood night.",
        Answer("Good night.", "it is late."),
        "<|im_start|>assistant\n<think>\n",
    ),
    Case("qwen3", "Hi.", Answer("Hi."), "assistant\n<think>\n\n</think>\n\n"),
    Case("qwen3", "never closed", Answer(thinking="never closed"), "<think>\n"),
    Case("qwen3", "The tag <think> opens thinking.", Answer("The tag <think> opens thinking.")),
    # https://huggingface.co/Qwen/Qwen3-Coder-480B-A35B-Instruct, tool_parser: values are bare text
    Case(
        "qwen3-coder",
        "I'll write it.\n<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n<parameter=content>\n"
        'def f():\n    return "</p>" < 1\n\n</parameter>\n<parameter=mode>\n420\n</parameter>\n<parameter=force>\nTrue\n'
        "</parameter>\n</function>\n</tool_call>",
        Answer(
            "I'll write it.",
            calls=(
                (
                    "write_file",
                    {"path": "a.py", "content": 'def f():\n    return "</p>" < 1\n', "mode": 420, "force": True},
                ),
            ),
        ),
    ),
    Case(  # a text stays a text where the schema says so, and the wrapper may be missing
        "qwen3-coder",
        '<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=tags>\n["a", "b"]\n</parameter>\n'
        "</function>\n",
        Answer(calls=(("get_weather", {"city": "12", "tags": ["a", "b"]}),)),
    ),
    # https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1: a call is all of the answer
    Case("llama-3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', Answer(calls=(PARIS,))),
    Case("llama-3", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', Answer(calls=(PARIS,))),
    Case(
        "llama-3",
        '{"type": "function", "name": "ping", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Paris"}}',
        Answer(calls=(("ping", {}), PARIS)),
    ),
    Case("llama-3", '{"name": "Ada", "parameters": 3}', Answer('{"name": "Ada", "parameters": 3}')),
    Case("llama-3", '{"city": "Paris"}\n', Answer('{"city": "Paris"}\n')),
    Case("llama-3", '{"name": "pin', Answer('{"name": "pin')),
    # llama3_2: "[get_user_info(user_id=7890, special='black')]"
    Case(
        "llama-pythonic",
        "[get_weather(city='it\\'s [Paris]', days=-2, tags=[\"a\", 'b']), ping()]",
        Answer(calls=(("get_weather", {"city": "it's [Paris]", "days": -2, "tags": ["a", "b"]}), ("ping", {}))),
    ),
    Case("llama-pythonic", "[1, 2] is a list.", Answer("[1, 2] is a list.")),
    Case("llama-pythonic", "[rm(path='/')]", Answer("[rm(path='/')]")),
    Case("llama-pythonic", "[ping(x=__import__('os'))]", Answer("[ping(x=__import__('os'))]")),
    # https://docs.mistral.ai: a list with ids; from tokenizer v11 on the name, then the arguments
    Case(
        "nemo",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}, '
        '{"name": "ping", "arguments": {}, "id": "x00000000"}]',
        Answer(calls=(PARIS, ("ping", {}))),
    ),
    Case(
        "mistral",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]ping[ARGS]{}',
        Answer(calls=(PARIS, ("ping", {}))),
    ),
    Case("mistral", "[THINK]Hm, [TOOL] no.[/THINK]Hello [there]", Answer("Hello [there]", "Hm, [TOOL] no.")),
    Case("mistral-ids", '[TOOL_CALLS]get_weather[CALL_ID]VvvODy9mT[ARGS]{"city": "Paris"}', Answer(calls=(PARIS,))),
    # https://huggingface.co/deepseek-ai/DeepSeek-R1-0528 and DeepSeek-V3.1
    Case(
        "deepseek-r1",
        "They want the weather.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        Answer(thinking="They want the weather.", calls=(PARIS, ("ping", {}))),
        "<｜Assistant｜><think>\n",
    ),
    Case(
        "deepseek-v3.1",
        "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        Answer("Let me see.", calls=(PARIS, ("ping", {}))),
        "<｜Assistant｜></think>",
    ),
    Case(
        "deepseek-v3.2",
        'On it.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">'
        '42</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        Answer("On it.", calls=(("get_weather", {"city": "42", "days": 3}),)),
    ),
    # https://huggingface.co/zai-org/GLM-4.5
    Case(
        "glm",
        "\n<think>Weather, then.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>ping\n</tool_call>",
        Answer(thinking="Weather, then.", calls=(("get_weather", {"city": "Paris", "days": 3}), ("ping", {}))),
    ),
    # https://huggingface.co/moonshotai/Kimi-K2-Instruct/blob/main/docs/tool_call_guidance.md
    Case(
        "kimi",
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}'
        "<|tool_call_end|><|tool_call_begin|>functions.ping:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        Answer(calls=(PARIS, ("ping", {}))),
    ),
    Case(  # control tokens end thinking that nothing has closed
        "kimi",
        "<think>I need it now <|tool_calls_section_begin|><|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|>{}"
        "<|tool_call_end|><|tool_calls_section_end|>",
        Answer(thinking="I need it now", calls=(("ping", {}),)),
    ),
    # https://www.ibm.com/granite/docs
    Case("granite-3", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', Answer(calls=(PARIS,))),
    Case("granite-3", "<think>Two.</think>\n<response>2</response>", Answer("2", "Two.")),
    # https://developers.openai.com/cookbook/articles/openai-harmony
    Case(
        "gpt-oss",
        "<|channel|>analysis<|message|>Need to use get_weather.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city":"Paris"}<|call|>',
        Answer(thinking="Need to use get_weather.", calls=(PARIS,)),
        "<|start|>assistant",
    ),
    Case(
        "gpt-oss",
        "<|channel|>analysis<|message|>2 + 2 = 4.<|end|><|start|>assistant<|channel|>final<|message|>2 + 2 = 4.<|return|>",
        Answer("2 + 2 = 4.", "2 + 2 = 4."),
        "<|start|>assistant",
    ),
    Case(  # as its chat template has earlier calls, and a preamble before one
        "gpt-oss",
        "<|channel|>commentary<|message|>I will ask.<|end|><|start|>assistant to=functions.ping<|channel|>commentary json"
        "<|message|>{}<|call|>",
        Answer("I will ask.", calls=(("ping", {}),)),
        "<|start|>assistant",
    ),
    Case("gpt-oss", "Plain text.", Answer("Plain text."), "<|start|>assistant"),
    Case("gpt-oss", " 4.", Answer(" 4."), "<|start|>assistant<|channel|>final<|message|>"),
    # https://huggingface.co/MiniMaxAI/MiniMax-M2/blob/main/docs/tool_calling_guide.md
    Case(
        "minimax",
        'Both, please.\n</think>\n\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="tags">["technology", "events"]</parameter>\n</invoke>\n<invoke name="ping">\n</invoke>\n'
        "</minimax:tool_call>",
        Answer(
            thinking="Both, please.",
            calls=(("get_weather", {"city": "Paris", "tags": ["technology", "events"]}), ("ping", {})),
        ),
        "]~b]ai\n<think>\n",
    ),
    # https://github.com/MeetKai/functionary
    Case("functionary-3.1", '<function=get_weather>{"city": "Paris"}</function>', Answer(calls=(PARIS,))),
    Case(
        "functionary-3.2",
        'all\nLet me see.>>>get_weather\n{"city": "Paris"}>>>ping\n{}',
        Answer("Let me see.", calls=(PARIS, ("ping", {}))),
        "<|start_header_id|>assistant<|end_header_id|>\n\n>>>",
    ),
    Case("functionary-3.2", 'get_weather\n{"city": "Paris"}', Answer(calls=(PARIS,)), "\n\n>>>"),
    Case("firefunction", ' functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]', Answer(calls=(PARIS,))),
    # https://docs.cohere.com/docs/command-r7b-hf
    Case(
        "command-r7b",
        "<|START_THINKING|>I will look.<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
        Answer(thinking="I will look.", calls=(PARIS,)),
    ),
    Case(
        "apertus",
        '<|inner_prefix|>Hm.<|inner_suffix|><|tools_prefix|>[{"get_weather": {"city": "Paris"}}, {"ping": {}}]<|tools_suffix|>',
        Answer(thinking="Hm.", calls=(PARIS, ("ping", {}))),
    ),
    Case(
        "nemotron-json",
        '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</TOOLCALL>',
        Answer(calls=(PARIS,)),
    ),
    # https://docs.liquid.ai/lfm/key-concepts/tool-use
    Case(
        "lfm2-python",
        '<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>Asking.',
        Answer("Asking.", calls=(PARIS,)),
    ),
    Case(
        "seed",
        "<seed:think>Hm.</seed:think><seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "</function>\n</seed:tool_call>",
        Answer(thinking="Hm.", calls=(PARIS,)),
    ),
    # whatever is no call stays text, to the letter
    Case("none", "a < b, <tool, <tool_call> {x}", Answer("a < b, <tool, <tool_call> {x}")),
    Case("hermes", "<tool_call>\nnothing\n</tool_call>\n", Answer("<tool_call>\nnothing\n</tool_call>\n")),
    Case("hermes", '<tool_call>{"name": "pi', Answer('<tool_call>{"name": "pi')),
    Case("hermes", "  two spaces <tool_", Answer("  two spaces <tool_")),
    Case("hermes", '<tool_call>{"name": "ping", "arguments": null}</tool_call>', Answer(calls=(("ping", {}),))),
    Case("hermes", '<tool_call>{"name": "ping"}</tool_call> ok ', Answer("ok", calls=(("ping", {}),))),
    Case(  # arguments that are JSON in a string
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        Answer(calls=(PARIS,)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.template}-{case.answer[:30]!r}")
def test_an_answer_in_any_pieces(case: Case) -> None:
    format = choose_format(TEMPLATES[case.template])
    assert read_every_way(format, case.answer, TOOLS, case.prompt) == case.expected


@pytest.mark.parametrize("case", [case for case in CASES if case.expected.calls], ids=lambda case: case.template)
def test_without_tools_nothing_is_a_call(case: Case) -> None:
    format = choose_format(TEMPLATES[case.template])
    if format.on_channels:
        assert read(format, case.answer, (), case.prompt).calls == ()
    else:
        answer = read(format, case.answer, (), case.prompt)
        assert answer.calls == ()
        assert case.expected.calls[0][0] in answer.text + answer.thinking


@pytest.mark.parametrize(
    ("template", "answer", "error"),
    [
        ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "Par', "not complete"),
        ("hermes", '<tool_call>{"name": "get_weather", "arguments": {city: 1}}</tool_call>', "no JSON"),
        ("hermes", '<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>', "no object"),
        ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"days": NaN}}</tool_call>', "no JSON"),
        ("qwen3-coder", "<function=get_weather>\n<parameter=city>\nPar", "not complete"),
        ("kimi", "<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{", "no JSON"),
    ],
)
def test_a_call_that_breaks_off_says_so(template: str, answer: str, error: str) -> None:
    read_answer = read_every_way(choose_format(TEMPLATES[template]), answer, TOOLS)
    assert [name for name, _ in read_answer.calls] == ["get_weather"]
    assert len(read_answer.errors) == 1 and error in read_answer.errors[0]


def test_text_and_arguments_come_as_soon_as_they_are_certain() -> None:
    parser = choose_format(TEMPLATES["hermes"]).parser(TOOLS)
    assert parser.push("Hel") == [Text("Hel")]
    assert parser.push("lo <to") == [Text("lo")]  # the tag may come; the space before it is none of the text then
    assert parser.push("ad>") == [Text(" <toad>")]
    assert parser.push('<tool_call>{"name": "write_file", "arguments": {"pa') == [
        CallStart(0, "write_file"),
        CallArguments(0, '{"pa'),
    ]
    assert parser.push('th": "a') == [CallArguments(0, 'th": "a')]
    xml = choose_format(TEMPLATES["qwen3-coder"]).parser(TOOLS)
    xml.push("<function=write_file>\n<parameter=content>\nfirst line\n")
    assert xml.push("second\n</par") == [CallArguments(0, "\\nsecond")]


def test_an_answer_of_a_million_characters() -> None:
    """Time and memory grow with the length, not with its square."""
    parser = choose_format(TEMPLATES["hermes"]).parser(TOOLS)
    parts = [part for _ in range(20_000) for part in parser.push("some < text, " * 4)]
    parts += parser.push('<tool_call>{"name": "write_file", "arguments": {"content": "')
    parts += [part for _ in range(10_000) for part in parser.push("x" * 20)]
    parts += parser.push('"}}</tool_call>') + parser.flush()
    assert sum(len(part.text) for part in parts if isinstance(part, Text)) == 20_000 * 52 - 1
    assert len("".join(part.json for part in parts if isinstance(part, CallArguments))) == 200_000 + len(
        '{"content": ""}'
    )


def test_deep_arguments_are_no_harm() -> None:
    answer = '<tool_call>{"name": "ping", "arguments": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}</tool_call>"
    found = read(choose_format(TEMPLATES["hermes"]), answer, TOOLS)
    assert found.calls == (("ping", {}),) and "no JSON" in found.errors[0]
    assert json.dumps(found.errors[0])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e999", 1.7976931348623157e308),
        ("-2E+400", -1.7976931348623157e308),
        ("4e-999", 0.0),
        ("6.02e23", 6.02e23),
        ("1" + "0" * 9000, int(1.7976931348623157e308)),
    ],
    ids=lambda value: str(value)[:8],
)
def test_a_number_that_no_double_holds_is_the_nearest_that_one_does(written: str, value: float) -> None:
    """A grammar of `number` lets a model write it, so it must not cost the whole call."""
    parser = choose_format(TEMPLATES["hermes"]).parser(TOOLS)
    parts = parser.push('<tool_call>{"name": "ping", "arguments": {"a": [' + written + "]}}</tool_call>")
    ends = [part for part in (*parts, *parser.flush()) if isinstance(part, CallEnd)]
    assert [(end.arguments, end.error) for end in ends] == [({"a": [value]}, None)]


SYNTAXES = {name: ToolFormat(name, syntax) for name, _, syntax in CALLS if name != "harmony"}


@pytest.mark.parametrize("name", sorted(SYNTAXES))
def test_a_closing_tag_that_is_cut_short_is_no_text(name: str) -> None:
    """max_tokens may end an answer anywhere: behind the arguments there is nothing to show."""
    format = SYNTAXES[name]
    answer = format.syntax.write([Call("ping", {})])
    whole = read(format, answer, (PING,))
    for end in range(1, len(answer) + 1):
        cut = read(format, answer[:end], (PING,))
        if cut.calls and not cut.errors:
            assert cut == whole, answer[:end]
