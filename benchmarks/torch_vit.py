"""Table 4's ViT-VQGAN in PyTorch, written anew from its definition, to compare with.

Modules are named as in enhancing-transformers' checkpoints, so that equal weights can be loaded.
The step is that of the original: pixels, LPIPS and a fixed weight of the GAN, a second forward
pass, the discriminator's update; AdamW for both.
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import torch_peer

HEAD = 64  # width of a head of attention


def positions(side, dim):
  """Sines and cosines of column and row: [1 side*side dim]."""
  frequencies = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
  angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
  waves = torch.cat([angles.sin(), angles.cos()], dim=1)
  columns, rows = waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)
  return torch.cat([columns, rows], dim=2).reshape(1, side * side, dim).float()


class Norm(nn.Module):
  """A layer behind a LayerNorm."""

  def __init__(self, dim, fn):
    super().__init__()
    self.norm, self.fn = nn.LayerNorm(dim), fn

  def forward(self, x):
    return self.fn(self.norm(x))


class Attention(nn.Module):
  def __init__(self, dim, heads):
    super().__init__()
    self.heads = heads
    self.to_qkv = nn.Linear(dim, 3 * heads * HEAD, bias=False)
    self.to_out = nn.Linear(heads * HEAD, dim)

  def forward(self, x):
    q, k, v = self.to_qkv(x).unflatten(2, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
    h = F.scaled_dot_product_attention(q, k, v)
    return self.to_out(h.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
  def __init__(self, dim, hidden):
    super().__init__()
    self.net = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, dim))

  def forward(self, x):
    return self.net(x)


class Transformer(nn.Module):
  def __init__(self, dim, depth, heads, hidden):
    super().__init__()
    self.layers = nn.ModuleList(
      nn.ModuleList([Norm(dim, Attention(dim, heads)), Norm(dim, FeedForward(dim, hidden))])
      for _ in range(depth)
    )
    self.norm = nn.LayerNorm(dim)

  def forward(self, x):
    for attention, feed_forward in self.layers:
      x = x + attention(x)
      x = x + feed_forward(x)
    return self.norm(x)


class Encoder(nn.Module):
  """Images [B 3 H W] -> tokens [B T dim], row by row."""

  def __init__(self, side, patch, dim, depth, heads, hidden):
    super().__init__()
    self.to_patch_embedding = nn.Sequential(nn.Conv2d(3, dim, patch, patch))
    self.en_pos_embedding = nn.Parameter(positions(side, dim), requires_grad=False)
    self.transformer = Transformer(dim, depth, heads, hidden)

  def forward(self, x):
    tokens = self.to_patch_embedding(x).flatten(2).transpose(1, 2)
    return self.transformer(tokens + self.en_pos_embedding)


class Decoder(nn.Module):
  """Tokens [B T dim] -> images [B 3 H W]."""

  def __init__(self, side, patch, dim, depth, heads, hidden):
    super().__init__()
    self.side = side
    self.de_pos_embedding = nn.Parameter(positions(side, dim), requires_grad=False)
    self.transformer = Transformer(dim, depth, heads, hidden)
    self.to_pixel = nn.Sequential(nn.Identity(), nn.ConvTranspose2d(dim, 3, patch, patch))

  def forward(self, z):
    x = self.transformer(z + self.de_pos_embedding)
    return self.to_pixel(x.transpose(1, 2).unflatten(2, (self.side, self.side)))


class Quantizer(torch_peer.Quantizer):
  """The nearest of unit codes to rows [B T D] of length one, and the rotation of those rows."""

  def __init__(self, codes, width):
    super().__init__(codes, width)
    nn.init.normal_(self.embedding.weight)

  def forward(self, z):
    z, codes = z.float(), F.normalize(self.embedding.weight, dim=-1)
    rows = F.normalize(z, dim=-1)
    indices = self.nearest(rows.flatten(0, 1), codes)
    q = F.embedding(indices, codes).view(z.shape)
    loss = 0.25 * F.mse_loss(rows, q.detach()) + F.mse_loss(q, rows.detach())
    return self.rotated(z, q.detach()), loss, indices


class ViTVQGAN(nn.Module):
  """Images [B 3 H W] in [0, 1] -> reconstructions, the quantizer's loss, indices."""

  def __init__(
    self, image_size=256, patch=8, dim=512, depth=8, heads=8, hidden=2048, codes=8192, width=32
  ):
    super().__init__()
    size = image_size // patch, patch, dim, depth, heads, hidden
    self.encoder, self.decoder = Encoder(*size), Decoder(*size)
    self.pre_quant, self.post_quant = nn.Linear(dim, width), nn.Linear(width, dim)
    self.quantizer = Quantizer(codes, width)
    for side in (self.encoder, self.decoder):
      for part in side.modules():
        if isinstance(part, nn.Linear):
          nn.init.xavier_uniform_(part.weight)
          if part.bias is not None:
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
          nn.init.xavier_uniform_(part.weight.view(part.weight.shape[0], -1))

  def forward(self, x):
    z = self.pre_quant(self.encoder(x))
    with torch.autocast(x.device.type, enabled=False):
      z_q, loss, indices = self.quantizer(z)
    return self.decoder(self.post_quant(z_q)), loss, indices


class Step(torch_peer.Step):
  """A step of GAN training, called on images [B 3 H W] in [0, 1]: the tokenizer's loss.

  Without R1, which is due every 16 steps.
  """

  keeps_graph = False

  @staticmethod
  def optimizer(network):
    parameters = network.parameters()
    return torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.99), weight_decay=1e-4)

  def __call__(self, x):
    judge = self.networks[1]
    autocast = torch.autocast(x.device.type, self.amp, enabled=self.amp is not None)
    judge.requires_grad_(False)
    with autocast:
      y, quantizer_loss, _ = self.model(x)
      seen = 2 * x - 1, 2 * y - 1  # by LPIPS
      nll = F.mse_loss(y.float(), x) + 0.1 * self.lpips(*seen).mean()
      fool = F.softplus(-self.discriminator(y).float()).mean()
    loss = nll + 0.1 * fool + quantizer_loss
    self._update(self.optimizers[0], loss)
    judge.requires_grad_(True)

    with torch.no_grad(), autocast:
      fake = self.model(x)[0]
    with autocast:
      real, fake = self.discriminator(x), self.discriminator(fake)
      judged = 0.5 * (F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean())
    self._update(self.optimizers[1], judged)
    return loss.detach()
