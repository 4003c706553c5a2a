"""A small mixture of experts in torch, with the layer that GGUF files of architecture `qwen3moe` describe.

Per layer: RMSNorm, grouped-query attention with RMSNorm on each query and key head and rotary positions (second half
against first), RMSNorm, router softmax(x W_r), the best TOP experts with weights scaled to sum 1, SiLU-gated experts.
The embedding matrix is the output matrix too. Parameters are named as in the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ARCH = "qwen3moe"


@dataclass(frozen=True)
class Config:
    n_vocab: int = 2048
    n_ctx: int = 512
    n_embd: int = 192
    n_layer: int = 4
    n_head: int = 6
    n_head_kv: int = 2
    head_dim: int = 32
    n_ff: int = 160  # of one expert
    n_expert: int = 8
    n_used: int = 2
    rope_base: float = 10000.0
    eps: float = 1e-6


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps).to(x.dtype) * weight


def rotary(config: Config, n: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (n, head_dim / 2)."""
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    angle = torch.arange(n, dtype=torch.float64)[:, None] * config.rope_base**-powers
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """x (..., n, head_dim)."""
    cos, sin = table
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.attn_norm = nn.Parameter(torch.ones(c.n_embd))
        self.attn_q = nn.Parameter(torch.empty(c.n_head * c.head_dim, c.n_embd))
        self.attn_k = nn.Parameter(torch.empty(c.n_head_kv * c.head_dim, c.n_embd))
        self.attn_v = nn.Parameter(torch.empty(c.n_head_kv * c.head_dim, c.n_embd))
        self.attn_output = nn.Parameter(torch.empty(c.n_embd, c.n_head * c.head_dim))
        self.attn_q_norm = nn.Parameter(torch.ones(c.head_dim))
        self.attn_k_norm = nn.Parameter(torch.ones(c.head_dim))
        self.ffn_norm = nn.Parameter(torch.ones(c.n_embd))
        self.ffn_gate_inp = nn.Parameter(torch.empty(c.n_expert, c.n_embd))
        self.ffn_gate_exps = nn.Parameter(torch.empty(c.n_expert, c.n_ff, c.n_embd))
        self.ffn_up_exps = nn.Parameter(torch.empty(c.n_expert, c.n_ff, c.n_embd))
        self.ffn_down_exps = nn.Parameter(torch.empty(c.n_expert, c.n_embd, c.n_ff))

    def attention(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        c, (batch, n, _) = self.config, x.shape
        q = F.linear(x, self.attn_q).view(batch, n, c.n_head, c.head_dim)
        k = F.linear(x, self.attn_k).view(batch, n, c.n_head_kv, c.head_dim)
        v = F.linear(x, self.attn_v).view(batch, n, c.n_head_kv, c.head_dim).transpose(1, 2)
        q = rotate(rms_norm(q, self.attn_q_norm, c.eps).transpose(1, 2), table)
        k = rotate(rms_norm(k, self.attn_k_norm, c.eps).transpose(1, 2), table)
        k, v = (t.repeat_interleave(c.n_head // c.n_head_kv, 1) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(out.transpose(1, 2).reshape(batch, n, -1), self.attn_output)

    def experts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (T, D) -> output (T, D), router logits (T, E), chosen experts (T, TOP)."""
        logits = F.linear(x, self.ffn_gate_inp)
        weight, chosen = logits.softmax(-1).topk(self.config.n_used, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        stacks = (self.ffn_gate_exps.unbind(), self.ffn_up_exps.unbind(), self.ffn_down_exps.unbind())
        for e, (gate, up, down) in enumerate(zip(*stacks, strict=True)):
            token, place = (chosen == e).nonzero(as_tuple=True)
            mine = x[token]
            hidden = F.silu(F.linear(mine, gate)) * F.linear(mine, up)
            out = out.index_add(0, token, F.linear(hidden, down) * weight[token, place, None])
        return out, logits, chosen

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x = x + self.attention(rms_norm(x, self.attn_norm, self.config.eps), table)
        flat = rms_norm(x, self.ffn_norm, self.config.eps).reshape(-1, self.config.n_embd)
        out, logits, chosen = self.experts(flat)
        return x + out.view_as(x), logits, chosen


class Model(nn.Module):
    def __init__(self, config: Config, seed: int) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Parameter(torch.empty(config.n_vocab, config.n_embd))
        self.blk = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.output_norm = nn.Parameter(torch.ones(config.n_embd))
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                std = 0.02 if name == "token_embd" else parameter.shape[-1] ** -0.5
                if name.endswith(("attn_output", "ffn_down_exps")):
                    std /= (2 * config.n_layer) ** 0.5
                if name.endswith("ffn_gate_inp"):  # nearly equal chances at first
                    std /= 4
                nn.init.normal_(parameter, 0.0, std, generator=generator)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ids (B, T) -> logits (B, T, V), router logits (L, B, T, E), chosen experts (L, B, T, TOP)."""
        x = F.embedding(ids, self.token_embd)
        table = rotary(self.config, ids.shape[1])
        routers, choices = [], []
        for layer in self.blk:
            x, logits, chosen = layer(x, table)
            routers.append(logits.view(*ids.shape, -1))
            choices.append(chosen.view(*ids.shape, -1))
        x = rms_norm(x, self.output_norm, self.config.eps)
        return F.linear(x, self.token_embd), torch.stack(routers), torch.stack(choices)


class Muon(torch.optim.Optimizer):
    """Steepest descent under the spectral norm: the momentum's nearest (nearly) orthogonal matrix is the step.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers"; five Newton-Schulz steps with its coefficients.
    Stacked matrices (experts) are taken one by one.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                step = orthogonal(p.grad.lerp(buffer, group["momentum"]))
                p.add_(step, alpha=-group["lr"] * max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5)


def orthogonal(x: Tensor) -> Tensor:
    wide = x.shape[-2] <= x.shape[-1]
    y = x if wide else x.mT
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = y @ y.mT
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ y
    return y if wide else y.mT
