"""The tokenizer: encoder, quantizer, decoder."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from vqjax import networks, quantizers
from vqjax.errors import UserError
from vqjax.networks.layers import dense


class Projection(nn.Module):
  """Linear map on the last axis, with a LayerNorm (eps 1e-5) after it or without, in float32.

  Attributes:
    features: output width.
    layer_norm: whether to normalise.
  """

  features: int
  layer_norm: bool = False

  @nn.compact
  def __call__(self, x):
    x = dense(x.astype(jnp.float32), self.features, name='linear')
    return (
      nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name='norm')(x) if self.layer_norm else x
    )


class Tokenizer(nn.Module):
  """Images to tokens and back. Images are NHWC, in the model's range: see `normalize`.

  Attributes:
    encoder: [B H W 3] -> [B h w z].
    quantizer: any quantizer of `vqjax.quantizers`.
    decoder: [B h w z] -> [B H W 3].
    pre_quant: projection from the encoder's width to the code's, or None.
    post_quant: projection from the code's width to the decoder's, or None.
    unit_latents: normalise latents to length one before the quantizer, and what the decoder gets
      once more, as the rotation trick's Table 1 does for its cosine codebooks.
    pixel_mean: per channel, of pixels in [0, 1]; the model sees `(x - mean) / std`.
    pixel_std: per channel.
  """

  encoder: nn.Module
  quantizer: nn.Module
  decoder: nn.Module
  pre_quant: nn.Module | None = None
  post_quant: nn.Module | None = None
  unit_latents: bool = False
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)

  # Path of the kernel that the adaptive weight of the GAN term looks at.
  last_kernel = ('decoder', 'conv_out', 'kernel')

  def __call__(self, images, train: bool = False, mask=None):
    """Images [B H W 3] -> (reconstruction [B H W 3], Quantized)."""
    quantized = self.encode(images, train, mask)
    return self.decode(quantized.z_q, train), quantized

  def latents(self, images, train: bool = False):
    """What the quantizer gets: [B H W 3] -> [B h w D]."""
    z = self.encoder(images, train)
    if self.pre_quant is not None:
      z = self.pre_quant(z)
    return quantizers.unit(z) if self.unit_latents else z

  def encode(self, images, train: bool = False, mask=None) -> quantizers.Quantized:
    """Images [B H W 3] -> Quantized with indices [B h w].

    Images where `mask` [B] is false count nowhere: they fill up a batch, and must not sway an
    assignment that looks at all of it.
    """
    z = self.latents(images, train)
    if mask is not None:
      mask = jnp.broadcast_to(mask.reshape(-1, *(1,) * (z.ndim - 2)), z.shape[:-1])
    return self.quantizer(z, train=train, mask=mask)

  def decode(self, z_q, train: bool = False):
    """Code vectors [B h w D] -> images [B H W 3]."""
    z_q = quantizers.unit(z_q) if self.unit_latents else z_q
    if self.post_quant is not None:
      z_q = self.post_quant(z_q)
    return self.decoder(z_q, train)

  def decode_tokens(self, indices):
    """Tokens int32 [B h w] -> images [B H W 3]: what decoding the codes themselves gives."""
    return self.decode(self.quantizer.lookup(indices))

  @nn.nowrap
  def normalize(self, images):
    """Pixels, uint8 in [0, 255] or float in [0, 1] -> float32 in the model's range."""
    if images.dtype == jnp.uint8:
      images = images.astype(jnp.float32) / 255
    return (images - self._pixel(self.pixel_mean)) / self._pixel(self.pixel_std)

  @nn.nowrap
  def denormalize(self, images):
    """The model's range -> float32 pixels, clipped to [0, 1]."""
    images = images * self._pixel(self.pixel_std) + self._pixel(self.pixel_mean)
    return jnp.clip(images, 0, 1)

  @nn.nowrap
  def _pixel(self, values):
    return jnp.asarray(values, jnp.float32)[None, None, None]


def to_uint8(images):
  """Pixels in [0, 1] -> uint8, rounded to nearest after clipping."""
  return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)


def build(model: Mapping, quantizer: Mapping) -> Tokenizer:
  """Builds a tokenizer from the `model` and `quantizer` parts of a config.

  Raises:
    UserError: an unknown field or a value outside the legal ones.
  """
  try:
    codes = quantizers.build(quantizer)
  except (ValueError, TypeError) as error:
    raise UserError(f'config.quantizer: {error}') from error
  # Lists come from JSON; a module's fields must hash.
  fields = {n: tuple(v) if isinstance(v, list) else v for n, v in model.items()}
  network = fields.pop('network')
  if network != 'cnn':
    raise UserError(f'config.model.network is {network!r}; legal: cnn.')
  dtype, head = fields.pop('dtype'), fields.pop('head')
  if dtype not in ('float32', 'bfloat16'):
    raise UserError(f'config.model.dtype is {dtype!r}; legal: float32, bfloat16.')
  if head not in ('none', 'linear', 'linear_norm'):
    raise UserError(f'config.model.head is {head!r}; legal: none, linear, linear_norm.')
  code_dim, z_channels = fields.pop('code_dim'), fields.pop('z_channels')
  if head == 'none' and code_dim != z_channels:
    raise UserError(
      f'config.model.code_dim is {code_dim} and z_channels {z_channels}; without a head they must '
      'be equal: set one to the other, or config.model.head=linear.'
    )
  outer = {name: fields.pop(name) for name in ('unit_latents', 'pixel_mean', 'pixel_std')}
  legal = [field.name for field in dataclasses.fields(networks.Decoder)]
  if unknown := [name for name in fields if name not in legal]:
    raise UserError(f'config.model.{unknown[0]} is unknown to the cnn; legal: {", ".join(legal)}.')
  fields['dtype'] = jnp.dtype(dtype)
  return Tokenizer(
    encoder=networks.Encoder(**fields, z_channels=z_channels),
    quantizer=codes,
    decoder=networks.Decoder(**fields),
    pre_quant=None if head == 'none' else Projection(code_dim, head == 'linear_norm'),
    post_quant=None if head == 'none' else Projection(z_channels),
    **outer,
  )
