"""Files that must be refused, each with one line that says what is wrong."""

import io
import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import gguf
import pytest
from gguf_samples import by_hand, package_file, pair, row, text

from ref_engine.errors import GGUFError
from ref_engine.files import open_gguf
from ref_engine.files.cursor import Cursor
from ref_engine.files.values import Budget, read_value

U64 = 2**64 - 1


def refuse(path: Path, content: bytes | None, message: str) -> None:
    """Opening gives one line that begins with the path and contains `message`, and takes little memory."""
    if content is not None:
        path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(GGUFError) as error:
        open_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert peak < 1 << 21


def counts(n_tensors: int, n_keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + bytes(4096)


def array(item: int, count: int) -> bytes:
    return struct.pack("<IQ", item, count)


def nested(depth: int) -> bytes:
    return array(9, 1) * (depth - 1) + array(4, 1) + struct.pack("<I", 5)


HEADERS = {
    "version 0": (by_hand(version=0), "GGUF version 0 is not known"),
    "version 1": (by_hand(version=1), "GGUF version 1 is not supported"),
    "version 4": (by_hand(version=4), "GGUF version 4 is not known; versions 2 and 3 are"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "short magic": (b"GG", "truncated: the file has only 2 bytes"),
    "no version": (b"GGUF\3", "truncated or damaged: the version"),
    "no counts": (b"GGUF" + struct.pack("<IQ", 3, 0), "the metadata count"),
    "key count": (counts(0, U64), f"claims {U64} metadata keys"),
    "tensor count": (counts(U64, 0), f"claims {U64} tensors"),
    "keys missing": (by_hand()[:-8] + struct.pack("<Q", 2), "the length of metadata key 0 at byte 24"),
    "key length": (by_hand([struct.pack("<Q", U64)]), f"metadata key 0 is {U64} bytes long"),
    "empty key": (by_hand([pair("", 4, bytes(4))]), "metadata key 0 is 0 bytes long"),
    "key not UTF-8": (
        by_hand([pair(b"a\xff", 4, bytes(4))]),
        "metadata key 0 is not valid UTF-8 (byte 1 of it)",
    ),
    "key twice": (by_hand([pair("k", 4, bytes(4))] * 2), "the metadata key 'k' is there twice"),
    "key with a line end": (by_hand([pair("a\nb", 99, b"")]), "the type of 'a\\nb' is 99"),
    "value type": (
        by_hand([pair("k", 13, bytes(8))]),
        "the type of 'k' is 13, which is not a GGUF value type",
    ),
    "value cut": (
        by_hand([pair("k", 10, bytes(7))]),
        "the value of 'k' at byte 37 needs 8 bytes and 7 are left",
    ),
    "string length": (by_hand([pair("k", 8, struct.pack("<Q", U64))]), "the string 'k'"),
    "string length 2^63": (by_hand([pair("k", 8, struct.pack("<Q", 1 << 63))]), "the string 'k'"),
    "item type": (by_hand([pair("k", 9, array(13, 1) + bytes(8))]), "the item type of 'k' is 13"),
    "items": (by_hand([pair("k", 9, array(4, U64) + bytes(64))]), f"the array 'k' of {U64} items"),
    "bools": (by_hand([pair("k", 9, array(7, 1 << 40) + bytes(64))]), "the array 'k'"),
    "strings": (
        by_hand([pair("k", 9, array(8, 1 << 21) + bytes(64))]),
        "needs 16777216 bytes and 64 are left",
    ),
    "too many strings": (
        by_hand([pair("k", 9, array(8, U64) + bytes(64))]),
        "over its limit of 2097152 strings",
    ),
    "last string": (
        by_hand([pair("k", 9, array(8, 2) + text("a") + struct.pack("<Q", 9))]),
        "a string of the array",
    ),
    "string too long": (
        by_hand([pair("k", 9, array(8, 99) + struct.pack("<Q", U64 - 7) + bytes(98 * 8))]),
        "a string of the array 'k' of 99 items at byte 49",
    ),
    "last of many strings": (
        by_hand([pair("k", 9, array(8, 100) + text("a") * 99 + struct.pack("<Q", 200) + bytes(10))]),
        "a string of the array 'k' of 100 items",
    ),
    "arrays": (by_hand([pair("k", 9, array(9, U64) + bytes(64))]), "the array 'k'"),
    "too many arrays": (
        by_hand([pair("k", 9, array(9, 65537) + array(0, 0) * 65537)]),
        "over its limit of 65536 nested arrays",
    ),
    "depth": (by_hand([pair("k", 9, nested(9))]), "the array 'k' is nested more than 8 deep"),
    "deep recursion": (by_hand([pair("k", 9, array(9, 1) * 100000)]), "nested more than 8 deep"),
    "alignment type": (
        by_hand([pair("general.alignment", 10, struct.pack("<Q", 32))]),
        "general.alignment must be of type UINT32",
    ),
    **{
        f"alignment {n}": (
            by_hand([pair("general.alignment", 4, struct.pack("<I", n))]),
            f"the alignment {n} is not a power of two of 8 or more",
        )
        for n in (0, 1, 4, 13, 24, 2**32 - 1)
    },
}

ROWS = {
    "no name": ([row("", [4], 0, 0)], "the name of tensor 0 is 0 bytes long"),
    "name not UTF-8": ([row(b"\x80", [4], 0, 0)], "the name of tensor 0 is not valid UTF-8"),
    "name twice": ([row("t", [4], 0, 0), row("t", [4], 0, 32)], "tensor 't' is there twice"),
    "dimensions": ([row("t", [1] * 5, 0, 0)], "tensor 't' has 5 dimensions; at most 4"),
    "many dimensions": ([text("t") + struct.pack("<I", 2**32 - 1)], "tensor 't' has 4294967295 dimensions"),
    "zero": ([row("t", [4, 0], 0, 0)], "tensor 't' has the impossible shape [0, 4]"),
    "overflow": ([row("t", [2**32, 2**32], 0, 0)], "tensor 't' has the impossible shape"),
    "wraps to 4": ([row("t", [2**62 + 1, 4], 24, 0)], "tensor 't' has the impossible shape"),
    "bytes overflow": ([row("t", [2**62], 28, 0)], "tensor 't' has the impossible shape"),
    "weights overflow": ([row("t", [2**63], 41, 0)], "tensor 't' has the impossible shape"),
    "negative as int64": ([row("t", [2**63], 24, 0)], "tensor 't' has the impossible shape"),
    "row of blocks": (
        [row("t", [48, 2], 2, 0)],
        "tensor 't': a row of 48 weights is not a whole number of Q4_0",
    ),
    "scalar of blocks": ([row("t", [], 2, 0)], "tensor 't': a row of 1 weights"),
    "type": ([row("t", [4], 43, 0)], "tensor 't' is of the unknown type 43"),
    "negative type": ([row("t", [4], 2**32 - 1, 0)], "tensor 't' is of the unknown type 4294967295"),
    "removed type": ([row("t", [32], 31, 0)], "tensor 't' is of type Q4_0_4_4 (31), which ggml removed"),
    "offset": ([row("t", [4], 0, 8)], "tensor 't' has the offset 8, not a multiple of 32"),
    "far offset": ([row("t", [4], 0, 2**64 - 32)], "truncated or damaged: tensor 't' ends at byte"),
    "past the end": ([row("t", [65], 0, 0)], "truncated or damaged: tensor 't' ends at byte"),
    "overlap": (
        [row("a", [16], 0, 0), row("b", [4], 0, 32)],
        "tensor 'b' overlaps the data of another tensor",
    ),
    "same place": ([row("a", [4], 0, 0), row("b", [4], 0, 0)], "tensor 'b' overlaps"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_bad_header(tmp_path: Path, case: str) -> None:
    refuse(tmp_path / "m.gguf", *HEADERS[case])


@pytest.mark.parametrize("case", ROWS)
def test_bad_tensor_table(tmp_path: Path, case: str) -> None:
    rows, message = ROWS[case]
    refuse(tmp_path / "m.gguf", by_hand(rows=rows, data=256), message)


def test_big_endian_file_of_the_package(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refuse(tmp_path / "m.gguf", None, "the file is big-endian")


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    package_file(tmp_path / "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    last = open_gguf(tmp_path / "m.gguf").tensors["blk.0.ffn_up.weight"]
    cuts = [*range(0, 2000, 7), *range(2000, last.offset + last.nbytes, 61), last.offset + last.nbytes - 1]
    for cut in cuts:
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(GGUFError, match=r"truncated|empty"):
            open_gguf(tmp_path / "cut.gguf")
    (tmp_path / "cut.gguf").write_bytes(whole[: last.offset + last.nbytes])  # padding at the end is not needed
    open_gguf(tmp_path / "cut.gguf").close()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", "x")
    return buffer.getvalue()


def safetensors_bytes() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(4)


FOREIGN = {
    "html": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
    "html upper": (b"\xef\xbb\xbf\r\n <HTML>", "an HTML page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "json": (b'{"error":"Repository not found"}', "a JSON document"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
    "safetensors": (safetensors_bytes(), "a safetensors file"),
    "zip": (zip_bytes(), "a zip archive"),
    "ggjt": (struct.pack("<II", 0x67676A74, 3) + bytes(64), "a legacy GGML model (ggjt)"),
    "ggmf": (struct.pack("<II", 0x67676D66, 1) + bytes(64), "a legacy GGML model (ggmf)"),
    "ggml": (struct.pack("<I", 0x67676D6C) + bytes(64), "a legacy GGML model (ggml)"),
    "gzip": (b"\x1f\x8b\x08\0", "a gzip archive"),
    "zeros": (bytes(4096), "zeros at the beginning (an unfinished download?)"),
    "other": (b"\x01\x02\x03\x04hello", "unknown (it begins with the bytes 01 02 03 04"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_formats_are_named(tmp_path: Path, case: str) -> None:
    content, message = FOREIGN[case]
    refuse(tmp_path / "m.gguf", content, f"not a GGUF file; its content is {message}")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    refuse(tmp_path / "missing.gguf", None, "cannot open: No such file or directory")
    refuse(tmp_path, None, "is a directory, not a file")
    refuse(tmp_path / "empty.gguf", b"", "the file is empty")
    (tmp_path / "link").symlink_to("nowhere")
    refuse(tmp_path / "link", None, "cannot open: No such file or directory")
    os.mkfifo(tmp_path / "pipe.gguf")
    refuse(tmp_path / "pipe.gguf", None, "is not a regular file")
    refuse(Path("/dev/null"), None, "is not a regular file")
    with pytest.raises(GGUFError, match=r"'a\\x00b': cannot open: embedded null byte"):
        open_gguf("a\0b")


def test_a_line_end_in_the_path_does_not_break_the_line(tmp_path: Path) -> None:
    with pytest.raises(GGUFError) as error:
        open_gguf(tmp_path / "a\nb")
    assert "\n" not in str(error.value) and "a\\nb" in str(error.value)


def test_a_header_larger_than_the_limit(tmp_path: Path) -> None:
    """A sparse file of a terabyte that claims all of it as one array."""
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand([pair("k", 9, array(0, (1 << 40) - 100))]))
    os.truncate(path, 1 << 40)
    refuse(path, None, "takes the header over 268435456 bytes, the limit")


def test_the_budget_is_for_all_arrays_of_a_file() -> None:
    raw = b"".join(struct.pack("<I", 9) + array(8, 2) + text("a") * 2 for _ in range(2))
    cursor, budget = Cursor(raw, "file"), Budget(strings=3)
    read_value(cursor, "'k'", budget)
    with pytest.raises(GGUFError, match="the array 'k' of 2 items takes the file over its limit"):
        read_value(cursor, "'k'", budget)
