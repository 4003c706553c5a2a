"""Train the small mixture of experts of golden/models: 3.7 million parameters, seven kinds of text.

    python golden/make/train_moe.py --sword DIR/usr/share/sword --work WORK     # 20 minutes of one core
    python golden/make/moe_golden.py --sword DIR/usr/share/sword --work WORK    # the files of golden/models

Writes WORK/tiny-moe-f32.gguf, the trained weights with their tokenizer, and WORK/training.json, the loss curve.
moe_text.py says what to install. One thread and one seed: the same machine gives the same file again.

Loss: cross-entropy, and three small terms on the router probabilities p (means over layers):
balance   E sum_e f_e mean(p_e), f_e the share of the choices that expert e got lately (Fedus et al. 2021); over many
          batches of all kinds, so that a batch of one kind may go to few experts (Qiu et al. 2025)
focus     entropy of p averaged over a window of text, which is of one kind: fewer experts per kind
z         squared logsumexp of the router logits (Zoph et al. 2022)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import tokenizers
import torch
import torch.nn.functional as F
from moe_model import ARCH, Config, Model, Muon
from moe_text import Kind, kinds
from torch import Tensor

END = "<|endoftext|>"  # between pieces of text; also BOS
# windows of each kind in one deck of 20: a batch takes the next ones
DECK = {"python": 4, "c": 3, "docs": 4, "tables": 1, "verse": 3, "spanish": 3, "russian": 2}
SAMPLE = 400_000  # characters per kind for the tokenizer
IdArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """How to train; `matrix_rate` (Muon), `other_rate` and `router_rate` (AdamW) are the highest learning rates."""

    steps: int = 900
    batch: int = 4
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    router_rate: float = 0.0015
    balance: float = 0.05
    focus: float = 0.02
    z: float = 3e-4
    memory: float = 0.97  # of the experts' recent shares
    # (step, share of the highest rates), straight in between: rise, level, fall, end
    rates: tuple[tuple[int, float], ...] = ((-1, 0.0), (99, 1.0), (500, 1.0), (850, 0.3), (900, 0.0))
    every: int = 50  # steps per point of the curve


def train_tokenizer(texts: Sequence[Kind], n_vocab: int) -> tokenizers.Tokenizer:
    """Byte-level BPE with GPT-2's pre-tokenizer, on equally much of each kind."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[END],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    samples = []
    for kind in texts:
        share = max(1, sum(map(len, kind.train)) // SAMPLE)
        samples += kind.train[::share]
    tokenizer.train_from_iterator(samples, trainer)
    return tokenizer


def encode(tokenizer: tokenizers.Tokenizer, pieces: Sequence[str]) -> IdArray:
    """The pieces one after another, each behind the end-of-text token."""
    end = tokenizer.token_to_id(END)
    ids = [[end, *found.ids] for found in tokenizer.encode_batch(list(pieces), add_special_tokens=False)]
    return np.array([i for piece in ids for i in piece], np.int32)


def batches(ids: dict[str, IdArray], plan: Plan, n_ctx: int, seed: int) -> Iterator[Tensor]:
    """(batch, n_ctx + 1) windows from anywhere in the training text, kinds as in DECK."""
    draw = np.random.RandomState(seed)
    deck: list[str] = []
    while True:
        rows = []
        for _ in range(plan.batch):
            if not deck:
                deck = [name for name, n in DECK.items() for _ in range(n)]
                draw.shuffle(deck)
            source = ids[deck.pop()]
            start = draw.randint(0, len(source) - n_ctx)
            rows.append(source[start : start + n_ctx + 1])
        yield torch.from_numpy(np.stack(rows)).long()


def entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-9).log()).sum(-1)


class RouterLoss:
    """The three terms; remembers the experts' shares (L, E) over recent batches."""

    def __init__(self, config: Config, plan: Plan) -> None:
        self.plan = plan
        self.share = torch.full((config.n_layer, config.n_expert), 1 / config.n_expert)
        self.entropy = 0.0  # of the last batch, nats per token

    def __call__(self, logits: Tensor, chosen: Tensor) -> Tensor:
        """logits (L, B, T, E), chosen (L, B, T, TOP)."""
        plan, n_expert = self.plan, logits.shape[-1]
        p = logits.softmax(-1)
        now = F.one_hot(chosen, n_expert).float().mean((1, 2, 3))
        self.share.lerp_(now, 1 - plan.memory)
        balance = n_expert * (self.share * p.mean((1, 2))).sum(-1).mean()
        focus = entropy(p.mean(2)).mean()
        self.entropy = entropy(p.detach()).mean().item()
        z = logits.logsumexp(-1).square().mean()
        return plan.balance * balance + plan.focus * focus + plan.z * z


def optimizers(model: Model, plan: Plan) -> list[torch.optim.Optimizer]:
    matrices, routers, others = [], [], []
    for name, parameter in model.named_parameters():
        if name.endswith("ffn_gate_inp"):
            routers.append(parameter)
        else:
            (matrices if parameter.ndim > 1 and name != "token_embd" else others).append(parameter)
    groups = [{"params": others, "lr": plan.other_rate}, {"params": routers, "lr": plan.router_rate}]
    return [Muon(matrices, lr=plan.matrix_rate), torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)]


