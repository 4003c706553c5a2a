"""Models split over several files, as the gguf package's writer splits them."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from ref_engine.errors import GGUFError
from ref_engine.files import GGMLType, GGUFValueType, open_gguf, write_gguf
from ref_engine.files.header import parse_header


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A model of seven tensors, at most three in a file. Returns the first file and the tensors."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=3)
    writer.add_uint32("llama.block_count", 2)
    rng = np.random.default_rng(3)
    tensors = {f"blk.{i}.w": rng.standard_normal((i + 1, 8)).astype(np.float32) for i in range(7)}
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "m-00001-of-00003.gguf", tensors


def rewrite(path: Path, **changes: int | None) -> None:
    """Change or drop split keys of a shard (`split_no` for `split.no`)."""
    raw = path.read_bytes()
    header = parse_header(raw, "shard")
    metadata, types = dict(header.metadata), dict(header.metadata.types)
    for key, value in changes.items():
        name = key.replace("_", ".")
        metadata.pop(name, None)
        if value is not None:
            metadata[name] = value
            types[name] = GGUFValueType.INT32
    tensors = [(t.name, t.shape, t.type, raw[t.offset : t.offset + t.nbytes]) for t in header.tensors]
    write_gguf(path, metadata, tensors, types=types)


def test_the_first_file_opens_all(model: tuple[Path, dict[str, np.ndarray]]) -> None:
    first, tensors = model
    with open_gguf(first) as file:
        assert [path.name for path in file.paths] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
        assert file.path == first
        assert file.metadata["llama.block_count"] == 2
        assert {t.name: t.shape for t in file.tensors.values()} == {n: a.shape for n, a in tensors.items()}
        assert [t.shard for t in file.tensors.values()] == [0, 0, 0, 1, 1, 1, 2]
        for name, value in tensors.items():
            assert file.data(name).tobytes() == value.tobytes()
        assert not file.data("blk.6.w").flags.writeable


def test_a_shard_reached_through_links(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    """Download caches keep blobs under hashes and link to them: the link's name counts."""
    (tmp_path / "snapshot").mkdir()
    for i in (1, 2, 3):
        blob = (tmp_path / f"m-0000{i}-of-00003.gguf").rename(tmp_path / f"blob{i}")
        (tmp_path / "snapshot" / f"x-0000{i}-of-00003.gguf").symlink_to(blob)
    with open_gguf(tmp_path / "snapshot" / "x-00001-of-00003.gguf") as file:
        assert len(file.tensors) == 7


def refuse(path: Path, named: Path, message: str) -> None:
    with pytest.raises(GGUFError) as error:
        open_gguf(path)
    assert str(error.value).startswith(f"{named}: ") and message in str(error.value)


def test_missing_and_damaged_shards(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    first, _ = model
    third = tmp_path / "m-00003-of-00003.gguf"
    whole = third.read_bytes()
    third.write_bytes(whole[:100])
    refuse(first, third, "truncated or damaged")
    third.write_bytes(b"<html>")
    refuse(first, third, "an HTML page")
    third.unlink()
    refuse(first, third, "cannot open: No such file or directory")


def test_another_shard_than_the_first(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    second = tmp_path / "m-00002-of-00003.gguf"
    refuse(second, second, "this is file 2 of a model split over 3; open m-00001-of-00003.gguf")


def test_a_first_shard_under_another_name(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    for name in ("m.gguf", "m-00001-of-00004.gguf", "m-00002-of-00003.gguf"):
        shutil.copy(model[0], tmp_path / name)
        refuse(tmp_path / name, tmp_path / name, "its name must end in -00001-of-00003.gguf")


def test_shards_in_each_others_place(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    second, third = tmp_path / "m-00002-of-00003.gguf", tmp_path / "m-00003-of-00003.gguf"
    shutil.copy(third, second)
    refuse(model[0], second, "split.no is 2; file 2 of 3 must have 1")


def test_contradicting_keys(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    first, _ = model
    second = tmp_path / "m-00002-of-00003.gguf"
    for path in (first, second):
        rewrite(path, split_tensors_count=8)
        refuse(first, path, "split.tensors.count is 8, but the 3 files hold 7")
        rewrite(path, split_tensors_count=7)
        open_gguf(first).close()
    rewrite(second, split_count=2)
    refuse(first, second, "split.count is 2; file 2 of 3 must have 3")
    rewrite(second, split_count=3, split_tensors_count=None)
    open_gguf(first).close()  # llama.cpp asks only the first file for it
    rewrite(second, split_no=None)
    refuse(first, second, "split.no is None; file 2 of 3 must have 1")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split.count": "three"}, "the metadata key 'split.count' must be an integer"),
        ({"split.count": -2, "split.no": 0}, "split.count is -2"),
        ({"split.count": 2**40, "split.no": 0}, "split.count is 1099511627776"),
        ({"split.count": 2}, "split.count is 2 but split.no is missing"),
    ],
)
def test_keys_that_make_no_sense(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    write_gguf(path, keys, [])
    refuse(path, path, message)


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    for i in (0, 1):
        keys = {"split.no": i, "split.count": 2, "split.tensors.count": 2}
        write_gguf(tmp_path / f"m-0000{i + 1}-of-00002.gguf", keys, [("w", (4,), GGMLType.F32, bytes(16))])
    refuse(
        tmp_path / "m-00001-of-00002.gguf",
        tmp_path / "m-00002-of-00002.gguf",
        "tensor 'w' is also in an earlier shard",
    )


def test_a_merged_model_is_one_file(tmp_path: Path) -> None:
    for count in (0, 1):
        write_gguf(tmp_path / "m.gguf", {"split.no": 0, "split.count": count}, [])
        assert len(open_gguf(tmp_path / "m.gguf").paths) == 1
