"""Importance matrices as llama-imatrix writes and merges them, byte for byte, and what is wrong with damaged ones."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ref_engine.errors import GGUFError, ModelError, RefEngineError
from ref_engine.files import GGMLType, write_gguf
from ref_engine.imatrix import Entry, ImportanceMatrix, read_imatrix, write_imatrix
from ref_engine.imatrix.matrix import merge

GOLDEN = Path(__file__).parents[2] / "golden" / "imatrix"
CTX = 64  # tokens in a chunk of the golden files


@pytest.mark.parametrize("name", ["tiny-moe.gguf", "tiny-moe.dat", "experts.gguf", "experts.dat"])
def test_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    """llama-imatrix writes experts.dat from experts.gguf, whose stacks have an expert without tokens."""
    matrix = merge([read_imatrix(GOLDEN / name.replace(".dat", ".gguf"))], CTX)
    write_imatrix(tmp_path / name, matrix, "dat" if name.endswith("dat") else "gguf")
    same = name if name != "experts.gguf" else None  # drawn with another order of keys; see the next test
    if same:
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()
    again = read_imatrix(GOLDEN / name)
    back = read_imatrix(tmp_path / name)
    assert list(back.entries) == sorted(again.entries) and back.n_chunks == again.n_chunks
    for key, entry in again.entries.items():
        assert np.array_equal(back.entries[key].sums, entry.sums)
        assert np.array_equal(back.entries[key].counts, entry.counts)


def test_merged_as_llama_imatrix_merges(tmp_path: Path) -> None:
    parts = [read_imatrix(GOLDEN / name) for name in ("tiny-moe.dat", "tiny-moe.gguf")]
    write_imatrix(tmp_path / "merged.gguf", merge(parts, CTX))
    assert (tmp_path / "merged.gguf").read_bytes() == (GOLDEN / "merged.gguf").read_bytes()


def test_importances_are_means() -> None:
    """Sums over counts for each expert; 1 for an expert without tokens; a legacy file's values over its calls."""
    sums = np.array([2, 4, 9, 9, 0, 0], np.float32)
    matrix = ImportanceMatrix({"a": Entry(sums, np.array([2, 3, 0]))}, ["t"], 1, 3)
    assert matrix.importance("a").tolist() == [1, 2, 3, 3, 1, 1]
    legacy = ImportanceMatrix({"a": Entry(sums, np.array([2]))}, [], 2, 0, legacy=True)
    assert legacy.importance("a").tolist() == [1, 2, 4.5, 4.5, 0, 0]
    negative = ImportanceMatrix({"a": Entry(-sums, np.array([2]))}, [], 1, 3)
    with pytest.raises(ModelError, match=r"entry 'a' has a value that is negative"):
        negative.importance("a")


def test_matrices_of_two_models_are_not_merged() -> None:
    one = ImportanceMatrix({"a": Entry(np.ones(4, np.float32), np.array([2]))}, [], 1, 2)
    other = ImportanceMatrix({"a": Entry(np.ones(6, np.float32), np.array([2]))}, [], 1, 2)
    with pytest.raises(ModelError, match="entry 'a' has 4 and 6 values"):
        merge([one, other], 2)


def legacy(entries: bytes, n: int = 1, tail: bytes = b"") -> bytes:
    return struct.pack("<i", n) + entries + tail


def entry(name: bytes = b"blk.0.x", calls: int = 2, values: tuple[float, ...] = (1.0, 2.0)) -> bytes:
    head = struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, len(values))
    return head + struct.pack(f"<{len(values)}f", *values)


