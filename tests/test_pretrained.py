"""A loaded tokenizer in use."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from golden_data import CHECKPOINTS, checkpoint

import vqjax
from configs import optvq, rot_vqvae
from vqjax import pretrained, tokenizer
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
  with pytest.raises(UserError, match=r'images are float32 from 0 to 255; legal: \[0, 1\], or'):
    tok.encode(np.clip(images.astype(np.float32), 0, 255))
  with pytest.raises(UserError, match=r'images are float32 from -1 to 1; legal: \[0, 1\], or'):
    tok.encode(np.clip(images / np.float32(64) - 2, -1, 1))
  with pytest.raises(UserError, match=r'images are float32 from nan to nan; legal: \[0, 1\]'):
    tok.encode(np.full((1, 32, 32, 3), np.nan, np.float32))
  codes = tok.model.quantizer.num_codes
  for wrong in (-1, codes):
    with pytest.raises(UserError, match=rf'tokens are int32 from .*; legal: 0 to {codes - 1}\.'):
      tok.decode(tok.encode(images).at[0, 0, 0].set(wrong))
  # In a function that the caller compiles, values are not known.
  np.testing.assert_array_equal(jax.jit(tok.encode)(images), tok.encode(images))
  with pytest.raises(UserError, match=r'step is 3, but .* is no run folder'):
    vqjax.load(checkpoint(CHECKPOINTS[0])[0], step=3)


def test_a_grey_model_takes_grey_images(images):
  config = optvq.get_config('demo,model=mnist')
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
  tok = pretrained.Pretrained(model, variables, config)
  grey = images[..., :1]
  np.testing.assert_array_equal(tok.encode(grey), tok.encode(grey.repeat(3, axis=-1)))
  with pytest.raises(UserError, match=r'legal: \[batch, height, width, 1 or 3\]'):
    tok.encode(images[..., :2])


def test_a_residual_quantizer_reads_dropped_depths():
  config = rot_vqvae.get_config('demo')
  config.quantizer = ml_collections.ConfigDict(
    {'name': 'residual', 'depth': 2, 'base': {'num_codes': 16}}
  )
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  tok = pretrained.Pretrained(model, variables, config)
  tokens = np.zeros((1, 4, 4, 2), np.int32)
  tokens[..., 1] = -1
  assert tok.decode(tokens).shape == (1, 16, 16, 3)
  with pytest.raises(UserError, match=r'tokens are int32 from -2 to 0; legal: -1 to 15\.'):
    tok.decode(tokens - (tokens == -1))


def test_bfloat16_networks_load(images):
  path = checkpoint(SOURCES['tiny' if 'tiny' in SOURCES else 'ldm'])[0]
  with jax.numpy_dtype_promotion('standard'):  # flax's GroupNorm mixes types
    tok = vqjax.load(path, dtype='bfloat16')
    assert tok.encode(images[:1]).dtype == jnp.int32
  assert tok.variables['params']['encoder']['conv_in']['kernel'].dtype == jnp.float32
