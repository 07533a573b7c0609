"""The Llama architecture in plain PyTorch, with parameter names of Hugging Face checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Dimensions of the model."""

    vocabulary: int = 960
    layers: int = 4
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 608
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5
    context: int = 4096


def rope_tables(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, head_dim), in the half-split layout of Hugging Face."""
    half = shape.head_dim // 2
    frequencies = shape.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        split = (batch, length, -1, self.shape.head_dim)
        q = _rotate(self.q_proj(x).view(split).transpose(1, 2), cos, sin)
        k = _rotate(self.k_proj(x).view(split).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(split).transpose(1, 2)
        group = self.shape.heads // self.shape.kv_heads
        k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))
        return out


class _Mlp(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.mlp = _Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """Llama with tied embeddings; `state_dict` keys are those of `LlamaForCausalLM`'s `model`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.norm_eps)
        cos, sin = rope_tables(shape, shape.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor, wanted: Tensor) -> Tensor:
        """Logits (n, vocabulary) at the n places where the mask `wanted` (batch, length) holds."""
        x = self.embed_tokens(tokens)
        cos = self.get_buffer("cos")[positions][:, None]
        sin = self.get_buffer("sin")[positions][:, None]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x[wanted]), self.embed_tokens.weight)

    @torch.no_grad()
    def initialise(self) -> None:
        """Random weights, except that the heads of layer 0 begin by looking one to four tokens back.

        Recall needs heads that know what stood before; given them, the heads that copy appear
        several times sooner. Four back is what tells whose a code is: in "My code is K" that is how
        far the first character stands from "My". Dimension 0 of every embedding begins equal, so
        that a query and a key that depend on position alone can be read off it.
        """
        shape = self.shape
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.mul_(1 / math.sqrt(2 * shape.layers))
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.embed_tokens.weight[:, 0] = 0.2
        constant = 0.2 / math.sqrt(0.2**2 / shape.width + 0.05**2)
        attention = self.layers[0].get_submodule("self_attn")
        q, k = attention.get_parameter("q_proj.weight"), attention.get_parameter("k_proj.weight")
        half, used, strength = shape.head_dim // 2, 11, 6.0
        frequencies = shape.rope_theta ** (-torch.arange(used) / half)
        for head in range(shape.kv_heads):
            start = head * shape.head_dim
            k[start : start + shape.head_dim].zero_()
            k[start : start + used, 0] = strength / constant
        for head in range(shape.heads):
            start, back = head * shape.head_dim, head + 1
            q[start : start + shape.head_dim].zero_()
            q[start : start + used, 0] = torch.cos(back * frequencies) * strength / constant
            q[start + half : start + half + used, 0] = -torch.sin(back * frequencies) * strength / constant
