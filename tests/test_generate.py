"""The loop on a model whose logits are written down, with a vocabulary of a dozen byte strings."""

import codecs
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.generate import Event, generate, new_sampler
from ref_engine.sample import GREEDY, SamplingParams

EOS, BOS, A, B, HASH, NL, E1, E2, PAD, END, AB, LONE = range(12)
PIECES = [b"</s>", b"<s>", b"a", b"b", b"#", b"\n", b"\xc3", b"\xa9", b"pad", b"<end>", b"ab", b"\xff"]
CONTROL = {EOS, BOS, END}


class ToyDecoder:
    def __init__(self, special: bool) -> None:
        self.special = special
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return "" if token in CONTROL and not self.special else self.utf8.decode(PIECES[token])

    def flush(self) -> str:
        return self.utf8.decode(b"", final=True)


@dataclass
class ToyVocab:
    eog_ids: tuple[int, ...] = (EOS, END)


@dataclass
class ToyTokenizer:
    vocab: ToyVocab = field(default_factory=ToyVocab)
    n_vocab: int = len(PIECES)

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return [BOS] * add_special + [PIECES.index(char.encode()) for char in text]

    def token_bytes(self, token: int) -> bytes:
        return PIECES[token]

    def stream(self, special: bool = False) -> ToyDecoder:
        return ToyDecoder(special)


@dataclass
class ToyCache:
    n_ctx: int
    tokens: list[int] = field(default_factory=list)

    @property
    def n_past(self) -> int:
        return len(self.tokens)

    def truncate(self, n: int) -> None:
        del self.tokens[n:]


@dataclass
class ScriptedModel:
    """Answers with `script`, whatever the prompt: asked for the i-th time it prefers script[i]; then EOS."""

    script: Sequence[int]
    n_ctx: int = 64
    tokenizer: ToyTokenizer = field(default_factory=ToyTokenizer)
    calls: list[list[int]] = field(default_factory=list)
    fail: Callable[[int], None] = lambda call: None

    def new_cache(self) -> ToyCache:
        return ToyCache(self.n_ctx)

    def last_logits(self, ids: Sequence[int], cache: ToyCache) -> np.ndarray:
        cache.tokens += ids  # before the failure: the worst case for the cache
        self.fail(len(self.calls))
        assert cache.n_past <= cache.n_ctx
        logits = np.zeros(len(PIECES), np.float32)
        at = len(self.calls)
        logits[self.script[at] if at < len(self.script) else EOS] = math.log(11.0)  # 1/2; the others 1/22 each
        self.calls.append(list(ids))
        return logits


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events]


def run(script: Sequence[int], *, n_ctx: int = 64, **options: object) -> list[Event]:
    return list(generate(ScriptedModel(script, n_ctx), [BOS], params=GREEDY, **options))  # type: ignore[arg-type]


# --- events -----------------------------------------------------------------------------------------------


def test_one_event_per_token_and_the_last_says_why() -> None:
    model = ScriptedModel([A, B, AB])
    cache = model.new_cache()
    events = list(generate(model, [BOS, A], params=GREEDY, cache=cache))
    assert texts(events) == ["a", "b", "ab", ""]
    assert [event.token for event in events] == [A, B, AB, EOS]
    assert [event.finish_reason for event in events] == [None, None, None, "stop"]
    assert "".join(event.text for event in events) == "abab"
    assert model.calls == [[BOS, A], [A], [B], [AB]]
    assert cache.tokens == [BOS, A, A, B, AB]  # the end token is not forwarded


def test_logprobs() -> None:
    event = run([A], logprobs=3)[0]
    assert event.logprob == pytest.approx(math.log(1 / 2), abs=1e-6)
    assert [(t.token, t.logprob) for t in event.top_logprobs] == [
        (A, pytest.approx(math.log(1 / 2), abs=1e-6)),
        (EOS, pytest.approx(math.log(1 / 22), abs=1e-6)),
        (BOS, pytest.approx(math.log(1 / 22), abs=1e-6)),
    ]
    assert run([A])[0].top_logprobs == ()


