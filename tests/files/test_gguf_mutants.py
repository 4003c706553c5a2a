"""Thousands of damaged headers: each loads or gives one GGUFError, in little memory.

What loads must be whole: every value decodes, every tensor lies inside the file, and the metadata is written
back as the same bytes. The seeds are fixed, so that a failure can be repeated.
"""

import os
import shutil
import struct
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf_samples import REAL, package_file, real_model
from hypothesis import given
from hypothesis import strategies as st

from ref_engine.errors import GGUFError
from ref_engine.files import ArrayType, GGUFValueType, TensorInfo, ValueType, open_gguf
from ref_engine.files.encode import encode_value
from ref_engine.files.header import Header, parse_header

EXTREMES = [0, 1, 2, 3, 4, 5, 8, 9, 12, 13, 31, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
EXTREMES += [2**32, 2**48, 2**61, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 8, 2**64 - 1]


def mutate(base: bytes, fields: list[int], rng: np.random.Generator) -> bytes:
    """One to three changes: a field overwritten, a bit flipped, a piece cut out or copied, or the end lost.

    `fields` are positions at which a length, count, type or offset stands.
    """
    raw = bytearray(base)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(6)
        at = int(rng.choice(fields)) if kind < 3 else int(rng.integers(len(base)))
        a, b = sorted(rng.integers(0, len(base), 2).tolist())
        if kind < 2:
            value = EXTREMES[rng.integers(len(EXTREMES))]
            size = int(rng.choice([4, 8]))
            raw[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
        elif kind < 4 and at < len(raw):
            raw[at] ^= 1 << int(rng.integers(8))
        elif kind == 4:
            raw[a:a] = raw[b : b + int(rng.integers(1, 64))]
        elif rng.integers(4):
            del raw[a : a + int(rng.integers(1, 64))]
        else:
            del raw[b:]
    return bytes(raw)


def structure(raw: bytes, keys: Iterable[str], tensors: Iterable[TensorInfo]) -> list[int]:
    """Positions of the fixed fields, around every key and tensor name."""
    fields = [4, 8, 16]
    for key in keys:
        at = raw.index(struct.pack("<Q", len(key)) + key.encode())
        end = at + 8 + len(key)
        fields += [at, end, end + 4, end + 8, end + 12, end + 16]
    for tensor in tensors:
        at = raw.index(struct.pack("<Q", len(tensor.name)) + tensor.name.encode())
        end = at + 8 + len(tensor.name)
        fields += [at, *range(end, end + 4 + 8 * len(tensor.shape) + 12, 4)]
    return [at for at in fields if at < len(raw)]


def exact(kind: ValueType, value: object) -> bool:
    """Whether a value has one encoding only: a true BOOL is any byte but 0, a float32 NaN may be quieted."""
    if kind is GGUFValueType.FLOAT32:
        return value == value
    if isinstance(kind, ArrayType):
        return kind.item is not GGUFValueType.BOOL and all(exact(inner, None) for inner in kind.inner)
    return kind is not GGUFValueType.BOOL


def check_whole(header: Header, size: int) -> None:
    for key, value in header.metadata.items():
        kind = header.metadata.types[key]
        written = encode_value(key, value, kind)[4:]
        assert len(written) == len(header.metadata._raw[key])
        if exact(kind, value):
            assert written == header.metadata._raw[key]
    for tensor in header.tensors:
        assert header.data_start <= tensor.offset <= tensor.offset + tensor.nbytes <= size
        assert tensor.nbytes > 0 and len(tensor.shape) <= 4


def outcome(raw: bytes) -> bool:
    """Whether the bytes load; False after a GGUFError of one line that names the file."""
    try:
        header = parse_header(raw, "mutant")
    except GGUFError as error:
        assert str(error).startswith("mutant: ") and "\n" not in str(error)
        return False
    check_whole(header, len(raw))
    return True


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("mutants") / "m.gguf"
    package_file(path)
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_mutants_of_a_small_file(sample: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    header = parse_header(sample, "sample")
    fields = structure(sample, header.metadata, header.tensors)
    loaded = 0
    tracemalloc.start()
    for _ in range(500):
        mutant = mutate(sample, fields, rng)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loaded += outcome(mutant)
        assert tracemalloc.get_traced_memory()[1] - before < 32 * len(sample)
    tracemalloc.stop()
    assert 20 < loaded < 480  # both outcomes are reached


@given(edits=st.lists(st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_mutants_that_hypothesis_finds(sample: bytes, edits: list[tuple[int, bytes]]) -> None:
    raw = bytearray(sample)
    for at, piece in edits:
        raw[at : at + len(piece)] = piece
    outcome(bytes(raw))


@given(tail=st.binary(max_size=200), n_tensors=st.integers(0, 3), n_keys=st.integers(0, 3))
def test_noise_after_a_sound_beginning(tail: bytes, n_tensors: int, n_keys: int) -> None:
    outcome(b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + tail)


@pytest.fixture
def sparse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, bytes]]:
    """The header of a real model in a sparse file of the model's size, without its data."""
    source = real_model(request.param)
    with open_gguf(source) as file:
        start = min(tensor.offset for tensor in file.tensors.values())
    path = tmp_path / "m.gguf"
    with source.open("rb") as model:
        raw = model.read(start)
    path.write_bytes(raw)
    os.truncate(path, source.stat().st_size)
    yield path, raw
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("sparse", REAL, indirect=True)
def test_mutants_of_real_headers(sparse: tuple[Path, bytes]) -> None:
    """Damage in place, around the fields of a real header, undone after each."""
    path, raw = sparse
    rng = np.random.default_rng(11)
    with open_gguf(path) as opened:
        fields = structure(raw, opened.metadata, opened.tensors.values())
    loaded = 0
    with path.open("r+b", buffering=0) as file:
        for _ in range(100):
            at = int(rng.choice(fields)) if rng.integers(4) else int(rng.integers(len(raw) - 8))
            value = EXTREMES[rng.integers(len(EXTREMES))].to_bytes(8, "little")
            size = int(rng.choice([1, 4, 8]))
            os.pwrite(file.fileno(), value[:size], at)
            try:
                with open_gguf(path) as opened:
                    assert all(opened.data(name).size == t.nbytes for name, t in opened.tensors.items())
                    loaded += 1
            except GGUFError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            os.pwrite(file.fileno(), raw[at : at + size], at)
    assert 0 < loaded < 100
    open_gguf(path).close()  # as it was
