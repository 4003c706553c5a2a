"""Pooling, lengths and cuts by hand: a model whose hidden state of token i is (i, 1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ref_engine.errors import ContextFull
from ref_engine.text.tokenizer import load_tokenizer
from ref_engine_app.embedding import embed
from ref_engine_app.errors import ApiError
from ref_engine_app.messages import EmbedRequest

VOCABULARY = {
    "tokenizer.ggml.model": "bert",
    "tokenizer.ggml.tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁a", "▁b", "▁c"],
    "tokenizer.ggml.token_type": [3, 2, 3, 3, 1, 1, 1],
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.cls_token_id": 2,
    "tokenizer.ggml.seperator_token_id": 3,
    "tokenizer.ggml.unknown_token_id": 1,
}


def vectors(text: object, pooling: int | None, n_ctx: int = 16, **options: Any) -> tuple[tuple[float, ...], int]:
    metadata = {} if pooling is None else {"toy.pooling_type": pooling}
    hidden = lambda ids: np.array([[i, 1] for i in ids], np.float32)  # noqa: E731
    resident: Any = SimpleNamespace(
        tokenizer=load_tokenizer(VOCABULARY),
        engine=SimpleNamespace(n_ctx=n_ctx, call=lambda work: work()),
        model=SimpleNamespace(metadata=metadata, spec=SimpleNamespace(arch="toy"), embeddings=hidden),
    )
    (vector,), n_tokens = embed(EmbedRequest("m", (text,), **options), resident)  # type: ignore[arg-type]
    return vector, n_tokens


def unit(*numbers: float) -> Any:
    return pytest.approx([x / np.hypot(*numbers) for x in numbers], rel=1e-12)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [(1, unit((2 + 4 + 5 + 3) / 4, 1)), (2, unit(2, 1)), (3, unit(3, 1)), (0, unit(3, 1)), (None, unit(3, 1))],
)
def test_how_states_become_one_vector(pooling: int | None, expected: Any) -> None:
    """[CLS] a b [SEP] are 2, 4, 5, 3: their mean, the first, the last."""
    assert vectors("a b", pooling) == (expected, 4)


def test_a_ranking_is_no_vector() -> None:
    with pytest.raises(ApiError, match="pooling type 4 gives no embeddings"):
        vectors("a", 4)


def test_a_text_that_is_too_long_keeps_the_mark_of_its_end() -> None:
    """As transformers cuts it: [CLS] a b c -> [CLS] a [SEP] in a context of three."""
    assert vectors("a b c", 1, n_ctx=3) == (unit((2 + 4 + 3) / 3, 1), 3)
    assert vectors((2, 4, 5, 6), 1, n_ctx=3) == (unit((2 + 4 + 5) / 3, 1), 3)  # ids are the caller's own
    with pytest.raises(ContextFull, match="input 0 has 5 tokens, the context 3"):
        vectors("a b c", 1, n_ctx=3, truncate=False)


def test_fewer_dimensions() -> None:
    assert vectors("a", 3, dimensions=1) == ((1.0,), 3)
    with pytest.raises(ApiError, match="2 dimensions, not 3"):
        vectors("a", 3, dimensions=3)
