"""Cases for a running server: what the readable engine expects of the same GGUF file.

Two engines that compute one quantised file differ by about as much as one differs from itself when only the batch size
changes, and a near tie then falls the other way; from there on texts part. So a server's tokens are taken as they are:
the reference runs over prompt and answer, and each token may be at most MARGIN nats less likely than the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ref_engine.divergence import F64, log_softmax
from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.verify.case import Case, Finding, NotHere, failed
from ref_engine.verify.engines.server import Reply, Said, Server

PROMPTS = {
    "prose": "The old lighthouse keeper climbed the stairs every evening, and",
    "fact": "The capital of France is",
    "code": "def fibonacci(n):\n    ",
    "list": "Monday, Tuesday, Wednesday,",
    "unicode": "Übermut tut selten gut — 日本語 и",
}
N_TOKENS = 24
MARGIN = 0.5  # nats
MEAN_LOGPROB = 0.2  # nats between the server's ln p and the reference's, over the tokens of an answer
WORST_LOGPROB = 1.5
_SUM = 1.001  # of the probabilities that a server lists for one position


@dataclass(frozen=True)
class Expected:
    """The reference's view of one answer: token ids, and ln p (n + 1, V) before each of them and after the last."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    log_probs: F64


class Asked:
    """One prompt, asked once; every case about it looks at the same answer, or the same error."""

    def __init__(self, server: Server, model: Model, prompt: str) -> None:
        self._server, self.model, self.prompt = server, model, prompt

    @cached_property
    def _outcome(self) -> Reply | RefEngineError:
        try:
            return self._server.complete(self.prompt, N_TOKENS)
        except RefEngineError as error:
            return error

    @property
    def reply(self) -> Reply:
        if isinstance(self._outcome, RefEngineError):
            raise self._outcome
        return self._outcome

    @cached_property
    def expected(self) -> Expected:
        prompt = self.model.tokenize(self.prompt)
        ids = self._ids(prompt)
        logits = self.model.logits([*prompt, *ids])[len(prompt) - 1 :]
        return Expected(tuple(prompt), tuple(ids), np.stack([log_softmax(row) for row in logits]))

    def _ids(self, prompt: Sequence[int]) -> list[int]:
        """The ids of the answer: as the server tells its tokens, else as its text is tokenised after the prompt."""
        if self.reply.said is not None:
            told = [self.id_of(token) for token in self.reply.said]
            if None not in told:
                return [id for id in told if id is not None]
        whole = self.model.tokenize(self.prompt + self.reply.text)
        if whole[: len(prompt)] == list(prompt):
            return whole[len(prompt) :]
        return self.model.tokenize(self.reply.text, add_special=False)

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        """The lowest id of each spelling."""
        tokenizer = self.model.tokenizer
        found: dict[bytes, int] = {}
        for id in range(len(tokenizer.vocab.tokens)):
            found.setdefault(tokenizer.token_bytes(id), id)
        return found

    def id_of(self, token: Said) -> int | None:
        if token.id is not None and 0 <= token.id < self.model.spec.n_vocab:
            return token.id
        return self._by_bytes.get(token.raw)


def cases(server: Server, model: Model) -> list[Case]:
    """model: the reference, loaded from the file that the server runs."""
    found = []
    checks: dict[str, Callable[[Asked], Finding]] = {
        "greedy": greedy,
        "logprobs": logprobs,
        "prompt-tokens": prompt_tokens,
        "tokens": tokens,
    }
    for name, prompt in PROMPTS.items():
        asked = Asked(server, model, prompt)
        for check, run in checks.items():
            found.append(Case(f"server/{name}/{check}", check, "", partial(run, asked)))
    return found