@pytest.mark.parametrize("end", [EOS, END])
def test_every_end_token_ends_and_shows_nothing(end: int) -> None:
    events = run([A, end, B], special=True)
    assert (texts(events), events[-1].finish_reason, events[-1].token) == (["a", ""], "stop", end)


def test_ignore_eos_goes_on_with_the_next_best() -> None:
    events = run([A, EOS, END, B], ignore_eos=True, max_tokens=4)
    assert [event.token for event in events] == [A, BOS, BOS, B]  # of the others BOS has the lowest id
    assert events[-1].finish_reason == "length"


def test_control_tokens_are_hidden_unless_asked_for() -> None:
    assert texts(run([A, BOS, B])) == ["a", "", "b", ""]
    assert texts(run([A, BOS, B], special=True)) == ["a", "<s>", "b", ""]


# --- text -------------------------------------------------------------------------------------------------


def test_a_character_is_never_split() -> None:
    assert texts(run([A, E1, E2, B])) == ["a", "", "é", "b", ""]


@pytest.mark.parametrize(("script", "limit"), [([A, E1], None), ([A, E1], 2)])
def test_a_broken_character_is_shown_at_the_end(script: list[int], limit: int | None) -> None:
    assert "".join(texts(run(script, max_tokens=limit))) == "a�"


def test_stop_string_over_several_tokens() -> None:
    events = run([A, HASH, HASH, HASH, B], stop=["###"])
    assert texts(events) == ["a", "", "", ""]
    assert (events[-1].finish_reason, events[-1].stop_sequence) == ("stop_sequence", "###")
    assert len(events) == 4


def test_stop_string_inside_a_token() -> None:
    events = run([A, AB, B], stop="b")
    assert (texts(events), events[-1].stop_sequence) == (["a", "a"], "b")


def test_what_was_held_back_comes_when_it_is_no_stop_string() -> None:
    events = run([A, HASH, HASH, B], stop=["###"])
    assert texts(events) == ["a", "", "", "##b", ""]
    assert events[-1].finish_reason == "stop" and events[-1].stop_sequence is None


def test_what_is_held_back_at_the_end_is_shown() -> None:
    assert texts(run([A, HASH, HASH], stop=["###"])) == ["a", "", "", "##"]
    assert texts(run([A, HASH, HASH, HASH], stop=["###"], max_tokens=3)) == ["a", "", "##"]


def test_stop_string_with_a_character_in_two_tokens() -> None:
    events = run([A, E1, E2], stop=["é"])
    assert (texts(events), events[-1].finish_reason) == (["a", "", ""], "stop_sequence")


def test_stop_string_that_the_last_flush_completes() -> None:
    events = run([A, E1], stop=["�"])
    assert (texts(events), events[-1].finish_reason) == (["a", "", ""], "stop_sequence")
    assert run([A, LONE, B], stop=["�"])[-1].finish_reason == "stop_sequence"


def test_stop_string_is_told_before_the_limit() -> None:
    assert run([A, B], stop=["b"], max_tokens=2)[-1].finish_reason == "stop_sequence"


def test_stop_string_in_the_prompt_does_not_count() -> None:
    model = ScriptedModel([A])
    assert texts(list(generate(model, [BOS, HASH], params=GREEDY, stop=["#a"]))) == ["a", ""]


# --- limits -----------------------------------------------------------------------------------------------


def test_max_tokens() -> None:
    events = run([A, B, A, B], max_tokens=3)
    assert (texts(events), events[-1].finish_reason) == (["a", "b", "a"], "length")


def test_end_token_is_told_before_the_limit() -> None:
    assert run([A], max_tokens=2)[-1].finish_reason == "stop"


