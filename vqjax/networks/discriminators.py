"""The patch discriminator: images [B H W C] -> logits; those for whole images: stylegan.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.errors import UserError
from vqjax.networks.layers import conv

_NORMAL = nn.initializers.normal(0.02)


class ActNorm(nn.Module):
  """`scale * (x + loc)` for each channel, which normalises the first batch: [B H W C] -> same.

  The first batch sets `loc` to minus its mean and `scale` to 1 / (deviation + 1e-6). Kingma and
  Dhariwal, Glow (NeurIPS 2018), section 3.1, as taming-transformers has it.

  Both are sums: of what the first batch sets, in the collection `batch_stats`, and of a parameter
  that starts at 0 and that training moves. So the state has its whole shape before any image is
  seen, and Adam takes the very same steps; only weight decay would pull to the start, not to 0.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    ready = self.variable('batch_stats', 'ready', jnp.zeros, (), bool)
    first = {
      'loc': self.variable('batch_stats', 'loc', jnp.zeros, width),
      'scale': self.variable('batch_stats', 'scale', jnp.zeros, width),
    }
    moved = {name: self.param(name, nn.initializers.zeros, (width,), jnp.float32) for name in first}
    if not self.is_initializing():
      batch = jax.lax.stop_gradient(x.astype(jnp.float32))
      found = {
        'loc': -jnp.mean(batch, axis=(0, 1, 2)),
        'scale': 1 / (jnp.std(batch, axis=(0, 1, 2), ddof=1) + 1e-6),
      }
      for name, variable in first.items():
        variable.value = jnp.where(ready.value, variable.value, found[name])
      ready.value = jnp.ones((), bool)
    loc, scale = ((first[name].value + moved[name]).astype(x.dtype) for name in ('loc', 'scale'))
    return scale[None, None, None] * (x + loc[None, None, None])


class PatchGAN(nn.Module):
  """The patch discriminator of pix2pix, as taming-transformers and latent-diffusion use it.

  Images [B H W C] -> logits [B h w 1], one for each overlapping patch. Convolutions 4x4 with
  leaky ReLU 0.2: `num_layers` of stride 2, one of stride 1, one to the logits; norms between.
  Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (CVPR 2017).

  BatchNorm always uses the statistics of the batch it sees, as in the originals' training, so real
  and reconstructed images go through separate calls; running averages are kept in `batch_stats`
  for export (with the biased variance; PyTorch keeps the unbiased one).

  Attributes:
    channels: width after the first convolution; doubles with every layer, up to eightfold.
    num_layers: convolutions of stride 2.
    norm: 'batch', or 'actnorm' (taming's use_actnorm), in which the first batch is the one that is
      judged first, of reconstructions.
    dtype: of the computation; parameters and logits are float32.

  Raises:
    UserError: an unknown `norm`.
  """

  channels: int = 64
  num_layers: int = 3
  norm: str = 'batch'
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.norm not in ('batch', 'actnorm'):
      raise UserError(f'config.gan.norm is {self.norm!r}; legal: batch, actnorm.')

    def layer(x, features, stride, i, **kwargs):
      kwargs = {'kernel_init': _NORMAL, 'dtype': self.dtype, **kwargs}
      # Padding is explicit: SAME pads the stride-1 layers differently.
      padding = ((1, 1), (1, 1))
      return conv(x, features, 4, stride=stride, padding=padding, name=f'conv_{i}', **kwargs)

    x = nn.leaky_relu(layer(x, self.channels, 2, 0), 0.2)
    for i in range(1, self.num_layers + 1):
      stride = 2 if i < self.num_layers else 1
      x = layer(x, self.channels * min(2**i, 8), stride, i, use_bias=self.norm == 'actnorm')
      x = nn.leaky_relu(self._normalized(x, f'norm_{i}'), 0.2)
    return layer(x, 1, 1, self.num_layers + 1, dtype=jnp.float32)

  def _normalized(self, x, name):
    if self.norm == 'actnorm':
      return ActNorm(name=name)(x)
    return nn.BatchNorm(
      use_running_average=False,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      scale_init=lambda key, shape, dtype: 1 + _NORMAL(key, shape, dtype),
      use_fast_variance=False,
      name=name,
    )(x)
