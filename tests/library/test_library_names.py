import pytest

from ref_engine.errors import StoreError
from ref_engine.library.layout import is_path
from ref_engine.library.names import Name, display, find, full_name, host_of, name_from_file, near, parse_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smollm2", (None, "library", "smollm2", "latest")),
        ("gemma3:270m", (None, "library", "gemma3", "270m")),
        ("me/Model_1.5-x:Q4_K_M", (None, "me", "Model_1.5-x", "Q4_K_M")),
        ("example.com/me/m", ("example.com", "me", "m", "latest")),
        ("localhost:5000/me/m:t", ("localhost:5000", "me", "m", "t")),
        ("hf:owner/repo-GGUF:Q4_0", ("hf", "owner", "repo-GGUF", "Q4_0")),
        ("hf:owner/repo/sub dir/File.Q4_0.gguf", ("hf", "owner", "repo", "sub-dir-File.Q4_0")),
        ("m" * 80, (None, "library", "m" * 80, "latest")),
    ],
)
def test_parts_of_a_name(text: str, expected: tuple[str | None, str, str, str]) -> None:
    query = parse_name(text)
    assert (query.host, query.namespace, query.model, query.tag) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":tag", "m:", "/m", "m/", "a/b/c/d", "a//b", "..", "../m", "a/../m", "x/y/..", ".hidden",
        "-dash", "m:..",
        "m:../../x", "m:-t", "a.b/m", "a:b:c/m", "m:a:b", "m\0", "m\n", "m m", "a\\b", "C:\\m", "é", "m" * 81,
        "m:" + "t" * 81,
        "n" * 81 + "/m", "h" * 351 + "/n/m", "https://h/n/m", "file:///etc/passwd", "con", "NUL.txt", "m:aux", "com1/m",
        "m.", "hf:owner", "hf:a/b/c/d", "hf:../b", "m@sha256:0", "m%2e", "$m", "*",
    ],
)  # fmt: skip
def test_names_that_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(StoreError) as caught:
        parse_name(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_case_does_not_count_but_is_kept() -> None:
    names = [full_name("Foo:Bar")]
    assert find(parse_name("foo:bar"), names) == Name("local", "library", "Foo", "Bar")


def test_a_name_without_host_prefers_local_then_must_be_unique() -> None:
    local, one, two = (Name(host, "library", "m", "latest") for host in ("local", "a.example", "b.example"))
    assert find(parse_name("m"), [one, local, two]) == local
    assert find(parse_name("m"), [one]) == one
    assert find(parse_name("m"), [one, two], ("local", "b.example")) == two
    assert find(parse_name("b.example/library/m"), [one, two]) == two
    assert find(parse_name("m:other"), [one, two]) is None
    with pytest.raises(StoreError, match=r"ambiguous.*a\.example/library/m:latest, b\.example"):
        find(parse_name("m"), [one, two])


def test_the_shortest_text_that_leads_back() -> None:
    local, one, two = (Name(host, "library", "m", "latest") for host in ("local", "a.example", "b.example"))
    mine, hub = Name("local", "me", "m", "x"), Name("hf", "owner", "repo", "Q4_0")
    names = [local, one, two, mine, hub]
    assert [display(name, names) for name in names] == [
        "m:latest",
        "a.example/library/m:latest",
        "b.example/library/m:latest",
        "me/m:x",
        "hf:owner/repo:Q4_0",
    ]
    assert display(one, [one]) == "m:latest"


def test_near_names() -> None:
    known = ["smollm2:135m", "gemma3:270m", "qwen3:0.6b"]
    assert near("smolm2", known) == "; did you mean smollm2:135m?"
    assert near("gemma3:270", known).startswith("; did you mean gemma3:270m")
    assert near("zzz", known) == "; there are: gemma3:270m, qwen3:0.6b, smollm2:135m"
    assert "pull smollm2" in near("x", [])


def test_a_name_from_a_file_name() -> None:
    assert name_from_file("SmolLM2 135M (Instruct).Q4_1") == "smollm2-135m-instruct-.q4_1"
    assert name_from_file("...") == "model"
    with pytest.raises(StoreError, match="every system"):
        name_from_file("CON")


def test_the_host_of_a_registry() -> None:
    assert host_of("http://user:secret@127.0.0.1:5000") == "127.0.0.1:5000"
    assert host_of("example.com") == "example.com"


@pytest.mark.parametrize("text", ["m.gguf", "./m", "../m", "~/m", "/m", "C:\\m", "a/b.GGUF", "./hf:x"])
def test_what_is_a_path(text: str) -> None:
    assert is_path(text)


@pytest.mark.parametrize("text", ["m", "a/b", "h:5/n/m", "hf:a/b/c.gguf", "m:tag", "c:tag"])
def test_what_is_a_name(text: str) -> None:
    assert not is_path(text)
