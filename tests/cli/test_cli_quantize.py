"""ref-engine quantize: a small model of real names, options, reports and refusals."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import Invoke, Process

from ref_engine.errors import GGUFError
from ref_engine.files import GGMLType, open_gguf, write_gguf
from ref_engine.mixture import FILE_TYPES
from ref_engine.quantize_file import quantize_file


@pytest.fixture
def source(tmp_path: Path) -> str:
    """One layer of 256 columns in float32: 512 + 512 + 256 weights."""
    rng = np.random.default_rng(4)
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.attention.head_count": 2,
        "general.name": "tiny",
    }
    shapes = {"token_embd.weight": (2, 256), "blk.0.attn_v.weight": (2, 256), "blk.0.attn_norm.weight": (256,)}
    tensors = [(n, s, GGMLType.F32, rng.standard_normal(s).astype(np.float32)) for n, s in shapes.items()]
    write_gguf(tmp_path / "in.gguf", metadata, tensors)
    return str(tmp_path / "in.gguf")


def types(path: Path) -> dict[str, str]:
    with open_gguf(path) as file:
        return {name: info.type.name for name, info in file.tensors.items()}


def test_a_file_and_its_report(invoke: Invoke, source: str, tmp_path: Path) -> None:
    """Tied embeddings are Q6_K, norms stay; 512 * 210 / 256 + 512 * 34 / 32 + 1024 bytes of 1280 weights."""
    out = tmp_path / "out.gguf"
    result = invoke("quantize", source, str(out), "q4_k_m", "--tensor-type", "attn_v=q8_0")
    assert result.exit_code == 0
    assert types(out) == {
        "token_embd.weight": "Q6_K",
        "blk.0.attn_norm.weight": "F32",
        "blk.0.attn_v.weight": "Q8_0",
    }
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["TYPE", "TENSORS", "NUMBERS", "BYTES"],
        ["F32", "1", "256", "1.0", "kB"],
        ["Q8_0", "1", "512", "544", "B"],
        ["Q6_K", "1", "512", "420", "B"],
        ["5.1", "kB", "->", "2.0", "kB,", "12.43", "bits", "per", "weight"],
    ]


def test_a_dry_run_writes_nothing(invoke: Invoke, source: str, tmp_path: Path) -> None:
    result = invoke("quantize", source, str(tmp_path / "out.gguf"), "Q8_0", "--dry-run", "--json")
    told = json.loads(result.stdout)
    assert told["target"] is None and told["old_bytes"] == 5120 and told["new_bytes"] == 1024 + 2 * 544
    assert [(t["name"], t["to"]) for t in told["tensors"]] == [
        ("token_embd.weight", "Q8_0"),
        ("blk.0.attn_norm.weight", "F32"),
        ("blk.0.attn_v.weight", "Q8_0"),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf"]
    table = invoke("quantize", source, str(tmp_path / "out.gguf"), "Q8_0", "--dry-run").stdout
    assert table.splitlines()[1].split() == [
        "token_embd.weight",
        "2",
        "x",
        "256",
        "F32",
        "Q8_0",
        "2.0",
        "kB",
        "544",
        "B",
    ]


def test_copy_keeps_all_types(invoke: Invoke, source: str, tmp_path: Path) -> None:
    assert invoke("quantize", source, str(tmp_path / "copy.gguf"), "COPY").exit_code == 0
    assert set(types(tmp_path / "copy.gguf").values()) == {"F32"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["Q9_K"], "'Q9_K' is not a file type"),
        (["Q2_K_S"], "importance matrix"),
        (["Q4_0", "--output-tensor-type", "Q8_K"], "'Q8_K' is not a type to quantise to"),
        (["Q4_0", "--tensor-type", "attn_v"], "expected PATTERN=TYPE"),
        (["Q4_0", "--tensor-type", "(=Q8_0"], "unterminated subpattern"),
    ],
)
def test_bad_input(process: Process, source: str, tmp_path: Path, args: list[str], message: str) -> None:
    done = process("quantize", source, str(tmp_path / "out.gguf"), *args)
    assert done.returncode == 2
    assert message in done.stderr.decode() and len(done.stderr.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf"]


def test_a_quantised_source(process: Process, source: str, tmp_path: Path) -> None:
    once = str(tmp_path / "once.gguf")
    assert process("quantize", source, once, "Q8_0", "--quiet").returncode == 0
    done = process("quantize", once, str(tmp_path / "twice.gguf"), "Q4_0")
    assert done.returncode == 2 and b"--allow-requantize" in done.stderr and len(done.stderr.splitlines()) == 1
    assert process("quantize", once, str(tmp_path / "twice.gguf"), "Q4_0", "--allow-requantize").returncode == 0


def test_a_target_in_no_folder(process: Process, source: str, tmp_path: Path) -> None:
    done = process("quantize", source, str(tmp_path / "none" / "out.gguf"), "Q4_0")
    assert done.returncode == 2 and b"cannot write" in done.stderr


def test_a_target_that_is_a_directory(process: Process, source: str, tmp_path: Path) -> None:
    done = process("quantize", source, str(tmp_path), "Q4_0")
    assert done.returncode == 2 and b"is a directory" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_full_disk(source: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: one line, no file, and what was there before stays."""
    resource = pytest.importorskip("resource", reason="does not apply: a system without limits")
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
        with pytest.raises(GGUFError, match=r"out\.gguf: cannot write: File too large"):
            quantize_file(source, out, FILE_TYPES["Q8_0"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert out.read_bytes() == b"older" and sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf", "out.gguf"]


def test_without_a_target(invoke: Invoke, source: str, tmp_path: Path) -> None:
    """As llama-quantize names it."""
    assert invoke("quantize", source, "q8_0", "--quiet").exit_code == 0
    assert types(tmp_path / "ggml-model-Q8_0.gguf")["blk.0.attn_v.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--override-kv", "a=int:x"], "expected KEY=int:N"),
        (["--override-kv", "a=maybe:1"], "expected KEY=int:N"),
        (["--prune-layers", "0,x"], "'x' is not the number of a layer"),
        (["--prune-layers", "4"], "layer 4 cannot be pruned"),
        (["--expert-type", "q9"], "'q9' is not a type to quantise to"),
        (["--tensor-type-file", "none.txt"], "No such file"),
        (["--include-weights", "a", "--exclude-weights", "b"], "cannot be used together"),
        (["--include-weights", "a"], "choose from an --imatrix"),
        (["--imatrix", "none.dat"], "cannot open"),
    ],
)
def test_bad_options(invoke: Invoke, source: str, tmp_path: Path, args: list[str], message: str) -> None:
    result = invoke("quantize", source, str(tmp_path / "out.gguf"), "Q4_0", *args)
    assert result.exit_code == 2 and message in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf"]
