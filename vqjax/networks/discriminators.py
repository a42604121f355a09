"""Discriminators: images [B H W C] -> logits."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vqjax.networks.layers import conv


class PatchGAN(nn.Module):
  """The patch discriminator of pix2pix, as taming-transformers and latent-diffusion use it.

  Images [B H W C] -> logits [B h w 1], one for each overlapping patch. Convolutions 4x4 with
  leaky ReLU 0.2: `num_layers` of stride 2, one of stride 1, one to the logits; BatchNorm between.
  Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (CVPR 2017).

  BatchNorm always uses the statistics of the batch it sees, as in the originals' training, so real
  and reconstructed images go through separate calls; running averages are kept in `batch_stats`
  for export (with the biased variance; PyTorch keeps the unbiased one).

  Attributes:
    channels: width after the first convolution; doubles with every layer, up to eightfold.
    num_layers: convolutions of stride 2.
    dtype: of the computation; parameters and logits are float32.
  """

  channels: int = 64
  num_layers: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    normal = nn.initializers.normal(0.02)

    def layer(x, features, stride, i, **kwargs):
      kwargs = {'kernel_init': normal, 'dtype': self.dtype, **kwargs}
      # Padding is explicit: SAME pads the stride-1 layers differently.
      padding = ((1, 1), (1, 1))
      return conv(x, features, 4, stride=stride, padding=padding, name=f'conv_{i}', **kwargs)

    x = nn.leaky_relu(layer(x, self.channels, 2, 0), 0.2)
    for i in range(1, self.num_layers + 1):
      stride = 2 if i < self.num_layers else 1
      x = layer(x, self.channels * min(2**i, 8), stride, i, use_bias=False)
      x = nn.BatchNorm(
        use_running_average=False,
        momentum=0.9,
        epsilon=1e-5,
        dtype=self.dtype,
        scale_init=lambda key, shape, dtype: 1 + normal(key, shape, dtype),
        use_fast_variance=False,
        name=f'norm_{i}',
      )(x)
      x = nn.leaky_relu(x, 0.2)
    return layer(x, 1, 1, self.num_layers + 1, dtype=jnp.float32)
