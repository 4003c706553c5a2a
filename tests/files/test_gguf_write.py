"""Writing: read back by our reader and by the gguf package's, and nothing left behind by a failure."""

import hashlib
import os
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf_samples import REAL, package_file, real_model
from hypothesis import given
from hypothesis import strategies as st

from ref_engine.errors import GGUFError
from ref_engine.files import ArrayType, GGMLType, GGUFFile, GGUFValueType, ValueType, open_gguf, write_gguf
from ref_engine.files.encode import encode_value

INTS = {f"{sign}INT{bits}": bits for sign in ("U", "") for bits in (8, 16, 32, 64)}


def copy(source: GGUFFile, path: Path) -> None:
    tensors = [(t.name, t.shape, t.type, source.data(t.name)) for t in source.tensors.values()]
    write_gguf(path, source.metadata, tensors, types=source.types)


def test_a_package_file_is_copied_byte_for_byte(tmp_path: Path) -> None:
    package_file(tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        copy(file, tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_is_copied_byte_for_byte(tmp_path: Path, name: str) -> None:
    path = real_model(name)
    with open_gguf(path) as file:
        copy(file, tmp_path / "copy.gguf")
    digests = []
    for model in (path, tmp_path / "copy.gguf"):
        with model.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    assert digests[0] == digests[1]
    (tmp_path / "copy.gguf").unlink()


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_normal((3, 64)).astype(np.float32)
    packed = rng.integers(0, 256, 2 * 34, np.uint8)
    metadata: dict[str, object] = {
        "general.architecture": "llama",
        "general.alignment": 64,
        "n": 7,
        "negative": -7,
        "large": 2**40,
        "f": 0.5,
        "double": 0.1,
        "on": True,
        "text": "漢字\n",
        "ints": [1, -2, 3],
        "floats": [1, 0.25],
        "bools": [True, False],
        "words": ["a", "", "é"],
        "array": np.arange(4, dtype=np.uint16),
    }
    tensors = [
        ("a", (3, 64), GGMLType.F32, values),
        ("b", (2, 32), GGMLType.Q8_0, packed),
        ("c", (), GGMLType.I8, b"\x05"),
    ]
    path = tmp_path / "m.gguf"
    write_gguf(path, metadata, tensors, types={"double": GGUFValueType.FLOAT64})
    reader = GGUFReader(path)
    assert reader.alignment == 64
    names = {
        "n": "UINT32", "negative": "INT32", "large": "UINT64", "f": "FLOAT32", "double": "FLOAT64",
        "on": "BOOL", "text": "STRING",
        "ints": "INT32", "floats": "FLOAT32", "bools": "BOOL", "words": "STRING",
        "array": "UINT16", "general.alignment": "UINT32",
    }  # fmt: skip
    for key, kind in names.items():
        field = reader.get_field(key)
        assert field is not None
        assert field.types[-1].name == kind, key
        value = metadata[key]
        assert field.contents() == (value.tolist() if isinstance(value, np.ndarray) else value), key
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    assert theirs["a"].data.tolist() == values.tolist()
    assert theirs["b"].data.tobytes() == packed.tobytes()
    assert theirs["c"].data.tobytes() == b"\x05"
    assert all(int(tensor.data_offset) % 64 == 0 for tensor in reader.tensors)


def scalars() -> st.SearchStrategy[tuple[object, ValueType]]:
    ranges = [
        st.tuples(st.integers(0, 2**bits - 1), st.just(GGUFValueType[name]))
        if name[0] == "U"
        else st.tuples(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), st.just(GGUFValueType[name]))
        for name, bits in INTS.items()
    ]
    others = [
        st.tuples(st.floats(width=32, allow_nan=False), st.just(GGUFValueType.FLOAT32)),
        st.tuples(st.floats(allow_nan=False), st.just(GGUFValueType.FLOAT64)),
        st.tuples(st.booleans(), st.just(GGUFValueType.BOOL)),
        st.tuples(st.binary(max_size=300).map(escaped), st.just(GGUFValueType.STRING)),
    ]
    return st.one_of(*ranges, *others)


def escaped(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


@st.composite
def arrays(draw: st.DrawFn) -> tuple[object, ValueType]:
    """A list of items of one type, the type of the first being that of all."""
    value, kind = draw(scalars())
    assert isinstance(kind, GGUFValueType)
    rest = draw(st.lists(scalars().filter(lambda pair: pair[1] is kind), max_size=2))
    return [value, *(item for item, _ in rest)], ArrayType(kind)


def nests(inner: st.SearchStrategy[tuple[object, ValueType]]) -> st.SearchStrategy[tuple[object, ValueType]]:
    def join(pairs: list[tuple[object, ValueType]]) -> tuple[object, ValueType]:
        types = tuple(kind for _, kind in pairs if isinstance(kind, ArrayType))
        return [value for value, _ in pairs], ArrayType(GGUFValueType.ARRAY, types)

    return st.lists(inner, max_size=3).map(join)


def plain(value: object) -> object:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


@given(pairs=st.lists(st.one_of(scalars(), arrays(), nests(arrays()), nests(nests(arrays()))), max_size=5))
def test_any_metadata_comes_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[object, ValueType]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    metadata = {f"k{i}": value for i, (value, _) in enumerate(pairs)}
    types = {f"k{i}": kind for i, (_, kind) in enumerate(pairs)}
    write_gguf(path, metadata, [], types=types)
    with open_gguf(path) as file:
        assert {key: plain(value) for key, value in file.metadata.items()} == metadata
        assert dict(file.types) == types


def test_the_rule_for_types_that_are_not_given() -> None:
    cases: list[tuple[object, ValueType]] = [
        (2**32 - 1, GGUFValueType.UINT32),
        (2**32, GGUFValueType.UINT64),
        (-(2**31), GGUFValueType.INT32),
        (-(2**31) - 1, GGUFValueType.INT64),
        (np.int16(3), GGUFValueType.INT16),
        (np.float64(3), GGUFValueType.FLOAT64),
        (b"ab", GGUFValueType.STRING),
        ([2**31], ArrayType(GGUFValueType.UINT32)),
        ([2**31, -1], ArrayType(GGUFValueType.INT64)),
        ([2**64 - 1], ArrayType(GGUFValueType.UINT64)),
        ((1, 2.5), ArrayType(GGUFValueType.FLOAT32)),
        (np.zeros(2, bool), ArrayType(GGUFValueType.BOOL)),
        ([["a"], np.zeros(1, np.int8)], ArrayType(GGUFValueType.ARRAY)),
    ]
    for value, kind in cases:
        assert encode_value("k", value) == encode_value("k", value, kind), value
        first = struct.unpack_from("<I", encode_value("k", value))[0]
        assert first == (9 if isinstance(kind, ArrayType) else kind), value


U8, F32, TEXT = GGUFValueType.UINT8, GGUFValueType.FLOAT32, GGUFValueType.STRING
CYCLE: list[object] = []
CYCLE.append(CYCLE)
BAD_VALUES: dict[str, tuple[object, ValueType | None, str]] = {
    "none": (None, None, "a value of type NoneType cannot be stored"),
    "dict": ({}, None, "a value of type dict cannot be stored"),
    "complex array": (np.zeros(2, complex), None, "a value of type ndarray cannot be stored"),
    "huge": (2**64, None, "no GGUF integer type holds 18446744073709551616"),
    "empty": ([], None, "the item type of an empty array must be given"),
    "mixed": ([1, "a"], None, "the items of an array must be of one type"),
    "range": (256, U8, "256 does not fit the type UINT8"),
    "bool as int": (True, U8, "True does not fit the type UINT8"),
    "int as bool": (1, GGUFValueType.BOOL, "1 does not fit the type BOOL"),
    "float as int": (1.0, U8, "1.0 does not fit the type UINT8"),
    "str as float": ("1", F32, "a value of type str does not fit the type FLOAT32"),
    "float range": (1e39, F32, "a value is out of the range of FLOAT32"),
    "items": ([1, -1], ArrayType(U8), "-1 does not fit the type UINT8"),
    "array of other": (np.array([300]), ArrayType(U8), "300 does not fit the type UINT8"),
    "two axes": (np.zeros((2, 2)), None, "must have one dimension, not 2"),
    "scalar as array": (3, ArrayType(U8), "expected a list, a tuple or a NumPy array, not int"),
    "list as string": (["a"], TEXT, "expected a string, not list"),
    "surrogate": ("\ud800", None, "character 0 cannot be written as UTF-8"),
    "cycle": (CYCLE, None, "arrays are nested more than 8 deep"),
    "inner": ([[1]], ArrayType(GGUFValueType.ARRAY, (ArrayType(U8),) * 2), "1 inner arrays, but types for 2"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_metadata(tmp_path: Path, case: str) -> None:
    value, kind, message = BAD_VALUES[case]
    with pytest.raises(GGUFError) as error:
        write_gguf(tmp_path / "m.gguf", {"bad": value}, [], types={"bad": kind} if kind is not None else None)
    assert str(error.value).startswith(f"{tmp_path / 'm.gguf'}: metadata key 'bad': ")
    assert message in str(error.value)
    assert os.listdir(tmp_path) == []


def broken() -> Iterator[bytes]:
    yield bytes(8)
    raise ZeroDivisionError("from the data")


BAD_TENSORS = {
    "twice": ([("t", (4,), GGMLType.F32, bytes(16))] * 2, "tensor 't' is there twice"),
    "no name": ([("", (4,), GGMLType.F32, bytes(16))], "must be 1 to 65535 bytes long"),
    "five": ([("t", (1,) * 5, GGMLType.F32, bytes(4))], "has 5 dimensions"),
    "zero": ([("t", (0,), GGMLType.F32, b"")], "has the impossible shape [0]"),
    "blocks": ([("t", (2, 33), GGMLType.Q4_0, b"")], "a row of 33 weights is not a whole number of Q4_0"),
    "short": ([("t", (4,), GGMLType.F32, bytes(15))], "tensor 't' of 16 bytes was given 1 bytes too few"),
    "long": ([("t", (4,), GGMLType.F32, bytes(17))], "tensor 't' of 16 bytes was given too many bytes"),
    "chunks": ([("t", (4,), GGMLType.F32, lambda: [bytes(8)] * 3)], "was given too many bytes"),
    "dtype": (
        [("t", (4,), GGMLType.F32, np.zeros(2))],
        "tensor 't' of type F32 was given an array of float64",
    ),
    "text": ([("t", (4,), GGMLType.F32, lambda: "abcd")], "tensor 't' was given str instead of bytes"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_leave_no_file(tmp_path: Path, case: str) -> None:
    tensors, message = BAD_TENSORS[case]
    (tmp_path / "m.gguf").write_bytes(b"as before")
    with pytest.raises(GGUFError) as error:
        write_gguf(tmp_path / "m.gguf", {}, tensors)
    assert message in str(error.value)
    assert os.listdir(tmp_path) == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_bytes() == b"as before"


def test_an_error_of_the_data_passes_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="from the data"):
        write_gguf(tmp_path / "m.gguf", {}, [("t", (4,), GGMLType.F32, broken)])
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(GGUFError, match=r"missing/m\.gguf: cannot write: No such file or directory"):
        write_gguf(tmp_path / "missing" / "m.gguf", {}, [])
    with pytest.raises(GGUFError, match="folder: cannot write: Is a directory"):
        write_gguf(tmp_path / "folder", {}, [])
    assert os.listdir(tmp_path) == ["folder"]


def test_alignment(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensors = [(name, (3,), GGMLType.F32, bytes(12)) for name in "ab"]
    write_gguf(path, {"k": 1}, tensors, alignment=128)
    with open_gguf(path) as file:
        assert file.metadata["general.alignment"] == 128
        assert file.tensors["b"].offset - file.tensors["a"].offset == 128
    with pytest.raises(GGUFError, match=r"the alignment 32 contradicts general\.alignment = 64"):
        write_gguf(path, {"general.alignment": 64}, tensors, alignment=32)
    for bad in (0, 4, 48):
        with pytest.raises(GGUFError, match=f"the alignment {bad} is not a power of two"):
            write_gguf(path, {}, tensors, alignment=bad)
    with pytest.raises(GGUFError, match=r"general\.alignment must be an integer"):
        write_gguf(path, {"general.alignment": "32"}, tensors)


def test_kinds_of_data(tmp_path: Path) -> None:
    """Buffers of every kind, arrays that are not contiguous, functions, and a file copied onto itself."""
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    kinds = {
        "array": values,
        "turned": np.asfortranarray(values),
        "bytes": values.tobytes(),
        "bytearray": bytearray(values.tobytes()),
        "view": memoryview(values),
        "function": lambda: values,
        "chunks": lambda: (line for line in values),
    }
    path = tmp_path / "m.gguf"
    write_gguf(path, {}, [(name, values.shape, GGMLType.F32, data) for name, data in kinds.items()])
    with open_gguf(path) as file:
        copy(file, path)
    with open_gguf(path) as file:
        for name in kinds:
            assert file.data(name).view("<f4").reshape(3, 4).tolist() == values.tolist(), name


def test_streaming_holds_one_chunk(tmp_path: Path) -> None:
    """64 MiB in 1 MiB chunks: the writer keeps none of them."""
    chunk = 1 << 20

    def data() -> Iterator[bytes]:
        for i in range(16):
            yield bytes([i]) * chunk

    tensors = [(f"t{i}", (16 * chunk,), GGMLType.I8, data) for i in range(4)]
    tracemalloc.start()
    write_gguf(tmp_path / "m.gguf", {}, tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * chunk
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.data("t3")[-1] == 15
