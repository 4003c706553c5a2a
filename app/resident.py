"""A model that is loaded: the model, its engine, its chat template and the forms of its thinking and calls."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ref_engine.cli.options import load_model
from ref_engine.cli.presets import Preset, preset_of
from ref_engine.engine import Engine
from ref_engine.model import Model
from ref_engine.text.chat import Capabilities, ChatTemplate, probe, template_for
from ref_engine.text.chat.tools import ToolFormat, choose_format

from .memory import Need
from .settings import Settings


class Resident:
    """Made once for each file in memory. Its parts are immutable, but for the engine, which takes care of itself."""

    def __init__(self, path: Path, model: Model, engine: Engine[Any], preset: Preset | None = None) -> None:
        self.path = path
        self.model = model
        self.engine = engine
        self.preset = preset
        self.tokenizer = model.tokenizer
        self.lead = [id for id in self.tokenizer.added_before if id is not None]

    @cached_property
    def template(self) -> ChatTemplate:
        """The one in the file, else ChatML."""
        return template_for(self.model.metadata, self.tokenizer.vocab.tokens)

    @cached_property
    def capabilities(self) -> Capabilities:
        return probe(self.template)

    @cached_property
    def format(self) -> ToolFormat:
        return choose_format(self.template.source, self.tokenizer)

    @cached_property
    def shown_ids(self) -> frozenset[int]:
        """Control tokens that must be shown for thinking and calls to be found."""
        return self.format.shown_ids(self.tokenizer)


def open_resident(path: Path, need: Need, settings: Settings) -> Resident:
    """Load a file and start its engine. Raises RefEngineError for one that cannot be run."""
    model = load_model(path, n_ctx=need.n_ctx, **settings.engine)
    model.tokenizer  # noqa: B018 - a vocabulary that cannot be used is an error of loading
    engine = Engine(
        model,
        parallel=settings.parallel,
        n_ctx=need.n_ctx,
        max_queue=settings.max_queue,
        name=f"engine {path.name[:20]}",
    )
    return Resident(path, model, engine, preset_of(path))
