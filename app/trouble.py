"""The engine's errors in the server's words."""

from __future__ import annotations

from ref_engine.engine import EngineStopped, QueueFull
from ref_engine.errors import ContextFull, RefEngineError, StoreError

from .errors import ApiError

_RETRY_S = 5


def as_api_error(error: Exception) -> ApiError:
    """Any exception. What is not foreseen is "internal", and only its type is told to the client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull | EngineStopped):
        return ApiError("overloaded", str(error), retry_after=_RETRY_S)
    if isinstance(error, ContextFull):
        return ApiError("context_full", str(error))
    if isinstance(error, StoreError):
        return ApiError("not_found" if str(error).startswith(("no model", "model ")) else "invalid", str(error))
    if isinstance(error, RefEngineError):
        return ApiError("invalid", str(error))
    return ApiError("internal", f"internal error: {type(error).__name__}")
