"""Fixtures of all tests of conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TOOL, write_family


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """checkpoint(NAME, key=value): a directory with that family's files."""
    return lambda name, **config: write_family(name, tmp_path / name, **config)


@pytest.fixture
def tool() -> Any:
    """`draw`, `encode`, `write_safetensors` of golden/make/convert_checkpoint.py."""
    return TOOL
