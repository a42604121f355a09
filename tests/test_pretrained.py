"""A loaded tokenizer in use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import CHECKPOINTS, checkpoint

import vqjax
from vqjax.errors import UserError

SOURCES = {name.split('_')[0]: name for name in CHECKPOINTS}


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.mark.parametrize('name', SOURCES.values())
def test_tokens_do_not_depend_on_the_rest_of_the_batch(name, images):
  tok = vqjax.load(checkpoint(name)[0])
  size = 2 * tok.model.downsample
  batch = images[:, :size, :size]
  tokens = tok.encode(batch)
  assert tokens.dtype == jnp.int32
  np.testing.assert_array_equal(tok.encode(batch[:1]), tokens[:1])
  np.testing.assert_array_equal(tok.encode(batch[:1] / np.float32(255)), tokens[:1])
  pixels = tok.decode(tokens)
  assert (pixels.shape, pixels.dtype) == (batch.shape, jnp.uint8)
  np.testing.assert_array_equal(tok.reconstruct(batch), pixels)


def test_what_goes_in_is_checked(images):
  tok = vqjax.load(checkpoint(CHECKPOINTS[0])[0])
  unit = tok.model.downsample
  with pytest.raises(UserError, match=r'images are \[32, 32, 3\]; legal: \[batch, height'):
    tok.encode(images[0])
  with pytest.raises(UserError, match=r'images are int32; legal: uint8'):
    tok.encode(images.astype(np.int32))
  with pytest.raises(UserError, match=f'images are 33x32 pixels; legal: .* multiples of {unit}'):
    tok.encode(np.zeros((1, 33, 32, 3), np.uint8))
  with pytest.raises(UserError, match=r'tokens are float32\[1, 2, 2\]; legal: integers'):
    tok.decode(np.zeros((1, 2, 2), np.float32))
  with pytest.raises(UserError, match=r'step is 3, but .* is no run folder'):
    vqjax.load(checkpoint(CHECKPOINTS[0])[0], step=3)


def test_bfloat16_networks_load(images):
  path = checkpoint(SOURCES['tiny' if 'tiny' in SOURCES else 'ldm'])[0]
  with jax.numpy_dtype_promotion('standard'):  # flax's GroupNorm mixes types
    tok = vqjax.load(path, dtype='bfloat16')
    assert tok.encode(images[:1]).dtype == jnp.int32
  assert tok.variables['params']['encoder']['conv_in']['kernel'].dtype == jnp.float32