def test_max_tokens_zero_only_fills_the_cache() -> None:
    model = ScriptedModel([A])
    cache = model.new_cache()
    events = list(generate(model, [BOS, A], params=GREEDY, cache=cache, max_tokens=0))
    assert events == [Event("", None, finish_reason="length")]
    assert cache.tokens == [BOS, A]


def test_context_full() -> None:
    events = run([A] * 9, n_ctx=4)
    assert texts(events) == ["a"] * 4  # BOS and three of them are in the context, the fourth has no successor
    assert [event.finish_reason for event in events] == [None, None, None, "context"]
    assert run([A] * 9, n_ctx=4, max_tokens=4)[-1].finish_reason == "length"


def test_prompt_as_long_as_the_context() -> None:
    assert [(e.token, e.finish_reason) for e in run([B], n_ctx=1)] == [(B, "context")]


def test_prompt_longer_than_the_context_is_refused_before_any_work() -> None:
    model = ScriptedModel([A], n_ctx=3)
    cache = ToyCache(3, [BOS])
    with pytest.raises(ContextFull, match="prompt of 3 tokens does not fit: 1 of 3 are used"):
        generate(model, [A, A, A], cache=cache)  # at the call, not at the first event
    assert model.calls == [] and cache.tokens == [BOS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_ids": []}, "prompt is empty"),
        ({"prompt_ids": [BOS, 12]}, "prompt token 12 is outside"),
        ({"prompt_ids": [-1]}, "prompt token -1 is outside"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": [""]}, "stop must"),
        ({"logprobs": -1}, "logprobs"),
        ({"params": SamplingParams(logit_bias={12: 1.0})}, "logit_bias"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(options: dict[str, object], message: str) -> None:
    model = ScriptedModel([A])
    with pytest.raises(RefEngineError, match=message):
        generate(model, **{"prompt_ids": [BOS], **options})  # type: ignore[arg-type]
    assert model.calls == []


# --- the cache --------------------------------------------------------------------------------------------


def test_prompt_is_appended_to_the_cache() -> None:
    model = ScriptedModel([A])
    cache = ToyCache(64, [BOS, B])
    list(generate(model, [HASH], params=GREEDY, cache=cache))
    assert cache.tokens == [BOS, B, HASH, A] and model.calls == [[HASH], [A]]


def test_nothing_is_done_until_the_first_event_is_taken() -> None:
    model = ScriptedModel([A])
    events = generate(model, [BOS])
    assert model.calls == []
    events.close()


def test_closing_leaves_what_was_forwarded() -> None:
    model = ScriptedModel([A, B, A])
    cache = model.new_cache()
    events = generate(model, [BOS], params=GREEDY, cache=cache)
    assert (next(events).token, next(events).token) == (A, B)
    assert cache.tokens == [BOS, A]  # B is not forwarded before its successor is wanted
    events.close()
    assert cache.tokens == [BOS, A]


@pytest.mark.parametrize("call", [0, 1, 2])
def test_interrupt_puts_the_cache_back(call: int) -> None:
    def interrupt(at: int) -> None:
        if at == call:
            raise KeyboardInterrupt

    model = ScriptedModel([A, B, A], fail=interrupt)
    cache = ToyCache(64, [PAD])
    with pytest.raises(KeyboardInterrupt):
        list(generate(model, [BOS], params=GREEDY, cache=cache))
    assert cache.tokens == [PAD, BOS, A][: 1 + call]


# --- the sampler ------------------------------------------------------------------------------------------


def test_prompt_counts_for_penalties() -> None:
    # ten equally likely tokens beside the scripted one: a presence penalty pushes those of the prompt down
    params = SamplingParams(temperature=0.0, presence_penalty=5.0)
    model = ScriptedModel([A, A])
    events = list(generate(model, [BOS, EOS, B], params=params, max_tokens=2))
    assert [event.token for event in events] == [A, HASH]  # not A again, nor EOS, BOS or B


def test_a_sampler_of_the_callers_own() -> None:
    model = ScriptedModel([])
    sampler = new_sampler(model.tokenizer, SamplingParams(), logprobs=2)
    sampler.accept([PAD])
    first = list(generate(model, [BOS], sampler=sampler, max_tokens=8, stop=["nothing"]))
    assert sampler.history == [PAD, BOS] + [event.token for event in first]
    assert all(len(event.top_logprobs) == 2 for event in first)
    again = SamplingParams(seed=sampler.seed)
    repeated = list(generate(ScriptedModel([]), [BOS], params=again, max_tokens=8))
    assert [event.token for event in repeated] == [event.token for event in first]


@pytest.mark.parametrize("options", [{"params": GREEDY}, {"ignore_eos": True}, {"logprobs": 1}])
def test_a_sampler_excludes_its_own_options(options: dict[str, object]) -> None:
    model = ScriptedModel([A])
    sampler = new_sampler(model.tokenizer, GREEDY)
    with pytest.raises(RefEngineError, match="either a sampler or"):
        generate(model, [BOS], sampler=sampler, **options)  # type: ignore[arg-type]


def test_new_sampler_finds_the_breakers_of_the_vocabulary() -> None:
    on = SamplingParams(dry_multiplier=0.8, dry_sequence_breakers=("\n", "#a", "é"))
    assert new_sampler(ToyTokenizer(), on).vocab.breakers == {NL: ((),), HASH: ((A,),)}
    assert new_sampler(ToyTokenizer(), SamplingParams()).vocab.breakers == {}
    assert new_sampler(ToyTokenizer(), SamplingParams(dry_multiplier=1.0, mirostat=2)).vocab.breakers == {}


@dataclass
class Spelled:
    """Allows the tokens of one text, one after the other; then the ends of generation."""

    tokens: list[int]
    open_ended: bool = False
    accepted: list[int] = field(default_factory=list)

    def mask(self) -> np.ndarray:
        mask = np.zeros(len(PIECES), dtype=bool)
        mask[[self.tokens[len(self.accepted)]] if len(self.accepted) < len(self.tokens) else [EOS, END]] = True
        return mask

    def allows(self, token: int) -> bool:
        return bool(self.mask()[token])

    def accept(self, token: int) -> None:
        assert self.mask()[token]
        self.accepted.append(token)

    @property
    def is_accepting(self) -> bool:
        return len(self.accepted) >= len(self.tokens)

    @property
    def is_complete(self) -> bool:
        return self.is_accepting and not self.open_ended


def test_a_text_ends_where_its_grammar_has_nothing_more() -> None:
    model = ScriptedModel([A, A, A, A])
    constraint = Spelled([B, A, AB])
    events = list(generate(model, [BOS], params=GREEDY, constraint=constraint))
    assert [event.token for event in events] == [B, A, AB]
    assert (events[-1].text, events[-1].finish_reason) == ("ab", "stop")


def test_a_text_that_may_go_on_ends_with_a_token() -> None:
    events = list(generate(ScriptedModel([A, A, A]), [BOS], params=GREEDY, constraint=Spelled([B], open_ended=True)))
    assert [event.token for event in events] == [B, EOS]
    assert [event.text for event in events] == ["b", ""]


def test_chosen_control_tokens_are_shown() -> None:
    from ref_engine.text.tokenizer.stream import StreamDecoder

    class Spelling:
        space_prefix = False

        def token_bytes(self, id: int) -> bytes:
            return PIECES[id]

        def is_hidden(self, id: int) -> bool:
            return id in CONTROL

        def opens_text(self, id: int) -> bool:
            return False

    for special, text in ((True, "<s>a</s>"), (False, "a"), ({EOS}, "a</s>"), (frozenset(), "a")):
        decoder = StreamDecoder(Spelling(), special=special, at_start=False)
        assert "".join(decoder.push(id) for id in (BOS, A, EOS)) == text
