"""Modelfiles, and the models made of them. The language: examples of Ollama's own documentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bigram import write_bigram

from ref_engine.errors import RefEngineError, StoreError
from ref_engine.library import Store
from ref_engine.library.create import create
from ref_engine.library.modelfile import Recipe, is_jinja, parse_modelfile

MARIO = '''# comments are left out
FROM llama3.2
# sets the temperature to 1 [higher is more creative, lower is more coherent]
PARAMETER temperature 1
parameter num_ctx 4096
PARAMETER stop "<|start|>"
PARAMETER stop AI assistant:
PARAMETER seed 42

# sets a custom system message
SYSTEM You are Mario from super mario bros, acting as an assistant.
TEMPLATE """{% for m in messages %}
<{{ m.role }}>{{ m.content }}
{% endfor %}"""
MESSAGE user Is Toronto in Canada?
MESSAGE assistant yes
MESSAGE user """Is
Sacramento "in" Canada?"""
LICENSE """
<license text>
"""
'''


def test_all_of_the_language() -> None:
    recipe = parse_modelfile(MARIO)
    assert recipe.source == "llama3.2"
    assert recipe.parameters == {
        "temperature": 1,
        "num_ctx": 4096,
        "stop": ["<|start|>", "AI assistant:"],
        "seed": 42,
    }
    assert recipe.system == "You are Mario from super mario bros, acting as an assistant."
    assert recipe.template == "{% for m in messages %}\n<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    assert recipe.messages == (
        {"role": "user", "content": "Is Toronto in Canada?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": 'Is\nSacramento "in" Canada?'},
    )
    assert recipe.licenses == ("\n<license text>\n",)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "FROM"),
        ("PARAMETER top_k 5", "FROM"),
        ("FROM x\nCOLOUR red", "line 2"),
        ("FROM x\nPARAMETER temperatur 1", "temperatur"),
        ("FROM x\nPARAMETER top_p 7", "top_p"),
        ("FROM x\nPARAMETER num_ctx many", "num_ctx"),
        ("FROM x\nPARAMETER stop", "stop"),
        ("FROM x\nMESSAGE robot beep", "robot"),
        ('FROM x\nSYSTEM """open', "closed"),
        ("FROM x\nRENDERER qwen3", "RENDERER"),
    ],
)
def test_what_is_wrong_is_named(text: str, word: str) -> None:
    with pytest.raises(StoreError, match=word):
        parse_modelfile(text)


def test_languages_of_templates() -> None:
    assert is_jinja("{% for message in messages %}{{ message.content }}{% endfor %}")
    assert is_jinja("{{ messages[0].content }}")
    assert not is_jinja("{{ if .System }}<|system|>{{ .System }}{{ end }}{{ .Prompt }}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models", read_only=())
    made.add_file("base", write_bigram(tmp_path / "base.gguf"))
    return made


def test_texts_go_beside_the_weights(store: Store) -> None:
    create(store, "mine", Recipe("base", {"top_k": 5}, system="be brief", messages=({"role": "user", "content": "x"},)))
    info = store.show("mine")
    assert info.path == store.resolve("base")  # the weights are shared
    assert (info.system, info.parameters) == ("be brief", {"top_k": 5})
    assert info.messages == ({"role": "user", "content": "x"},)


def test_what_a_source_has_is_inherited_and_replaced_by_name(store: Store) -> None:
    create(store, "first", Recipe("base", {"top_k": 5, "seed": 1}, system="one", licenses=("A",)))
    create(store, "second", Recipe("first", {"seed": 2}, licenses=("B",)))
    info = store.show("second")
    assert info.parameters == {"top_k": 5, "seed": 2}
    assert info.system == "one" and info.licenses == ("A", "B")


def test_a_file_as_the_source(store: Store, tmp_path: Path) -> None:
    path = write_bigram(tmp_path / "other.gguf", n_ctx=99)
    create(store, "other", Recipe(str(path)))
    assert store.show("other").metadata["llama.context_length"] == 99
    (tmp_path / "no.gguf").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="not a GGUF file"):
        create(store, "no", Recipe(str(tmp_path / "no.gguf")))


@pytest.mark.parametrize(
    ("recipe", "word"),
    [
        (Recipe("base", adapters=("lora.gguf",)), "LoRA"),
        (Recipe("nowhere"), "nowhere"),
        (Recipe("base", quantize="Q9_Z"), "Q9_Z"),
        (Recipe("base", {"colour": 1}), "colour"),
    ],
)
def test_nothing_is_listed_that_could_not_be_made(store: Store, recipe: Recipe, word: str) -> None:
    with pytest.raises(RefEngineError, match=word):
        create(store, "new", recipe)
    assert [entry.name for entry in store.list()] == ["base:latest"]
    assert list(store.blobs.work.glob("tmp-*")) == []


def test_a_template_that_would_not_be_used_is_refused(store: Store, tmp_path: Path) -> None:
    go = "{{ .System }}{{ .Prompt }}"
    create(store, "with", Recipe("base", template=go))  # the file has one of its own, which is used
    bare = write_bigram(tmp_path / "bare.gguf", template=None)
    with pytest.raises(StoreError, match="write it in Jinja"):
        create(store, "without", Recipe(str(bare), template=go))


def test_manifests_are_what_ollama_reads(store: Store) -> None:
    """Media types and the config's fields, from Ollama's server/manifest.go and server/images.go."""
    create(store, "mine", Recipe("base", {"stop": ["x"]}, system="s"))
    path = store.root / "manifests" / "local" / "library" / "mine" / "latest"
    manifest = json.loads(path.read_text())
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]
    assert manifest["schemaVersion"] == 2 and sorted(kinds) == ["model", "params", "system"]
    for layer in manifest["layers"]:
        assert (store.root / "blobs" / layer["digest"].replace(":", "-")).stat().st_size == layer["size"]
