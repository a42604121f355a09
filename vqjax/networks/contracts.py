"""What the rest of the library asks of an encoder and of a decoder."""

from typing import Protocol, runtime_checkable

import jax


@runtime_checkable
class Encoder(Protocol):
  """A linen module: images [B H W C] -> latents [B H/f W/f width_out], `f = downsample`."""

  @property
  def width_out(self) -> int:
    """Width of the latents."""

  @property
  def downsample(self) -> int:
    """Pixels per token side."""

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Latents of images; `train` turns on what only training has, such as dropout."""


@runtime_checkable
class Decoder(Protocol):
  """A linen module: latents [B h w D] -> images, see `ImageDecoder`, or logits [B L]; float32."""

  @property
  def width_in(self) -> int | None:
    """Width D that the latents must have; None if any will do."""

  @property
  def last_kernel(self) -> tuple[str, ...]:
    """Path of the last layer's kernel in the parameters: the adaptive weight of a GAN needs it."""

  @property
  def classifies(self) -> bool:
    """Whether it is a classifier, which puts out logits and no images."""

  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    """Images or logits of latents; `train` as in an encoder."""


@runtime_checkable
class ImageDecoder(Decoder, Protocol):
  """A decoder that does not classify: images [B h*f w*f out_channels], `f = downsample`."""

  @property
  def downsample(self) -> int:
    """Pixels per token side."""

  @property
  def out_channels(self) -> int:
    """Channels of the images."""
