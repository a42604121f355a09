"""LlamaGen's transformer in PyTorch, written anew from its definition, to compare with.

Modules are named as in LlamaGen's checkpoints, so that equal weights can be loaded. The step is
its training's: cross-entropy of every token, AdamW.
"""

import torch
import torch.nn.functional as F
from torch import nn


def linear(inputs, outputs):
  return nn.Linear(inputs, outputs, bias=False)


def rotations(side, head):
  """Cosines and sines: two of [1 side*side head/2], the class's row in front zero."""
  frequencies = 10_000.0 ** (-torch.arange(head // 4, dtype=torch.float64) / (head // 4))
  along = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
  rows, columns = along.repeat_interleave(side, 0), along.repeat(side, 1).view(side * side, -1)
  angles = torch.cat([rows, columns], dim=1)
  first = torch.zeros(1, head // 2, dtype=torch.float64)
  return [torch.cat([first, wave])[:-1].float() for wave in (angles.cos(), angles.sin())]


def rotate(x, cos, sin):
  """Turns neighbouring channels of [B H T d]."""
  a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
  return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


class Attention(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.wqkv, self.wo = linear(width, 3 * width), linear(width, width)

  def forward(self, x, cos, sin):
    q, k, v = self.wqkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return self.wo(h.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
  def __init__(self, width, hidden):
    super().__init__()
    self.w1, self.w3, self.w2 = linear(width, hidden), linear(width, hidden), linear(hidden, width)

  def forward(self, x):
    return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
  def __init__(self, width, heads, hidden):
    super().__init__()
    self.attention, self.feed_forward = Attention(width, heads), FeedForward(width, hidden)
    self.attention_norm = nn.RMSNorm(width, eps=1e-5)
    self.ffn_norm = nn.RMSNorm(width, eps=1e-5)

  def forward(self, x, cos, sin):
    x = x + self.attention(self.attention_norm(x), cos, sin)
    return x + self.feed_forward(self.ffn_norm(x))


class GPT(nn.Module):
  """Tokens [B N] and labels [B] -> logits [B N K]; without dropout."""

  def __init__(self, side=16, codes=16384, classes=1000, width=768, depth=12, heads=12):
    super().__init__()
    hidden = -(-int(8 * width / 3) // 256) * 256
    self.cls_embedding = nn.ModuleDict({'embedding_table': nn.Embedding(classes + 1, width)})
    self.tok_embeddings = nn.Embedding(codes, width)
    self.layers = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
    self.norm, self.output = nn.RMSNorm(width, eps=1e-5), linear(width, codes)
    for parameter in self.parameters():
      if parameter.ndim == 2:
        nn.init.normal_(parameter, std=0.02)
    self.waves = rotations(side, width // heads)

  def forward(self, tokens, labels):
    first = self.cls_embedding['embedding_table'](labels)[:, None]
    x = torch.cat([first, self.tok_embeddings(tokens[:, :-1])], dim=1)
    for layer in self.layers:
      x = layer(x, *self.waves)
    return self.output(self.norm(x))


class Step:
  """A training step: tokens [B N], labels [B] -> the loss."""

  def __init__(self, model):
    self.model = model
    self.optimizer = torch.optim.AdamW(
      model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05
    )

  def __call__(self, tokens, labels):
    loss = F.cross_entropy(self.model(tokens, labels).flatten(0, 1), tokens.flatten())
    self.optimizer.zero_grad()
    loss.backward()
    self.optimizer.step()
    return loss.detach()
