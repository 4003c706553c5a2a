"""Pictures of what `ref_engine.views` gives, for notebooks. Needs matplotlib: pip install 'ref-engine[plot]'.

    from ref_engine import plot, views
    ids = m.tokenize("The capital of France is")
    plot.layers(views.layers(m, ids), m.detokenize).savefig("lens.png")

Every function returns a matplotlib Figure and shows nothing itself; `text` makes the text of a list of ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ref_engine.errors import RefEngineError
from ref_engine.views import AttentionMaps, LayerRouting, LogitLens, MemoryPart, Norms, Times, TokenView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Text = Callable[[Sequence[int]], str]
_MAP = "YlGnBu"  # light to dark, readable without colour
_BAR = "#2c7fb8"
_WIDTH = 88  # characters of a line of tokens
_DARK = 0.55  # values above are written in white


def readable(ids: Sequence[int], text: Text) -> list[str]:
    """The texts of tokens as labels of a picture: white space can be seen, and nothing is taken for a formula."""
    return [text([id]).replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥").replace("$", r"\$") for id in ids]


def tokens(view: TokenView, text: Text) -> Figure:
    """The text, each token on the colour of its probability: dark is likely, grey is the first, which has none."""
    shown = readable(view.ids, text)
    lines: list[list[tuple[int, int]]] = [[]]  # (token, column)
    column = 0
    for t, label in enumerate(shown):
        if column + len(label) > _WIDTH and lines[-1]:
            lines.append([])
            column = 0
        lines[-1].append((t, column))
        column += len(label) + 1
    figure, (axes,) = _figure(1, 10, 1.0 + 0.3 * len(lines))
    colours = _colours(_MAP)
    for row, line in enumerate(lines):
        for t, column in line:
            p = None if t == 0 else float(np.exp(view.after.logprob[t - 1]))
            box = {"boxstyle": "square,pad=0.18", "facecolor": "0.85" if p is None else colours(p), "linewidth": 0}
            ink = "white" if p is not None and p > _DARK else "black"
            axes.text(column, -row, shown[t], family="monospace", fontsize=9, color=ink, bbox=box, va="center")
    axes.set(xlim=(-1, _WIDTH + 4), ylim=(-len(lines) + 0.4, 0.6))
    axes.set_axis_off()
    _scale(figure, axes, "probability of the token")
    return figure


def layers(view: LogitLens, text: Text) -> Figure:
    """The logit lens: layers upwards, tokens to the right; each cell has its likeliest token, dark where it is sure."""
    n_rows, n = len(view.rows), len(view.ids)
    p = np.array([np.exp(row.logprobs[:, 0]) for row in view.rows])  # (layers + 1, T)
    figure, (axes,) = _figure(1, 2.2 + 0.85 * n, 1.3 + 0.24 * n_rows)
    axes.imshow(p, cmap=_MAP, vmin=0, vmax=1, aspect="auto", origin="lower")
    for i, row in enumerate(view.rows):
        for t, label in enumerate(readable(row.ids[:, 0].tolist(), text)):
            ink = "white" if p[i, t] > _DARK else "black"
            axes.text(t, i, label[:12], fontsize=7, ha="center", va="center", color=ink)
    axes.set_yticks(range(n_rows), [*map(str, view.layers), "output"], fontsize=7)
    _tokens_below(axes, readable(view.ids, text))
    axes.set(ylabel="layer", title="what each layer would say next")
    _scale(figure, axes, "probability")
    return figure


def attention(view: AttentionMaps, labels: Sequence[str] | None = None) -> Figure:
    """A map for each head: who looks, downwards, at whom, to the right. labels: of all tokens (`readable`)."""
    n = len(view.heads)
    columns = min(n, max(1, round(n**0.5 + 0.4)))
    rows = -(-n // columns)
    side = 4.2 if n == 1 else 2.0
    figure, all_axes = _figure(n, side * columns + 1, side * rows + 0.6, columns)
    largest = float(view.maps.max())
    for axes, head, values in zip(all_axes, view.heads, view.maps, strict=False):
        axes.imshow(values, cmap=_MAP, vmin=0, vmax=max(largest, 1e-9), aspect="auto")
        axes.set_title(f"head {head}", fontsize=8)
        if n == 1 and labels is not None and values.shape[1] <= 40:
            _tokens_below(axes, [labels[k] for k in view.keys])
            axes.set_yticks(range(len(view.queries)), [labels[q] for q in view.queries], fontsize=7)
        else:
            axes.set_xticks([])
            axes.set_yticks([])
    how = ", the largest of each square" if view.downsampled else ""
    figure.suptitle(f"attention of layer {view.layer}{how}", fontsize=10)
    _scale(figure, all_axes, "weight", largest)
    return figure


def experts(view: Sequence[LayerRouting], labels: Sequence[str] | None = None) -> Figure:
    """Who is sent where: a band for each layer with a row for each choice, the best below; colour and number: the
    expert, strength: its weight."""
    n, heights = view[0].ids.shape[0], [r.ids.shape[1] for r in view]
    figure, (axes,) = _figure(1, 2.2 + 0.42 * n, 1.2 + 0.2 * sum(heights))
    picture = np.concatenate([_cells(r) for r in view])
    axes.imshow(picture, aspect="auto", origin="lower", interpolation="nearest")
    if n <= 60:
        for row, numbers in enumerate(np.concatenate([r.ids.T for r in view])):
            for t, e in enumerate(numbers):
                axes.text(t, row, str(e), fontsize=6, ha="center", va="center")
    edges = np.cumsum([0, *heights])
    for edge in edges[1:-1]:
        axes.axhline(edge - 0.5, color="black", linewidth=0.8)
    axes.set_yticks((edges[:-1] + edges[1:] - 1) / 2, [str(r.layer) for r in view])
    axes.set(ylabel="layer", title=f"experts of each token, {view[0].n_expert} in a layer")
    if labels is not None:
        _tokens_below(axes, labels)
    return figure


def load(view: Sequence[LayerRouting]) -> Figure:
    """Tokens sent to each expert, layer by layer; the line is an even share."""
    columns = min(4, len(view))
    figure, all_axes = _figure(len(view), 2.6 * columns, 1.9 * -(-len(view) // columns) + 0.4, columns)
    for axes, r in zip(all_axes, view, strict=False):
        axes.bar(range(r.n_expert), r.load, color=_BAR)
        axes.axhline(r.ids.size / r.n_expert, color="black", linewidth=0.8, linestyle="--")
        axes.set_title(f"layer {r.layer}", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle("tokens of each expert", fontsize=10)
    return figure


def norms(view: Norms) -> Figure:
    """Root mean squares over depth: the median of the tokens as a line, all of them between its edges."""
    figure, (axes,) = _figure(1, 7, 4)
    for name in view.names:
        values = view.values[name]
        there = np.flatnonzero(~np.isnan(values).any(axis=1))
        rows = values[there]
        (line,) = axes.plot(there, np.median(rows, axis=1), label=name, marker=".", linewidth=1.2)
        axes.fill_between(there, rows.min(axis=1), rows.max(axis=1), color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_yscale("log")
    axes.set(xlabel="layer", ylabel="root mean square")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    return figure


def times(view: Times, most: int = 12) -> Figure:
    """Milliseconds by operation, the slowest above; what takes least is put together."""
    rows = [(f"{op.name} {op.tensors}".strip(), 1e3 * op.seconds) for op in view.operations]
    kept, others = rows[: most - 1], rows[most - 1 :]
    if others:
        kept.append((f"{len(others)} others", sum(ms for _, ms in others)))
    title = f"{1e3 * view.seconds:.2f} ms for {view.n_tokens} tokens ({view.backend}, {view.activations})"
    return _bars(kept, "milliseconds", title)


def memory(view: Sequence[MemoryPart]) -> Figure:
    """MiB by part."""
    total = sum(part.nbytes for part in view) / 2**20
    rows = [(f"{part.name} ({part.kind})", part.nbytes / 2**20) for part in view]
    return _bars(rows, "MiB", f"{total:.1f} MiB")


def _bars(rows: Sequence[tuple[str, float]], unit: str, title: str) -> Figure:
    figure, (axes,) = _figure(1, 7.5, 1.0 + 0.3 * len(rows))
    bars = axes.barh(range(len(rows)), [value for _, value in rows], color=_BAR)
    axes.bar_label(bars, [f"{value:.3g}" for _, value in rows], fontsize=7, padding=2)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set(xlabel=unit, title=title)
    return figure


def _cells(r: LayerRouting) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The colours of a layer's choices: (k, T, 4), more transparent the less an expert weighs for its token."""
    names = "tab10" if r.n_expert <= 10 else "hsv"
    rgba = _colours(names)(np.arange(r.n_expert) if r.n_expert <= 10 else np.arange(r.n_expert) / r.n_expert)
    picture = np.array(rgba[r.ids.T], np.float64)
    largest = np.abs(r.weights).max(axis=1)
    picture[..., 3] = 0.1 + 0.9 * (np.abs(r.weights) / np.where(largest > 0, largest, 1)[:, None]).T
    return picture


def _tokens_below(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), labels, rotation=60, fontsize=7, ha="right", rotation_mode="anchor")


def _figure(n: int, width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of n pictures in so many columns. It belongs to no window and to no list of open figures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RefEngineError("pictures need matplotlib: pip install 'ref-engine[plot]'") from None
    figure = Figure(figsize=(min(width, 60), min(height, 60)), layout="constrained")
    rows = -(-n // columns)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def _colours(name: str) -> Callable[..., Any]:
    from matplotlib import colormaps

    return colormaps[name]


def _scale(figure: Figure, axes: Axes | list[Axes], label: str, largest: float = 1.0) -> None:
    """A bar that says which colour is which value, from 0 to the largest."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, largest), _MAP), ax=axes, shrink=0.8)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
