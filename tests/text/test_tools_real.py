"""The smallest model, held to schemas: what they demand holds, whatever it would rather say."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from drawn_schemas import draw_schema
from tool_answers import Tool, read

import ref_engine
from ref_engine.generate import generate
from ref_engine.model import Model
from ref_engine.sample import SamplingParams
from ref_engine.text.chat import ChatTemplate
from ref_engine.text.chat.tools import choose_format
from ref_engine.text.grammar import compile_json_schema

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
SEEDS = (3, 12)  # short answers; all of the first fifty hold


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Model:
    return ref_engine.load(smollm2, n_ctx=1024)


def answer(model: Model, prompt: str, constraint: object, seed: int) -> str:
    ids = model.tokenizer.encode(prompt, add_special=False)
    params = SamplingParams(temperature=0.8, seed=seed)
    events = list(generate(model, ids, params=params, max_tokens=300, constraint=constraint))
    assert events[-1].finish_reason == "stop"
    return "".join(event.text for event in events)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_forced_call_obeys_its_schema(model: Model, seed: int) -> None:
    tool = Tool("record", draw_schema(seed), "Records what is known.")
    format = choose_format(model.chat_template, model.tokenizer)
    template = ChatTemplate(model.chat_template or "")
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "Record something."}]
    prompt = template.render(format.render_fallback(turns, [tool]))
    grammar = format.call_grammar([tool], model.tokenizer, name="record", prompt=prompt)
    found = read(format, answer(model, prompt, grammar.constraint(), seed), [tool], prompt)
    assert [name for name, _ in found.calls] == ["record"] and found.errors == () and found.text == ""
    jsonschema.validate(found.calls[0][1], dict(tool.parameters), format_checker=CHECKER)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_answer_meets_its_schema(model: Model, seed: int) -> None:
    schema = draw_schema(seed)
    grammar = compile_json_schema(schema, model.tokenizer)
    prompt = "<|im_start|>user\nMake up a record.<|im_end|>\n<|im_start|>assistant\n"
    jsonschema.validate(json.loads(answer(model, prompt, grammar.constraint(), seed)), schema, format_checker=CHECKER)
