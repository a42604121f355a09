"""The transformer autoencoder of ViT-VQGAN, as enhancing-transformers publishes it.

Yu et al., Vector-quantized Image Modeling with Improved VQGAN (ICLR 2022), section 3.1. Blocks
`x += attention(norm(x))`, `x += net(norm(x))`; the hidden activation of `net` is tanh, a head is 64
wide whatever `dim` is, and `to_qkv` has no bias. Module names follow the original's keys:
`layer_3_attn/to_qkv` is `transformer.layers.3.0.fn.to_qkv`, `layer_3_ff/net_2` is
`transformer.layers.3.1.fn.net.2`, `norm` is `transformer.norm`.

Deviation: positions are a constant computed from the formula, for images of any size whose sides
are multiples of the patch's. The original stores the same numbers as frozen parameters
(`en_pos_embedding`, `de_pos_embedding`), which fixes the resolution.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vqjax.errors import UserError
from vqjax.networks.layers import PatchTranspose, conv, layer_norm

HEAD_DIM = 64

# Xavier on the weight flattened to [dim, patch * patch * channels], for both patch layers.
_patch_init = nn.initializers.variance_scaling(
  1.0, 'fan_avg', 'uniform', in_axis=(0, 1, 2), out_axis=3
)


def positions(height: int, width: int, dim: int) -> np.ndarray:
  """Fixed 2-D sine and cosine positions: float32 [height width dim].

  At row y and column x: `[sin(x w), cos(x w), sin(y w), cos(y w)]`, each dim / 4 wide, with
  `w_k = 10000 ** (-k / (dim / 4))`; computed in float64.

  Raises:
    UserError: `dim` is no multiple of 4.
  """
  if dim % 4:
    raise UserError(
      f'dim is {dim}; legal: a multiple of 4, for the sine and cosine of two coordinates.'
    )
  frequencies = 10_000.0 ** (-np.arange(dim // 4) / (dim // 4))
  y, x = (np.arange(n)[:, None] * frequencies for n in (height, width))
  waves = lambda angle: np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
  shape = (height, width, dim // 2)
  table = [np.broadcast_to(waves(x), shape), np.broadcast_to(waves(y)[:, None], shape)]
  return np.concatenate(table, axis=-1).astype(np.float32)


def _dense(x, features, *, name, dtype, use_bias=True):
  # The initialisation looks at the fused `to_qkv` as at one matrix, as the original's does.
  init = nn.initializers.xavier_uniform()
  return nn.Dense(features, use_bias=use_bias, kernel_init=init, dtype=dtype, name=name)(x)


class Attention(nn.Module):
  """norm, attention of heads 64 wide with its softmax in float32, projection; plus the input.

  The projection is left out where one head is as wide as the model, as in the original.
  """

  heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, tokens, dim = x.shape
    inner = self.heads * HEAD_DIM
    h = layer_norm(x, name='norm', dtype=self.dtype)
    h = _dense(h, 3 * inner, name='to_qkv', dtype=self.dtype, use_bias=False)
    h = h.reshape(batch, tokens, 3, self.heads, HEAD_DIM)
    h = jax.nn.dot_product_attention(h[:, :, 0], h[:, :, 1], h[:, :, 2])  # scale 64^-0.5
    h = h.reshape(batch, tokens, inner)
    if self.heads > 1 or dim != HEAD_DIM:
      h = _dense(h, dim, name='to_out', dtype=self.dtype)
    return x + h


class FeedForward(nn.Module):
  """norm, linear, tanh, linear; plus the input."""

  mlp_dim: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = layer_norm(x, name='norm', dtype=self.dtype)
    h = nn.tanh(_dense(h, self.mlp_dim, name='net_0', dtype=self.dtype))
    return x + _dense(h, x.shape[-1], name='net_2', dtype=self.dtype)


class _ViT(nn.Module):
  """Fields of encoder and decoder, and the transformer that they share.

  Attributes:
    dim: width of the tokens; a multiple of 4.
    depth: layers, each of attention and feed-forward.
    heads: of attention, each 64 wide.
    mlp_dim: hidden width of the feed-forward.
    patch_size: pixels per token side.
    dtype: of the computation; parameters are float32.
    remat: recompute every layer in the backward pass: less memory, more time.
  """

  dim: int = 512
  depth: int = 8
  heads: int = 8
  mlp_dim: int = 2048
  patch_size: int = 8
  dtype: DTypeLike = jnp.float32
  remat: bool = False

  @property
  def downsample(self) -> int:
    """Pixels per token side."""
    return self.patch_size

  def transform(self, x):
    """[B h w dim] -> [B h w dim]: positions, layers, norm."""
    shape = x.shape
    x = x.astype(self.dtype) + jnp.asarray(positions(*shape[1:]))[None].astype(self.dtype)
    x = x.reshape(shape[0], -1, self.dim)  # row by row
    attention, feed_forward = (
      nn.remat(kind) if self.remat else kind for kind in (Attention, FeedForward)
    )
    for i in range(self.depth):
      x = attention(self.heads, self.dtype, name=f'layer_{i}_attn')(x)
      x = feed_forward(self.mlp_dim, self.dtype, name=f'layer_{i}_ff')(x)
    return layer_norm(x, name='norm', dtype=self.dtype).reshape(shape)


class ViTEncoder(_ViT):
  """Images [B H W C] -> latents [B H/patch_size W/patch_size dim]; C is 3 in the original."""

  @property
  def width_out(self) -> int:
    """Width of the latents."""
    return self.dim

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    del train  # nothing here differs
    x = conv(
      x,
      self.dim,
      self.patch_size,
      stride=self.patch_size,
      padding='VALID',
      name='to_patch_embedding',
      dtype=self.dtype,
      kernel_init=_patch_init,
    )
    return self.transform(x)


class ViTDecoder(_ViT):
  """Latents [B h w dim] -> images float32 [B h*patch_size w*patch_size out_channels].

  No output activation. The last kernel, `to_pixel` [patch_size patch_size out_channels dim], is the
  original's `to_pixel.1.weight` transposed by (2, 3, 1, 0).

  Attributes:
    out_channels: channels of the images.
  """

  out_channels: int = 3

  last_kernel = ('to_pixel', 'kernel')
  classifies = False

  @property
  def width_in(self) -> int:
    """Width that the latents must have."""
    return self.dim

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    del train
    # The image leaves in float32: losses and rounding to 8 bits need it.
    x = self.transform(z).astype(jnp.float32)
    to_pixel = PatchTranspose(self.out_channels, self.patch_size, _patch_init, name='to_pixel')
    return to_pixel(x)