def greedy(asked: Asked) -> Finding:
    """Each token of the answer is the reference's best one, or nearly; and it ends where the reference may end."""
    expected, reply = asked.expected, asked.reply
    losses = [float(row.max() - row[id]) for row, id in zip(expected.log_probs[:-1], expected.ids, strict=True)]
    limit = f"no token more than {MARGIN:g} nats behind the best"
    figures = {"tokens": float(len(losses)), "worst step": max(losses, default=0.0)}
    for i, (loss, id) in enumerate(zip(losses, expected.ids, strict=True)):
        if loss > MARGIN:
            best = int(expected.log_probs[i].argmax())
            return Finding(
                False,
                f"token {i} is {_spelt(asked.model, id)}, the reference expects {_spelt(asked.model, best)}, "
                f"{loss:.2f} nats more likely",
                limit,
                figures,
            )
    if len(expected.ids) < N_TOKENS and not _ended(expected.ids, asked.model):
        ends = [id for id in asked.model.tokenizer.vocab.eog_ids if id < asked.model.spec.n_vocab]
        row = expected.log_probs[-1]
        behind = float(row.max() - row[ends].max()) if ends else math.inf
        if behind > MARGIN:
            reason = f" ({reply.reason})" if reply.reason else ""
            onward = _spelt(asked.model, int(row.argmax()))
            text = (
                f"it ended after {len(expected.ids)} of {N_TOKENS} tokens{reason}, the reference goes on with {onward}"
            )
            return Finding(False, text, limit, figures)
    return Finding(True, "", limit, figures)


def logprobs(asked: Asked) -> Finding:
    """ln p of the answer's tokens is the reference's, and what is listed beside them can be probabilities."""
    said, expected = asked.reply.said, asked.expected
    if said is None:
        raise NotHere("the server gives no logprobs")
    if len(said) != len(expected.ids):
        return failed(f"{len(said)} tokens have logprobs, the answer has {len(expected.ids)}")
    off = []
    for i, (token, row, id) in enumerate(zip(said, expected.log_probs, expected.ids, strict=False)):
        for spelling, value in ((token.raw, token.logprob), *token.top):
            if value > 1e-4:
                return failed(f"token {i}: {spelling!r} has ln p {value:.4g}, above zero")
        total = sum(math.exp(value) for _, value in token.top)
        if total > _SUM:
            return failed(f"token {i}: the probabilities listed add up to {total:.4g}")
        off.append(abs(token.logprob - float(row[id])))
    mean, worst = float(np.mean(off)), int(np.argmax(off))
    figures = {"mean difference": mean, "largest difference": off[worst]}
    limit = f"mean difference <= {MEAN_LOGPROB:g} nats, largest <= {WORST_LOGPROB:g}"
    if mean <= MEAN_LOGPROB and off[worst] <= WORST_LOGPROB:
        return Finding(True, "", limit, figures, (worst,))
    want = float(expected.log_probs[worst, expected.ids[worst]])
    message = f"mean difference {mean:.3g} nats; worst at token {worst}: {said[worst].logprob:.4g}, expected {want:.4g}"
    return Finding(False, message, limit, figures, (worst,), said[worst].logprob, want)


def prompt_tokens(asked: Asked) -> Finding:
    count, want = asked.reply.n_prompt, len(asked.model.tokenize(asked.prompt))
    return _same_count(count, (want,), "tokens of the prompt")


def tokens(asked: Asked) -> Finding:
    """The count of the answer's tokens; whether one that ends it is counted is the server's affair."""
    n = len(asked.expected.ids)
    if asked.reply.n_tokens is not None and asked.reply.n_tokens > N_TOKENS:
        return failed(f"{asked.reply.n_tokens} tokens, {N_TOKENS} were asked for")
    return _same_count(asked.reply.n_tokens, (n,) if n >= N_TOKENS else (n, n + 1), "tokens of the answer")


def _same_count(count: int | None, want: tuple[int, ...], what: str) -> Finding:
    if count is None:
        raise NotHere(f"the server does not tell the number of {what}")
    wanted = " or ".join(map(str, want))
    if count in want:
        return Finding(True, "", f"{wanted} {what}", {"counted": float(count)})
    return Finding(False, f"{count} {what}, expected {wanted}", f"{wanted} {what}", {"counted": float(count)})


def _ended(ids: Sequence[int], model: Model) -> bool:
    return bool(ids) and ids[-1] in model.tokenizer.vocab.eog_ids


def _spelt(model: Model, id: int) -> str:
    return f"{model.tokenizer.token_bytes(id).decode('utf-8', 'replace')!r} ({id})"
