"""Sound files: by the gguf package's writer, by hand, and the real models."""

import gc
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf_samples import REAL, by_hand, package_file, pair, real_model, row, text

from ref_engine.errors import GGUFError
from ref_engine.files import ArrayType, GGMLType, GGUFValueType, open_gguf


def plain(value: object) -> object:
    """NumPy arrays as lists, so that values compare with ==."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("version", [2, 3])
def test_every_value_type_reads_as_the_package_wrote_it(tmp_path: Path, version: int) -> None:
    expected = package_file(tmp_path / "m.gguf", version)
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.version == version
        assert list(file.metadata) == list(expected)
        for key, value in expected.items():
            assert plain(file.metadata[key]) == value, key
            assert type(plain(file.metadata[key])) is type(value), key
        for bits in (8, 16, 32, 64):
            assert file.types[f"u{bits}"] is GGUFValueType[f"UINT{bits}"]
            assert file.types[f"i{bits}s"] == ArrayType(GGUFValueType[f"INT{bits}"])
            array = file.metadata[f"i{bits}s"]
            assert isinstance(array, np.ndarray)
            assert array.dtype == np.dtype(f"i{bits // 8}")
            assert not array.flags.writeable
        assert file.types["bools"] == ArrayType(GGUFValueType.BOOL)
        assert file.types["nested"] == ArrayType(GGUFValueType.ARRAY, (ArrayType(GGUFValueType.INT32),) * 2)


def test_tensors_are_the_ones_the_package_reads(tmp_path: Path) -> None:
    package_file(tmp_path / "m.gguf")
    theirs = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    with open_gguf(tmp_path / "m.gguf") as file:
        assert list(file.tensors) == list(theirs)
        for name, tensor in file.tensors.items():
            other = theirs[name]
            assert tensor.shape == tuple(int(n) for n in reversed(other.shape))
            assert tensor.n_weights == int(other.n_elements)
            assert (tensor.type.value, tensor.nbytes) == (other.tensor_type.value, int(other.n_bytes))
            assert tensor.offset == int(other.data_offset)
            data = file.data(name)
            assert data.dtype == np.uint8 and data.shape == (tensor.nbytes,) and not data.flags.writeable
            assert data.tobytes() == other.data.tobytes()


@pytest.mark.parametrize("name", REAL)
def test_real_model_reads_as_the_package_reads_it(name: str) -> None:
    path = real_model(name)
    vocabulary = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores"}
    with open_gguf(path) as file:
        head = path.open("rb")
        with head:
            _, _, n_tensors, n_keys = struct.unpack("<4sIQQ", head.read(24))
        assert (len(file.tensors), len(file.metadata)) == (n_tensors, n_keys)
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, list)
        # The package's reader takes many seconds for these; the sizes are in the models' configurations.
        sizes = {"llama": 49152, "gemma3": 262144}
        assert len(tokens) == sizes[str(file.metadata["general.architecture"])]
        if "tokenizer.ggml.scores" in file.metadata:
            scores = file.metadata["tokenizer.ggml.scores"]
            assert isinstance(scores, np.ndarray) and scores.dtype == np.float32 and len(scores) == len(tokens)
        assert vocabulary & set(file.metadata)
        end = max(tensor.offset + tensor.nbytes for tensor in file.tensors.values())
        assert path.stat().st_size - 32 < end <= path.stat().st_size


def test_every_string_of_a_real_vocabulary(tmp_path: Path) -> None:
    """The fast scan over string lengths gives what a plain walk over the bytes gives."""
    path = real_model(REAL[1])
    with open_gguf(path) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    raw = path.read_bytes()[: 1 << 24]
    at = raw.index(text("tokenizer.ggml.tokens")) + len(text("tokenizer.ggml.tokens"))
    kind, item, count = struct.unpack_from("<IIQ", raw, at)
    assert (kind, item, count) == (9, 8, len(tokens))
    at += 16
    for token in tokens:
        size = int.from_bytes(raw[at : at + 8], "little")
        assert raw[at + 8 : at + 8 + size] == token.encode("utf-8", "surrogateescape")
        at += 8 + size


@pytest.mark.parametrize("seed", range(8))
def test_string_scan_on_lengths_that_break_the_fast_path(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.choice(
        [0, 1, 7, 8, 40, 255, 256, 300, 70000], 900, p=[0.1, 0.3, 0.2, 0.2, 0.1, 0.04, 0.03, 0.02, 0.01]
    )
    words = [rng.integers(0, 3, n, np.uint8).tobytes() for n in lengths]  # bytes that look like lengths
    value = struct.pack("<IQ", 8, len(words)) + b"".join(text(word) for word in words)
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand([pair("words", 9, value), pair("after", 4, struct.pack("<I", 77))]))
    with open_gguf(path) as file:
        read = file.metadata["words"]
        assert isinstance(read, list)
        assert [word.encode() for word in read] == words
        assert file.metadata["after"] == 77


def test_bytes_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    raw = bytes(range(256))
    words = struct.pack("<IQ", 8, 3) + text(raw) + text("é") + text(b"\xed\xa0\x80")
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand([pair("s", 8, text(raw)), pair("a", 9, words)]))
    with open_gguf(path) as file:
        value, array = file.metadata["s"], file.metadata["a"]
        assert isinstance(value, str) and value.encode("utf-8", "surrogateescape") == raw
        assert isinstance(array, list)
        assert [w.encode("utf-8", "surrogateescape") for w in array] == [raw, "é".encode(), b"\xed\xa0\x80"]


def test_alignment_scalars_gaps_and_file_order(tmp_path: Path) -> None:
    rows = [row("b", [4], 0, 128), row("a", [], 0, 0), row("c", [32, 3], 8, 256)]
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand([pair("general.alignment", 4, struct.pack("<I", 64))], rows, 512, 64))
    with open_gguf(path) as file:
        assert file.alignment == 64
        assert list(file.tensors) == ["b", "a", "c"]
        assert file.tensors["a"].shape == () and file.tensors["a"].nbytes == 4
        assert file.tensors["c"].shape == (3, 32) and file.tensors["c"].nbytes == 3 * 34
        assert file.tensors["c"].type is GGMLType.Q8_0
        assert file.tensors["a"].offset % 64 == 0


def test_a_file_without_tensors_needs_no_padding(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand())
    with open_gguf(path) as file:
        assert not file.metadata and not file.tensors


def test_empty_arrays(tmp_path: Path) -> None:
    pairs = [pair(f"k{item}", 9, struct.pack("<IQ", item, 0)) for item in range(13)]
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand(pairs))
    with open_gguf(path) as file:
        for item in GGUFValueType:
            assert plain(file.metadata[f"k{item}"]) == []
            assert file.types[f"k{item}"] == ArrayType(item)


def test_closing_with_views_alive(tmp_path: Path) -> None:
    package_file(tmp_path / "m.gguf")
    file = open_gguf(tmp_path / "m.gguf")
    view = file.data("token_embd.weight")
    before = view.tobytes()
    file.close()
    file.close()
    assert view.tobytes() == before
    assert file.metadata["text"] == "naïve 漢字 🙂\n"
    with pytest.raises(GGUFError, match="has been closed"):
        file.data("token_embd.weight")
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_no_handles_are_left_open(tmp_path: Path) -> None:
    package_file(tmp_path / "m.gguf")
    (tmp_path / "bad.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:-64])
    gc.collect()  # of what earlier tests left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with open_gguf(tmp_path / "m.gguf"):
            assert len(os.listdir("/proc/self/fd")) > before
        for name in ("bad.gguf", "missing.gguf", "."):
            with pytest.raises(GGUFError):
                open_gguf(tmp_path / name)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_unknown_tensor_name(tmp_path: Path) -> None:
    package_file(tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file, pytest.raises(GGUFError, match="no tensor is named 'x'"):
        file.data("x")