def test_the_trailer_of_a_legacy_file_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(legacy(entry()))
    short = read_imatrix(tmp_path / "a.dat")
    assert (short.n_chunks, list(short.datasets), short.legacy) == (0, [], True)
    (tmp_path / "b.dat").write_bytes(legacy(entry(), tail=struct.pack("<ii3s", 7, 3, b"txt")))
    whole = read_imatrix(tmp_path / "b.dat")
    assert (whole.n_chunks, list(whole.datasets)) == (7, ["txt"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01", "truncated"),
        (struct.pack("<i", 0), "is not an importance matrix"),
        (struct.pack("<i", -1) + bytes(64), "is not an importance matrix"),
        (struct.pack("<i", 1 << 30) + bytes(64), "is not an importance matrix"),
        (legacy(struct.pack("<i", -5) + bytes(40)), "name of entry 1 is -5 bytes"),
        (legacy(struct.pack("<i", 1 << 30) + bytes(40)), "name of entry 1 is 1073741824 bytes"),
        (legacy(struct.pack("<i1sii", 1, b"a", 1, -1) + bytes(20)), "entry 'a' has -1 values"),
        (legacy(struct.pack("<i1sii", 1, b"a", 1, 1 << 29) + bytes(20)), "truncated"),
        (legacy(entry() + entry(), n=2), "entry 'blk.0.x' is there twice"),
        (legacy(entry(), tail=b"\x01"), "truncated"),
    ],
)
def test_damaged_legacy_files(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.dat"
    path.write_bytes(data)
    with pytest.raises(GGUFError, match=message) as caught:
        read_imatrix(path)
    assert "bad.dat" in str(caught.value) and "\n" not in str(caught.value)


def test_every_truncation_is_an_error_or_the_end_of_an_optional_part(tmp_path: Path) -> None:
    data = legacy(entry() + entry(b"blk.1.x"), n=2, tail=struct.pack("<ii3s", 7, 3, b"txt"))
    whole = len(data) - 11  # without the trailer, or with its first number only: both are read
    for end in range(1, len(data)):
        (tmp_path / "cut.dat").write_bytes(data[:end])
        if end in (whole, whole + 4):
            assert len(read_imatrix(tmp_path / "cut.dat").entries) == 2
        else:
            with pytest.raises(RefEngineError):
                read_imatrix(tmp_path / "cut.dat")


KEYS = {"general.type": "imatrix", "imatrix.datasets": ["t"], "imatrix.chunk_count": 1, "imatrix.chunk_size": 8}
Rows = list[tuple[str, tuple[int, ...], GGMLType, np.ndarray]]


def rows(**given: tuple[float, ...]) -> Rows:
    return [(n.replace("_dot_", "."), (len(v),), GGMLType.F32, np.array(v, np.float32)) for n, v in given.items()]


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"general.type": "model"}, rows(a=(1.0,)), r"imatrix\.datasets is missing"),
        (KEYS, rows(a_dot_weight=(1.0,)), "has no entries"),
        (KEYS, rows(a_dot_in_sum2=(1.0,)), r"entry 'a' has no 'a\.counts'"),
        (KEYS, rows(a_dot_counts=(1.0,)), r"entry 'a' has no 'a\.in_sum2'"),
        (KEYS, rows(a_dot_in_sum2=(1.0, 2.0), a_dot_counts=(1.0, 1.0, 1.0)), "2 values for 3 counts"),
        (KEYS, rows(a_dot_in_sum2=(1.0,), a_dot_counts=(float("nan"),)), "a count that is none"),
        (KEYS | {"imatrix.datasets": 3}, rows(a_dot_in_sum2=(1.0,), a_dot_counts=(1.0,)), "not a list of names"),
        (KEYS | {"imatrix.chunk_count": "x"}, rows(a_dot_in_sum2=(1.0,), a_dot_counts=(1.0,)), "chunk_count"),
    ],
)
def test_gguf_files_that_are_none(metadata: dict[str, object], tensors: Rows, message: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "bad.gguf", metadata, tensors)
    with pytest.raises(RefEngineError, match=message):
        read_imatrix(tmp_path / "bad.gguf")


def test_a_model_is_no_importance_matrix(zoo_model: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="is not an importance matrix"):
        read_imatrix(zoo_model("llama-dense"))
    with pytest.raises(GGUFError, match="cannot open"):
        read_imatrix("/nowhere/imatrix.gguf")
