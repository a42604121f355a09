"""StyleGAN2's discriminator in PyTorch, written anew from its definition, to compare with.

Modules are named as in enhancing-transformers' checkpoints, so that equal weights can be loaded.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def act(x):
  return math.sqrt(2) * F.leaky_relu(x, 0.2)


class Equalized(nn.Module):
  """A kernel drawn from N(0, 1) and divided by sqrt(fan-in) when used."""

  def __init__(self, inputs, outputs, size, stride=1, padding=0):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
    self.stride, self.padding = stride, padding

  def forward(self, x):
    weight = self.weight / math.sqrt(self.weight[0].numel())
    return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


class Act(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.bias = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return act(x + self.bias.view(-1, 1, 1))


class Blur(nn.Module):
  """(1 3 3 1) / 8 along both axes."""

  def __init__(self, padding):
    super().__init__()
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    self.register_buffer('kernel', torch.outer(taps, taps))
    self.padding = padding

  def forward(self, x):
    kernel = self.kernel.expand(x.shape[1], 1, 4, 4).to(x.dtype)
    return F.conv2d(x, kernel, padding=self.padding, groups=x.shape[1])


class Block(nn.Module):
  def __init__(self, inputs, outputs):
    super().__init__()
    self.conv1 = nn.Sequential(Equalized(inputs, inputs, 3, padding=1), Act(inputs))
    self.conv2 = nn.Sequential(Blur(2), Equalized(inputs, outputs, 3, stride=2), Act(outputs))
    self.skip = nn.Sequential(Blur(1), Equalized(inputs, outputs, 1, stride=2))

  def forward(self, x):
    return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class EqualizedLinear(nn.Module):
  def __init__(self, inputs, outputs):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(outputs, inputs))
    self.bias = nn.Parameter(torch.zeros(outputs))

  def forward(self, x):
    return F.linear(x, self.weight / math.sqrt(x.shape[1]), self.bias)


class StyleGAN2(nn.Module):
  """Images [B 3 S S] -> logits [B 1]; a width for every halving down to 4 x 4."""

  def __init__(self, image_size=256, channels=128):
    super().__init__()
    levels = int(math.log2(image_size)) - 1
    widths = [min(channels * 2**i, 512) for i in range(levels)]
    self.blocks = nn.ModuleList([nn.Sequential(Equalized(3, widths[0], 1), Act(widths[0]))])
    self.blocks.extend(Block(widths[i], widths[i + 1]) for i in range(levels - 1))
    last = widths[-1]
    self.final_conv = nn.Sequential(Equalized(last + 1, last, 3, padding=1), Act(last))
    self.final_linear = nn.ModuleList([EqualizedLinear(16 * last, last), EqualizedLinear(last, 1)])

  def forward(self, x):
    for block in self.blocks:
      x = block(x)
    x = self.final_conv(torch.cat([x, self.deviation(x.float()).to(x.dtype)], dim=1))
    with torch.autocast(x.device.type, enabled=False):
      return self.final_linear[1](act(self.final_linear[0](x.float().flatten(1))))

  @staticmethod
  def deviation(x):
    """Standard deviation over groups of four images, a mean over the rest: [B 1 H W]."""
    group = min(len(x), 4)
    y = x.view(group, -1, *x.shape[1:])
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return y.repeat(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
