"""What is drawn: the data of matplotlib's artists."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps

import ref_engine
from ref_engine import plot, views
from ref_engine.model import Model


@pytest.fixture(scope="module")
def moe(golden: Path) -> Model:
    return ref_engine.load(golden / "models" / "tiny-moe.gguf", n_threads=1)


@pytest.fixture(scope="module")
def ids(moe: Model) -> list[int]:
    return moe.tokenize("And the king said $5")


def is_png(figure: object) -> bool:
    out = io.BytesIO()
    figure.savefig(out)  # type: ignore[attr-defined]
    return out.getvalue().startswith(b"\x89PNG")


def test_tokens(moe: Model, ids: list[int]) -> None:
    view = views.tokens(moe, ids)
    figure = plot.tokens(view, moe.detokenize)
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == plot.readable(ids, moe.detokenize)
    boxes = [text.get_bbox_patch().get_facecolor() for text in texts[1:]]  # type: ignore[union-attr]
    np.testing.assert_allclose(boxes, colormaps["YlGnBu"](np.exp(view.after.logprob[:-1])))
    assert is_png(figure)


def test_layers(moe: Model, ids: list[int]) -> None:
    view = views.layers(moe, ids, top=1)
    figure = plot.layers(view, moe.detokenize)
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(np.asarray(image.get_array()), np.exp([row.logprobs[:, 0] for row in view.rows]))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["0", "1", "2", "3", "output"]
    assert len(figure.axes[0].texts) == 5 * len(ids) and is_png(figure)


def test_attention(moe: Model, ids: list[int]) -> None:
    view = views.attention(moe, ids, 2)
    figure = plot.attention(view)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == [f"head {i}" for i in range(6)]
    for axes, values in zip(drawn, view.maps, strict=False):
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), values)
    one = plot.attention(views.attention(moe, ids, 2, head=1), plot.readable(ids, moe.detokenize))
    assert [t.get_text() for t in one.axes[0].get_xticklabels()] == plot.readable(ids, moe.detokenize)
    assert "largest of each square" in plot.attention(views.attention(moe, ids, 2, size=3)).get_suptitle()
    assert is_png(figure) and is_png(one)


def test_experts_and_load(moe: Model, ids: list[int]) -> None:
    view = views.experts(moe, ids)
    figure = plot.experts(view, plot.readable(ids, moe.detokenize))
    (image,) = figure.axes[0].images
    rgba = np.asarray(image.get_array()).reshape(4, 2, len(ids), 4)  # layers, choices, tokens
    numbers = np.array([int(t.get_text()) for t in figure.axes[0].texts]).reshape(4, 2, len(ids))
    for i, r in enumerate(view):
        np.testing.assert_array_equal(numbers[i], r.ids.T)
        np.testing.assert_allclose(rgba[i, 0, :, 3], 1)  # the best one is solid
        np.testing.assert_allclose(rgba[i, 1, :, 3], 0.1 + 0.9 * r.weights[:, 1] / r.weights[:, 0], rtol=1e-5)
    for e in range(8):  # an expert has one colour wherever it is
        assert len(np.unique(rgba[numbers == e][:, :3], axis=0)) <= 1
    bars = plot.load(view)
    for axes, r in zip(bars.axes, view, strict=True):
        assert [bar.get_height() for bar in axes.patches] == r.load.tolist()  # type: ignore[attr-defined]
        assert axes.lines[0].get_ydata() == [2 * len(ids) / 8] * 2
    assert is_png(figure) and is_png(bars)


def test_norms_times_and_memory(moe: Model, ids: list[int]) -> None:
    norms = views.norms(moe, ids)
    lines = {str(line.get_label()): line for line in plot.norms(norms).axes[0].lines}
    np.testing.assert_allclose(np.asarray(lines["l_out"].get_ydata()), np.median(norms.values["l_out"], axis=1))
    times = views.times(moe, ids, repeat=1)
    figure = plot.times(times, most=4)
    widths = [bar.get_width() for bar in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert len(widths) == 4 and sum(widths) == pytest.approx(1e3 * times.seconds)
    parts = views.memory(moe)
    widths = [bar.get_width() for bar in plot.memory(parts).axes[0].patches]  # type: ignore[attr-defined]
    assert widths == [part.nbytes / 2**20 for part in parts]


def test_matplotlib_is_asked_for_when_something_is_drawn(golden: Path) -> None:
    """Importing needs none; drawing without it is one clear error. No window, no list of open figures."""
    code = """
import sys
from ref_engine import plot, views
assert "matplotlib" not in sys.modules
from ref_engine.views import MemoryPart
plot.memory([MemoryPart("a", "weights", 1)])
assert "matplotlib.pyplot" not in sys.modules
for name in [name for name in sys.modules if name.startswith("matplotlib")]:
    del sys.modules[name]
sys.modules["matplotlib"] = None
try:
    plot.memory([MemoryPart("a", "weights", 1)])
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=golden.parent)
    assert done.stdout.strip() == "RefEngineError pictures need matplotlib: pip install 'ref-engine[plot]'"
