"""The tokenizer: encoder, quantizer, decoder."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqjax import networks, quantizers
from vqjax.errors import UserError
from vqjax.fields import check_type
from vqjax.networks import Decoder, Encoder, ImageDecoder
from vqjax.networks.layers import dense, layer_norm

HEADS = ('none', 'linear', 'linear_norm')
DTYPES = ('float32', 'bfloat16')

# Fields of config.model that every network has; the others are those of its modules.
_TYPES = {
  'network': str,
  'dtype': str,
  'head': str,
  'code_dim': int,
  'unit_latents': bool,
  'pixel_mean': tuple[float, ...],
  'pixel_std': tuple[float, ...],
}
FIELDS = tuple(_TYPES)
# Of networks and quantizers: each is a loop while the program is traced.
_LOOPS = ('num_res_blocks', 'num_blocks', 'depth', 'groups')
_LONGEST_LOOP = 1000


class Projection(nn.Module):
  """Linear map on the last axis, with a LayerNorm (eps 1e-5) after it or without, in float32.

  Attributes:
    features: output width.
    layer_norm: whether to normalise.
  """

  features: int
  layer_norm: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = dense(x.astype(jnp.float32), self.features, name='linear')
    return layer_norm(x, name='norm') if self.layer_norm else x


class Tokenizer(nn.Module):
  """Images to tokens and back. Images are NHWC, in the model's range: see `normalize`.

  C is 3, or 1 in a model of grey images; outside of the model all images are RGB. Where the decoder
  is a classifier, what it puts out are logits [B L] and no images: see `classifies`.

  Attributes:
    encoder: [B H W C] -> [B h w z].
    quantizer: any quantizer of `vqjax.quantizers`.
    decoder: [B h w z] -> [B H W C].
    pre_quant: projection from the encoder's width to the code's, or None.
    post_quant: projection from the code's width to the decoder's, or None.
    unit_latents: normalise latents to length one before the quantizer, and what the decoder gets
      once more, as the rotation trick's Table 1 does for its cosine codebooks.
    pixel_mean: per channel, of pixels in [0, 1]; the model sees `(x - mean) / std`. A single one
      makes a model of grey images.
    pixel_std: per channel.
  """

  encoder: Encoder
  quantizer: quantizers.Quantizer
  decoder: Decoder
  pre_quant: Projection | None = None
  post_quant: Projection | None = None
  unit_latents: bool = False
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)

  @property
  def last_kernel(self) -> tuple[str, ...]:
    """Path of the kernel that the adaptive weight of the GAN term looks at."""
    return 'decoder', *self.decoder.last_kernel

  @property
  def downsample(self) -> int:
    """Pixels per token side."""
    return self.encoder.downsample

  @property
  def channels(self) -> int:
    """Channels of the images that the model sees, C: 3, or 1 for grey ones."""
    return len(self.pixel_mean)

  @property
  def classifies(self) -> bool:
    """Whether the decoder is a classifier, so that `decode` returns logits [B L] and no images."""
    return self.decoder.classifies

  @nn.nowrap
  def check_size(self, height: int, width: int) -> None:
    """Checks that images of this size in pixels are whole tokens.

    Raises:
      UserError: a side is no positive multiple of `downsample`.
    """
    unit = self.downsample
    if min(height, width) < unit or height % unit or width % unit:
      near = [max(side // unit, 1) * unit for side in (height, width)]
      raise UserError(
        f'images are {height}x{width} pixels; legal: sides that are multiples of {unit}: crop or '
        f'resize them, for example to {near[0]}x{near[1]}.'
      )

  def __call__(
    self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
  ) -> tuple[jax.Array, quantizers.Quantized]:
    """Images [B H W C] -> (reconstruction [B H W C], Quantized)."""
    quantized = self.encode(images, train, mask)
    return self.decode(quantized.z_q, train), quantized

  def latents(self, images: jax.Array, train: bool = False) -> jax.Array:
    """What the quantizer gets: [B H W C] -> [B h w D]."""
    z = self.encoder(images, train)
    if self.pre_quant is not None:
      z = self.pre_quant(z)
    return quantizers.unit(z) if self.unit_latents else z

  def encode(
    self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
  ) -> quantizers.Quantized:
    """Images [B H W C] -> Quantized with indices [B h w].

    Images where `mask` [B] is false count nowhere: they fill up a batch, and must not sway an
    assignment that looks at all of it.
    """
    z = self.latents(images, train)
    if mask is not None:
      mask = jnp.broadcast_to(mask.reshape(-1, *(1,) * (z.ndim - 2)), z.shape[:-1])
    return self.quantizer(z, train=train, mask=mask)

  def decode(self, z_q: jax.Array, train: bool = False) -> jax.Array:
    """Code vectors [B h w D] -> images [B H W C], or logits [B L]: see `classifies`."""
    z_q = quantizers.unit(z_q) if self.unit_latents else z_q
    if self.post_quant is not None:
      z_q = self.post_quant(z_q)
    return self.decoder(z_q, train)

  def decode_tokens(self, indices: jax.Array) -> jax.Array:
    """Tokens int32 [B h w] -> images [B H W C]: what decoding the codes themselves gives."""
    return self.decode(self.quantizer.lookup(indices))

  @nn.nowrap
  def normalize(self, images: jax.Array) -> jax.Array:
    """Pixels [B H W 3] -> what the model sees, float32 [B H W C] in its range.

    Pixels are uint8 in [0, 255] or float in [0, 1]; grey is the mean of red, green and blue.
    """
    if images.dtype == jnp.uint8:
      images = images.astype(jnp.float32) / 255
    if self.channels == 1:
      images = jnp.mean(images, axis=-1, keepdims=True)
    return (images - self._pixel(self.pixel_mean)) / self._pixel(self.pixel_std)

  @nn.nowrap
  def denormalize(self, images: jax.Array, clip: bool = True) -> jax.Array:
    """What the model puts out [B H W C] -> float32 pixels [B H W 3], clipped to [0, 1]."""
    images = images * self._pixel(self.pixel_std) + self._pixel(self.pixel_mean)
    images = jnp.clip(images, 0, 1) if clip else images
    return images.repeat(3, axis=-1) if self.channels == 1 else images

  @nn.nowrap
  def _pixel(self, values):
    return jnp.asarray(values, jnp.float32)[None, None, None]


def to_uint8(images: jax.Array) -> jax.Array:
  """Pixels in [0, 1] -> uint8, rounded to nearest after clipping."""
  return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)


def build(model: Mapping[str, Any], quantizer: Mapping[str, Any]) -> Tokenizer:
  """Builds a tokenizer from the `model` and `quantizer` parts of a config.

  `model` has `FIELDS` and any field of the modules that `networks.NETWORKS` names, each of which
  goes to the sides that have it; `encoder` and `decoder` are dicts of fields for one side alone,
  and go before the shared ones.

  `{'network': 'vit', 'dim': 512, 'decoder': {'dim': 1280, 'depth': 32}, ...}`

  Raises:
    UserError: an unknown field or a value outside the legal ones.
  """
  _check_loops(quantizer, 'config.quantizer')
  _check_loops(model, 'config.model')
  try:
    codes = quantizers.build(_hashable(quantizer))
  except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
    raise UserError(f'config.quantizer: {str(error)[:500]}') from error
  fields = _hashable(model)
  if missing := [name for name in FIELDS if name not in fields]:
    raise UserError(
      f'config.model has no {missing[0]!r}; every network needs {", ".join(FIELDS)}: set it.'
    )
  for name, kind in _TYPES.items():
    check_type(fields[name], kind, f'config.model.{name}')
  network, dtype, head, code_dim, unit_latents, mean, std = (fields.pop(name) for name in FIELDS)
  for name, value, legal in (
    ('network', network, networks.NETWORKS),
    ('dtype', dtype, DTYPES),
    ('head', head, HEADS),
  ):
    if value not in legal:
      raise UserError(f'config.model.{name} is {value!r}; legal: {", ".join(legal)}.')
  encoder, decoder = _sides(network, fields, jnp.dtype(dtype))
  _check_pixels(mean, std, decoder)
  width_out = encoder.width_out
  width_in = decoder.width_in or width_out
  if head == 'none' and not code_dim == width_out == width_in:
    same = f'config.model.code_dim={width_out} or ' if width_out == width_in else ''
    raise UserError(
      f'config.model.code_dim is {code_dim}, the encoder puts out width {width_out} and the '
      f'decoder takes {width_in}; without a head they must be equal: set {same}'
      'config.model.head=linear.'
    )
  return Tokenizer(
    encoder=encoder,
    quantizer=codes,
    decoder=decoder,
    pre_quant=None if head == 'none' else Projection(code_dim, head == 'linear_norm'),
    post_quant=None if head == 'none' else Projection(width_in),
    unit_latents=unit_latents,
    pixel_mean=mean,
    pixel_std=std,
  )


def _sides(network: str, fields: dict[str, Any], dtype: jnp.dtype) -> tuple[Encoder, Decoder]:
  """Encoder and decoder from the shared fields and the dicts for one side alone."""
  make_encoder, make_decoder = networks.NETWORKS[network]
  kinds = {'encoder': make_encoder, 'decoder': make_decoder}
  own = {side: fields.pop(side, {}) for side in kinds}
  has = {
    side: [f for f in inspect.signature(kind).parameters if f not in ('parent', 'name', 'dtype')]
    for side, kind in kinds.items()
  }
  either = [*dict.fromkeys(has['encoder'] + has['decoder'])]
  for where, values, legal in (
    *((f'.{side}', own[side], has[side]) for side in kinds),
    ('', fields, [*either, *kinds]),
  ):
    if not isinstance(values, Mapping):
      raise UserError(
        f'config.model{where} is {values!r}; legal: a dict of fields for that side alone.'
      )
    if unknown := [name for name in values if name not in legal]:
      raise UserError(
        f'config.model{where}.{unknown[0]} is unknown to the network {network!r}; '
        f'legal: {", ".join(legal)}.'
      )
    kinds_of = {
      name: parameter.annotation
      for kind in kinds.values()
      for name, parameter in inspect.signature(kind).parameters.items()
    }
    for name, value in values.items():
      if name not in kinds:
        check_type(value, kinds_of[name], f'config.model{where}.{name}')
  shared = {side: {name: fields[name] for name in fields if name in has[side]} for side in kinds}
  encoder = make_encoder(**shared['encoder'] | own['encoder'], dtype=dtype)
  decoder = make_decoder(**shared['decoder'] | own['decoder'], dtype=dtype)
  if encoder.downsample < 1:
    raise UserError(
      f'config.model makes one token of {encoder.downsample} pixels a side; legal: at least 1.'
    )
  if isinstance(decoder, ImageDecoder) and encoder.downsample != decoder.downsample:
    raise UserError(
      f'config.model.encoder makes one token of {encoder.downsample} pixels a side and '
      f'config.model.decoder {decoder.downsample} pixels of one token; make them equal.'
    )
  return encoder, decoder


def _check_loops(fields, where):
  for name, value in fields.items():
    if isinstance(value, Mapping):
      _check_loops(value, f'{where}.{name}')
    elif name in _LOOPS:
      check_type(value, int, f'{where}.{name}')
      if value > _LONGEST_LOOP:
        raise UserError(f'{where}.{name} is {value}; legal: at most {_LONGEST_LOOP}.')


def _check_pixels(mean: tuple[float, ...], std: tuple[float, ...], decoder: Decoder) -> None:
  if len(mean) != len(std) or len(mean) not in (1, 3):
    raise UserError(
      f'config.model.pixel_mean is {mean} and pixel_std {std}; legal: three values each, for RGB, '
      'or one each, for grey images.'
    )
  if isinstance(decoder, ImageDecoder) and decoder.out_channels != len(mean):
    raise UserError(
      f'config.model.out_channels is {decoder.out_channels} and pixel_mean {mean}; '
      f'they must be as many: set config.model.out_channels={len(mean)}.'
    )


def _hashable(fields):
  """Lists come from JSON; a module's fields must hash."""
  return {
    name: tuple(value)
    if isinstance(value, list)
    else (_hashable(value) if isinstance(value, Mapping) else value)
    for name, value in fields.items()
  }
