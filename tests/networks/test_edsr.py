import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.networks import EdsrDecoder, EdsrEncoder
from vqjax.networks.layers import depth_to_space, space_to_depth


def test_patches_become_channels_and_pixels_again():
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  patches = space_to_depth(x, 2)
  assert patches.shape == (2, 2, 3, 12)
  np.testing.assert_array_equal(patches[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))
  np.testing.assert_array_equal(depth_to_space(patches, 2), x)


@pytest.mark.parametrize('side', [EdsrEncoder(8), EdsrDecoder(8)])
def test_starts_as_a_linear_network(side):
  a, b = jax.random.normal(jax.random.key(0), (2, 1, 4, 4, 3))
  params = side.init(jax.random.key(1), a)
  f = lambda x: side.apply(params, x) - side.apply(params, jnp.zeros_like(x))
  np.testing.assert_allclose(f(a + 2 * b), f(a) + 2 * f(b), atol=1e-5)


def test_an_image_of_more_contrast_has_other_latents():
  """A GroupNorm takes that away: it looks at the whole image."""
  x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))

  def moved(norm_groups):
    encoder = EdsrEncoder(8, norm_groups=norm_groups)
    params = encoder.init(jax.random.key(1), x)
    z, contrast = (encoder.apply(params, y) for y in (x, 3 * x))
    return jnp.abs(z - contrast).max() / jnp.abs(z).max()

  assert moved(0) > 0.5
  assert moved(1) < 0.2