class Run:
    """A training run that can be put down and taken up."""

    def __init__(self, model: Model, ids: dict[str, IdArray], plan: Plan, seed: int) -> None:
        self.model, self.plan, self.step = model, plan, 0
        self.source = batches(ids, plan, model.config.n_ctx, seed)
        self.router_loss = RouterLoss(model.config, plan)
        self.choosers = optimizers(model, plan)
        self.highest = [[group["lr"] for group in chooser.param_groups] for chooser in self.choosers]
        self.losses: list[float] = []

    def save(self, path: Path) -> None:
        choosers = [chooser.state_dict() for chooser in self.choosers]
        torch.save((self.model.state_dict(), choosers, self.router_loss.share, self.losses), path)

    def load(self, path: Path) -> None:
        model, choosers, self.router_loss.share, self.losses = torch.load(path)
        self.model.load_state_dict(model)
        for chooser, state in zip(self.choosers, choosers, strict=True):
            chooser.load_state_dict(state)
        for _ in self.losses:
            next(self.source)
        self.step = len(self.losses)

    def rates(self) -> None:
        share = float(np.interp(self.step, *zip(*self.plan.rates, strict=True)))
        for chooser, highest in zip(self.choosers, self.highest, strict=True):
            for group, top in zip(chooser.param_groups, highest, strict=True):
                group["lr"] = top * share

    def advance(self) -> None:
        window = next(self.source)
        logits, routers, chosen = self.model(window[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        (loss + self.router_loss(routers, chosen)).backward()
        self.rates()
        for chooser in self.choosers:
            chooser.step()
            chooser.zero_grad(set_to_none=True)
        self.losses.append(loss.item())
        self.step += 1

    def curve(self) -> list[dict[str, float]]:
        """Mean cross-entropy, nats per token, of every `plan.every` steps."""
        every = self.plan.every
        ends = range(every, len(self.losses) + 1, every)
        return [{"step": end, "nats_per_token": round(sum(self.losses[end - every : end]) / every, 4)} for end in ends]


def fit(run: Run, work: Path) -> None:
    """To the end of the plan; WORK/at-STEP.pt every now and then."""
    began, first = time.monotonic(), run.step
    while run.step < run.plan.steps:
        run.advance()
        if run.step % run.plan.every == 0:
            point, seconds = run.curve()[-1], (time.monotonic() - began) / (run.step - first)
            least, doubt = run.router_loss.share.min().item(), run.router_loss.entropy
            told = f"least share {least:.3f}, entropy {doubt:.2f}, {seconds:.2f} s/step"
            print(f"{run.step:5} {point['nats_per_token']:.4f} nats, {told}", flush=True)
            run.save(work / f"at-{run.step:04}.pt")


def write_gguf(model: Model, tokenizer: tokenizers.Tokenizer, out: Path) -> None:
    c = model.config
    writer = gguf.GGUFWriter(str(out), ARCH)
    writer.add_name("ref-engine tiny MoE")
    writer.add_license("MIT")
    writer.add_description(
        "Seven kinds of text, eight experts, two per token: small enough to watch every routing decision"
    )
    writer.add_context_length(c.n_ctx)
    writer.add_embedding_length(c.n_embd)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(c.n_used * c.n_ff)
    writer.add_expert_feed_forward_length(c.n_ff)
    writer.add_expert_count(c.n_expert)
    writer.add_expert_used_count(c.n_used)
    writer.add_head_count(c.n_head)
    writer.add_head_count_kv(c.n_head_kv)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.eps)
    state = json.loads(tokenizer.to_str())["model"]
    words = sorted(state["vocab"], key=state["vocab"].__getitem__)
    end = state["vocab"][END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if w == END else gguf.TokenType.NORMAL for w in words])
    writer.add_token_merges([" ".join(pair) for pair in state["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(True)
    for name, parameter in model.named_parameters():
        writer.add_tensor(f"{name}.weight", parameter.detach().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="train the small mixture of experts")
    parser.add_argument("--sword", type=Path, default=Path("/usr/share/sword"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="an at-STEP.pt of a run with the same seed")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    config, plan = Config(), Plan()
    texts = kinds(args.sword)
    tokenizer = train_tokenizer(texts, config.n_vocab)
    ids = {kind.name: encode(tokenizer, kind.train) for kind in texts}
    print({name: len(found) for name, found in ids.items()})
    model = Model(config, args.seed)
    print(sum(p.numel() for p in model.parameters()), "parameters")
    run = Run(model, ids, plan, args.seed)
    if args.resume:
        run.load(args.resume)
    fit(run, args.work)
    write_gguf(model, tokenizer, args.work / "tiny-moe-f32.gguf")
    facts = {
        "seed": args.seed,
        "config": asdict(config),
        "plan": asdict(plan),
        "deck": DECK,
        "train_tokens": {name: len(found) for name, found in ids.items()},
        "curve": run.curve(),
    }
    (args.work / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
