"""tokenize, logits, perplexity: figures worked out by hand on the bigram model."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from bigram import LOGIT, N_VOCAB, byte
from commands import Invoke

P_FOLLOWER = math.exp(LOGIT) / (math.exp(LOGIT) + N_VOCAB - 1)


def test_tokenize_table(invoke: Invoke, bigram: str) -> None:
    lines = invoke("tokenize", bigram, "aé").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["ID", "PIECE", "KIND"],
        ["1", "'<s>'", "control"],
        ["100", "'a'", "byte"],
        ["198", r"b'\xc3'", "byte"],
        ["172", r"b'\xa9'", "byte"],
    ]


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (["ab</s>"], "1,100,101,2"),
        (["ab</s>", "--no-special"], "100,101,2"),
        (["a</s>", "--no-parse-special"], "1,100,63,50,118,65"),  # < / s > are bytes 60 47 115 62
        (["-"], "1,102,103"),
    ],
)
def test_tokenize_ids(invoke: Invoke, bigram: str, args: list[str], ids: str) -> None:
    assert invoke("tokenize", bigram, *args, "--ids", input="cd").stdout == ids + "\n"


def test_tokenize_json_and_back(invoke: Invoke, bigram: str) -> None:
    found = json.loads(invoke("tokenize", bigram, "é", "--json", "--no-special").stdout)
    assert found["ids"] == [198, 172]
    assert found["tokens"][0] == {"id": 198, "text": None, "bytes": "c3", "kind": "byte"}
    for text in ("198,172", "[198, 172]", "198 172\n"):
        assert invoke("tokenize", bigram, "--decode", text).stdout == "é\n"
    assert json.loads(invoke("tokenize", bigram, "--decode", "1,198,172", "--json").stdout)["text"] == "é"


@pytest.mark.parametrize("ids", ["", "1,x", "-1", "1.5", "999", "99999999999"])
def test_tokenize_refuses_what_is_no_id(invoke: Invoke, bigram: str, ids: str) -> None:
    assert invoke("tokenize", bigram, f"--decode={ids}").exit_code == 2


@pytest.mark.parametrize("activations", ["f32", "q8"])
def test_logits_by_hand(invoke: Invoke, bigram: str, activations: str) -> None:
    result = invoke("logits", bigram, "-p", "ab", "--json", "-k", "2", "--activations", activations)
    found = json.loads(result.stdout)
    assert found["ids"] == [1, byte("a"), byte("b")]
    assert [row["position"] for row in found["positions"]] == [0, 1, 2]
    after_bos, after_a, _ = found["positions"]
    assert after_bos["top"][0]["logprob"] == pytest.approx(-math.log(N_VOCAB), rel=1e-6)
    best, other = after_a["top"]
    assert best["id"] == byte("b")
    assert best["logit"] == pytest.approx(LOGIT, rel=1e-6)
    assert best["logprob"] == pytest.approx(math.log(P_FOLLOWER), rel=1e-4)
    assert (other["id"], other["logit"]) == (0, 0.0)


def test_logits_table(invoke: Invoke, bigram: str) -> None:
    lines = invoke("logits", bigram, "--tokens", f"{byte('a')}", "-k", "1").stdout.splitlines()
    assert lines[0].split() == ["POS", "TOKEN", "RANK", "ID", "PIECE", "LOGIT", "LOG", "P", "P"]
    shown = [f"{x:.4f}" for x in (LOGIT, math.log(P_FOLLOWER), P_FOLLOWER)]
    assert lines[1].split() == ["0", "'a'", "1", "101", "'b'", *shown]


def test_logits_to_a_file(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    want = np.zeros((3, N_VOCAB))
    want[1, byte("b")] = want[2, byte("c")] = LOGIT
    assert invoke("logits", bigram, "-p", "ab", "-o", str(tmp_path / "x.npy")).exit_code == 0
    array = np.load(tmp_path / "x.npy")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, want, rtol=1e-6)
    assert invoke("logits", bigram, "-p", "ab", "-o", str(tmp_path / "x.npz")).exit_code == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["ids"].tolist() == [1, byte("a"), byte("b")]
        np.testing.assert_array_equal(arrays["logits"], array)


def test_a_failed_run_leaves_no_file(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    for ids in ("999", ",".join(["5"] * 513)):  # outside the vocabulary; more than the context
        assert invoke("logits", bigram, "--tokens", ids, "-o", str(tmp_path / "x.npy")).exit_code == 2
    assert list(tmp_path.iterdir()) == []
    assert invoke("logits", bigram, "-p", "a", "-o", str(tmp_path / "no" / "x.npy")).exit_code == 2


def test_perplexity_by_hand(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    """ "abx": a after BOS is one of V alike, b follows a, x is one of the V - 1 that do not follow b."""
    text = tmp_path / "text.txt"
    text.write_text("abx")
    nlls = [math.log(N_VOCAB), -math.log(P_FOLLOWER), -math.log(P_FOLLOWER) + LOGIT]
    mean = sum(nlls) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in nlls) / 2)
    found = json.loads(invoke("perplexity", bigram, str(text), "--json", "-q").stdout)
    assert found["nll"] == pytest.approx(mean, rel=1e-6)
    assert found["nll_error"] == pytest.approx(deviation / math.sqrt(3), rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert found["perplexity_error"] == pytest.approx(math.exp(mean) * deviation / math.sqrt(3), rel=1e-5)
    assert (found["tokens"], found["windows"]) == (3, 1)
    shown = invoke("perplexity", bigram, "-", "-q", input="abx").stdout
    assert shown.startswith(f"perplexity {math.exp(mean):.4f} ± ")


def test_perplexity_in_windows(invoke: Invoke, bigram: str) -> None:
    """ "abcd" in windows of three: BOS a b, BOS c d. In each the first is one of V and the second follows."""
    found = json.loads(invoke("perplexity", bigram, "-", "--ctx", "3", "--json", "-q", input="abcd").stdout)
    assert found["nll"] == pytest.approx((math.log(N_VOCAB) - math.log(P_FOLLOWER)) / 2, rel=1e-6)
    assert (found["tokens"], found["windows"]) == (4, 2)
    found = json.loads(invoke("perplexity", bigram, "-", "--ctx", "3", "--skip", "2", "--json", input="abcd").stdout)
    assert found["nll"] == pytest.approx(-math.log(P_FOLLOWER), rel=1e-4)
    assert found["tokens"] == 2


def test_perplexity_needs_something_to_score(invoke: Invoke, bigram: str) -> None:
    assert "too short" in invoke("perplexity", bigram, "-", "-q", input="").stderr
    assert "--n-ctx" in invoke("perplexity", bigram, "-", "--ctx", "513", input="ab").stderr


def test_progress_is_lines_off_a_terminal(invoke: Invoke, bigram: str) -> None:
    assert invoke("perplexity", bigram, "-", input="abcd").stderr == "perplexity: 5 tokens\nperplexity: 4 tokens done\n"
