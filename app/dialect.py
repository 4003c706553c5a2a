"""What every dialect is to `create_app`: addresses, a form for errors, and the answers at addresses that two share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, Response

from .errors import ApiError
from .service import Service


@dataclass(frozen=True)
class Dialect:
    """`error` makes the response for anything that went wrong before a stream began, unknown addresses included.

    `models` and `model` answer GET /v1/models and /v1/models/NAME, which OpenAI and Anthropic both have; None for a
    dialect that has them elsewhere.
    """

    name: str
    blueprint: Callable[[Service], Blueprint]
    error: Callable[[ApiError], Response]
    models: Callable[[Service], Response] | None = None
    model: Callable[[Service, str], Response] | None = None
