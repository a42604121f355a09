"""Table 3's VQGAN in PyTorch, written anew from its definition, to compare with.

Modules are named as in latent-diffusion's checkpoints, so that equal weights can be loaded. The
step is that of the originals: the tokenizer's update with its adaptive weight, a second forward
pass, the discriminator's update; Adam for both.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn


def norm(channels, groups):
  return nn.GroupNorm(groups, channels, eps=1e-6)


class ResBlock(nn.Module):
  def __init__(self, inputs, outputs, groups):
    super().__init__()
    self.norm1, self.norm2 = norm(inputs, groups), norm(outputs, groups)
    self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
    self.nin_shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

  def forward(self, x):
    h = self.conv1(F.silu(self.norm1(x)))
    return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class AttnBlock(nn.Module):
  """One head over all positions."""

  def __init__(self, channels, groups):
    super().__init__()
    self.norm = norm(channels, groups)
    for name in ('q', 'k', 'v', 'proj_out'):
      setattr(self, name, nn.Conv2d(channels, channels, 1))

  def forward(self, x):
    h = self.norm(x)
    q, k, v = (conv(h).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v))
    h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Mid(nn.Module):
  def __init__(self, channels, groups):
    super().__init__()
    self.block_1 = ResBlock(channels, channels, groups)
    self.attn_1 = AttnBlock(channels, groups)
    self.block_2 = ResBlock(channels, channels, groups)

  def forward(self, x):
    return self.block_2(self.attn_1(self.block_1(x)))


class Resample(nn.Module):
  """A 3x3 convolution: of stride 2, padded right and bottom, or behind nearest x2."""

  def __init__(self, channels, down):
    super().__init__()
    self.down = down
    self.conv = nn.Conv2d(channels, channels, 3, *((2, 0) if down else (1, 1)))

  def forward(self, x):
    x = F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0)
    return self.conv(x)


class Level(nn.Module):
  def __init__(self, inputs, outputs, blocks, groups):
    super().__init__()
    widths = [inputs] + [outputs] * blocks
    self.block = nn.ModuleList(ResBlock(a, b, groups) for a, b in itertools.pairwise(widths))

  def forward(self, x):
    for block in self.block:
      x = block(x)
    for name in ('downsample', 'upsample'):
      if hasattr(self, name):
        x = getattr(self, name)(x)
    return x


class Encoder(nn.Module):
  def __init__(self, channels, mult, blocks, z_channels, groups):
    super().__init__()
    widths = [channels, *(channels * m for m in mult)]
    self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
    self.down = nn.ModuleList(Level(a, b, blocks, groups) for a, b in itertools.pairwise(widths))
    for level, width in zip(self.down[:-1], widths[1:], strict=False):
      level.downsample = Resample(width, down=True)
    self.mid = Mid(widths[-1], groups)
    self.norm_out = norm(widths[-1], groups)
    self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

  def forward(self, x):
    x = self.conv_in(x)
    for level in self.down:
      x = level(x)
    return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
  """`forward` ends before `conv_out`, whose kernel the adaptive weight asks for."""

  def __init__(self, channels, mult, blocks, z_channels, groups):
    super().__init__()
    widths = [*(channels * m for m in mult), channels * mult[-1]]
    self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
    self.mid = Mid(widths[-1], groups)
    self.up = nn.ModuleList(
      Level(widths[i + 1], widths[i], blocks + 1, groups) for i in range(len(mult))
    )
    for level, width in zip(self.up[1:], widths[1:], strict=False):
      level.upsample = Resample(width, down=False)
    self.norm_out = norm(channels * mult[0], groups)
    self.conv_out = nn.Conv2d(channels * mult[0], 3, 3, padding=1)

  def forward(self, z):
    x = self.mid(self.conv_in(z))
    for level in reversed(self.up):
      x = level(x)
    return F.silu(self.norm_out(x))


class Quantizer(nn.Module):
  """The nearest code by a dense matrix of distances, as in the originals, and the rotation."""

  def __init__(self, codes, width):
    super().__init__()
    self.embedding = nn.Embedding(codes, width)
    nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

  def forward(self, z):
    z = z.movedim(1, -1).float()
    indices = self.nearest(z.reshape(-1, z.shape[-1]), self.embedding.weight)
    q = self.embedding(indices).view(z.shape)
    loss = F.mse_loss(z, q.detach()) + 0.25 * F.mse_loss(q, z.detach())
    return self.rotated(z, q.detach()).movedim(-1, 1), loss, indices

  @staticmethod
  @torch.no_grad()
  def nearest(rows, codes):
    squares = rows.square().sum(1, keepdim=True) + codes.square().sum(1)
    return torch.argmin(squares - 2 * rows @ codes.T, dim=1)

  @staticmethod
  def rotated(z, q):
    """R z / |z| |q|, where R takes z's direction to q's and is frozen, like |q|."""
    direction, length = z / z.norm(dim=-1, keepdim=True), q.norm(dim=-1, keepdim=True)
    u, v = direction.detach(), q / length
    w = F.normalize(u + v, dim=-1)
    dot = lambda a, b: (a * b).sum(-1, keepdim=True)
    return length * (direction - 2 * dot(w, direction) * w + 2 * dot(u, direction) * v)


class VQGAN(nn.Module):
  """Images [B 3 H W] -> what the decoder's last convolution gets, the quantizer's loss, indices."""

  def __init__(self, channels=128, mult=(1, 2, 4), blocks=2, codes=8192, width=3, groups=32):
    super().__init__()
    self.encoder = Encoder(channels, mult, blocks, width, groups)
    self.decoder = Decoder(channels, mult, blocks, width, groups)
    self.quantize = Quantizer(codes, width)
    self.quant_conv = nn.Conv2d(width, width, 1)
    self.post_quant_conv = nn.Conv2d(width, width, 1)

  def forward(self, x):
    z = self.quant_conv(self.encoder(x))
    with torch.autocast(x.device.type, enabled=False):
      z_q, loss, indices = self.quantize(z)
    return self.decoder(self.post_quant_conv(z_q)), loss, indices


class PatchGAN(nn.Sequential):
  def __init__(self, channels=64, layers=3):
    parts = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = channels
    for i in range(1, layers + 1):
      following = channels * min(2**i, 8)
      stride = 2 if i < layers else 1
      parts += [
        nn.Conv2d(width, following, 4, stride, 1, bias=False),
        nn.BatchNorm2d(following),
        nn.LeakyReLU(0.2),
      ]
      width = following
    super().__init__(*parts, nn.Conv2d(width, 1, 4, 1, 1))
    for part in self:
      if isinstance(part, nn.Conv2d):
        nn.init.normal_(part.weight, 0, 0.02)
      elif isinstance(part, nn.BatchNorm2d):
        nn.init.normal_(part.weight, 1, 0.02)


class LPIPS(nn.Module):
  """The trunk of VGG16 and a weighted distance at five taps; random weights, no dropout."""

  def __init__(self, widths=(64, 128, 256, 512, 512)):
    super().__init__()
    stages, before = [], 3
    for count, width in zip((2, 2, 3, 3, 3), widths, strict=True):
      inputs = [before] + [width] * (count - 1)
      stages.append(nn.ModuleList(nn.Conv2d(i, width, 3, padding=1) for i in inputs))
      before = width
    self.stages = nn.ModuleList(stages)
    self.lins = nn.ParameterList(torch.ones(width) for width in widths)
    for name, values in (('shift', (-0.030, -0.088, -0.188)), ('scale', (0.458, 0.448, 0.450))):
      self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
    self.requires_grad_(False)

  def features(self, x):
    x, taps = (x - self.shift) / self.scale, []
    for i, convs in enumerate(self.stages):
      x = F.max_pool2d(x, 2) if i else x
      for conv in convs:
        x = F.relu(conv(x))
      taps.append(x.float() / (x.float().square().sum(1, keepdim=True).sqrt() + 1e-10))
    return taps

  def forward(self, x, y):
    pairs = zip(self.lins, self.features(x), self.features(y), strict=True)
    return sum((lin @ (a - b).square().flatten(2)).mean(-1) for lin, a, b in pairs)


class Step:
  """A step of GAN training, called on images [B 3 H W] in [-1, 1]: the tokenizer's loss.

  `amp` is the dtype of autocast or None; `compiled` compiles tokenizer, discriminator and LPIPS.
  """

  keeps_graph = True  # for the adaptive weight

  def __init__(self, model, discriminator, lpips, amp=None, compiled=False):
    self.networks, self.amp = (model, discriminator), amp
    self.optimizers = [*map(self.optimizer, self.networks)]
    if compiled:
      # Buffers that are given away would forbid to keep the graph.
      torch._functorch.config.donated_buffer = not self.keeps_graph
      model, discriminator, lpips = map(torch.compile, (model, discriminator, lpips))
    self.model, self.discriminator, self.lpips = model, discriminator, lpips

  @staticmethod
  def optimizer(network):
    return torch.optim.Adam(network.parameters(), lr=7.2e-5, betas=(0.5, 0.9))

  def __call__(self, x):
    last, judge = self.networks[0].decoder.conv_out, self.networks[1]
    autocast = torch.autocast(x.device.type, self.amp, enabled=self.amp is not None)
    judge.requires_grad_(False)
    with autocast:
      h, quantizer_loss, _ = self.model(x)
      y = last(h)
      nll = (x - y).abs().mean() + self.lpips(x, y).mean()
      fool = -self.discriminator(y).float().mean()
    kernel = last.weight
    lengths = [torch.autograd.grad(f, kernel, retain_graph=True)[0].norm() for f in (nll, fool)]
    weight = 0.75 * (lengths[0] / (lengths[1] + 1e-4)).clamp(0, 1e4).detach()
    loss = nll + weight * fool + quantizer_loss
    self._update(self.optimizers[0], loss)
    judge.requires_grad_(True)

    with torch.no_grad(), autocast:
      fake = last(self.model(x)[0])
    with autocast:
      real, fake = self.discriminator(x), self.discriminator(fake)
      judged = 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())
    self._update(self.optimizers[1], judged)
    return loss.detach()

  def _update(self, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
