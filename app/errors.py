"""What can go wrong with a request, in no dialect's words. Each dialect has a table from `kind` to its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

ErrorKind = Literal[
    "invalid",  # a field that is missing, of another type, out of range, or that does not fit the others
    "unsupported",  # a field that this server knows and refuses by name
    "context_full",  # prompt too long for the context
    "unauthorized",  # no API key or a wrong one
    "forbidden",  # a foreign Origin or Host
    "not_found",  # no such model, blob or address
    "method",  # the address is there, but not for this method
    "too_large",  # the body is over the limit
    "overloaded",  # the queue is full, or the model does not fit the memory beside those that are busy
    "timeout",  # the body did not arrive
    "internal",  # a defect of this program, or a damaged file
]

STATUS: Mapping[ErrorKind, int] = MappingProxyType(
    {
        "invalid": 400,
        "unsupported": 400,
        "context_full": 400,
        "unauthorized": 401,
        "forbidden": 403,
        "not_found": 404,
        "method": 405,
        "timeout": 408,
        "too_large": 413,
        "overloaded": 503,
        "internal": 500,
    }
)


class ApiError(Exception):
    """`message`: one line that names the thing. `param`: the field at fault, as the client wrote it.

    `retry_after`: seconds, for "overloaded".
    """

    def __init__(
        self, kind: ErrorKind, message: str, param: str | None = None, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The usual HTTP status; a dialect may have another (Anthropic: 529 for overloaded)."""
        return STATUS[self.kind]
