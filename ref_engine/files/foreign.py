"""Says what a file is that carries another format's bytes under a .gguf name, so that the error helps."""

SNIFF_BYTES = 512
"""How much of the beginning `describe` wants to see."""

_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer; the model itself was not downloaded"),
    (b"lmgg", "a legacy GGML model (ggml); convert it to GGUF"),
    (b"fmgg", "a legacy GGML model (ggmf); convert it to GGUF"),
    (b"tjgg", "a legacy GGML model (ggjt); convert it to GGUF"),
    (b"ggjt", "a legacy GGML model (ggjt); convert it to GGUF"),
    (b"ggml", "a legacy GGML model (ggml); convert it to GGUF"),
    (b"algg", "a legacy GGML adapter (ggla)"),
    (b"FUGG", "a GGUF file with its bytes swapped (big-endian)"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint, a wheel?)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x80\x02", "a Python pickle (an old PyTorch checkpoint?)"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"\x7fELF", "an executable"),
    (b"%PDF", "a PDF document"),
)


def describe(head: bytes, size: int) -> str:
    """Name the format of a file that is not GGUF.

    `head` is its beginning (`SNIFF_BYTES` or the whole file), `size` its length in bytes.
    """
    for magic, meaning in _MAGIC:
        if head.startswith(magic):
            return meaning
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "a safetensors file; convert it to GGUF"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "an HTML page (a login or error page saved in place of the model?)"
    if text.startswith(b"<?xml"):
        return "an XML document (an error message saved in place of the model?)"
    if text.startswith((b'{"', b"{}", b"[{")):
        return "a JSON document (an error message saved in place of the model?)"
    if not head.strip(b"\0"):
        return "zeros at the beginning (an unfinished download?)"
    return f"unknown (it begins with the bytes {head[:4].hex(' ')}, not with 'GGUF')"
