"""A loaded tokenizer in use."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from golden_data import CHECKPOINTS, checkpoint
from PIL import Image

import vqjax
from configs import optvq, rot_vqvae
from vqjax import pretrained, tokenizer
from vqjax.data import default_data, make_source
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


def test_a_network_in_bfloat16_stays_near():
  data = ml_collections.ConfigDict(default_data())
  data.source, data.image_size = 'photos', 32
  source, found = make_source(data, 'eval'), {}
  with jax.numpy_dtype_promotion('standard'):  # flax's norms mix types
    for dtype in tokenizer.DTYPES:
      tok = vqjax.load('photos', dtype=dtype)
      (found[dtype],) = tok.batched(source, data, batch_size=16, limit=16, reconstruct=True)
      again = tok.decode(found['float32'].tokens)
  plain, half = found['float32'], found['bfloat16']
  assert 0.95 < (plain.tokens == half.tokens).mean() < 1  # and so it is another arithmetic
  distance = lambda x, y: np.abs(np.asarray(x, float) - np.asarray(y, float))
  assert distance(again, plain.pixels).max() <= 2
  error = {of: np.mean(distance(x.images, x.pixels) ** 2) for of, x in found.items()}
  assert abs(10 * np.log10(error['bfloat16'] / error['float32'])) < 0.1


def test_a_smaller_batch_is_not_compiled(images):
  tok = vqjax.load(checkpoint(CHECKPOINTS[0])[0])
  batch = np.tile(images, (3, 1, 2, 1))  # a size of this test alone
  sizes = lambda: (pretrained.encode._cache_size(), pretrained.decode._cache_size())
  before = sizes()
  tokens = tok.encode(batch)
  pixels = tok.decode(tokens)
  for count in (4, 2):
    np.testing.assert_array_equal(tok.encode(batch[:count]), tokens[:count])
    np.testing.assert_array_equal(tok.decode(tokens[:count]), pixels[:count])
  assert sizes() == (before[0] + 1, before[1] + 1)
  # Nine times as much work as there is costs more than to compile, once.
  np.testing.assert_array_equal(tok.encode(batch[:1]), tokens[:1])
  assert sizes() == (before[0] + 2, before[1] + 1)


def test_a_batch_that_was_refused_is_no_size(images):
  tok = vqjax.load(checkpoint(CHECKPOINTS[0])[0])
  batch = np.tile(images / np.float32(255), (2, 1, 3, 1))  # a size of this test alone
  with pytest.raises(UserError, match='images are float32'):
    tok.encode(batch + 2)
  before = pretrained.encode._cache_size()
  tokens = tok.encode(batch[:2])
  tok.encode(batch)
  assert pretrained.encode._cache_size() == before + 2  # 2 was not filled up to the refused size
  np.testing.assert_array_equal(tok.encode(batch[:2]), tokens)


@pytest.mark.parametrize('dtype', [np.uint8, np.int8, np.uint16])
def test_tokens_of_any_integers_are_taken(images, dtype):
  tok = vqjax.load(checkpoint(CHECKPOINTS[0])[0])
  tokens = np.asarray(tok.encode(images)) % min(100, tok.model.quantizer.num_codes)
  np.testing.assert_array_equal(tok.decode(tokens.astype(dtype)), tok.decode(tokens))


@pytest.mark.parametrize('ends', [{'start': -1}, {'limit': -2}], ids=str)
def test_a_part_that_cannot_be(tmp_path, ends):
  Image.new('RGB', (64, 64)).save(tmp_path / '0.png')
  with pytest.raises(UserError, match=r'start is -?\d and limit -?\d; legal: 0 and more'):
    vqjax.load(checkpoint(CHECKPOINTS[0])[0]).batched(tmp_path, **ends)


def test_what_fills_a_batch_sways_no_tokens_that_depend_on_it(images):
  path = checkpoint(next(name for name in CHECKPOINTS if name.startswith('optvq_cifar10')))[0]
  filled, plain = (vqjax.load(path, eval_assign='sinkhorn') for _ in range(2))
  filled.encode(images)
  np.testing.assert_array_equal(filled.encode(images[:2]), plain.encode(images[:2]))


def test_a_folder_comes_in_batches_that_are_compiled_once(tmp_path):
  for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (10, 40, 50, 3), np.uint8)):
    Image.fromarray(pixels).save(tmp_path / f'{i}.png')
  (tmp_path / '3.png').write_bytes(b'no picture')
  tok = vqjax.load(checkpoint(CHECKPOINTS[0])[0])
  data = ml_collections.ConfigDict(default_data())
  data.image_size = 5 * tok.model.downsample  # a size of this test alone
  sizes = lambda: (pretrained.encode._cache_size(), pretrained.decode._cache_size())
  before = sizes()
  found = list(tok.batched(str(tmp_path), data, batch_size=8, reconstruct=True))
  assert sizes() == (before[0] + 1, before[1] + 1)
  assert [batch.index.tolist() for batch in found] == [[0, 1, 2, 4, 5, 6, 7], [8, 9]]
  for batch in found:
    np.testing.assert_array_equal(tok.encode(batch.images), batch.tokens)
    np.testing.assert_array_equal(tok.decode(batch.tokens), batch.pixels)
  (first,) = tok.batched(tmp_path, data, batch_size=8, limit=2)
  assert (len(first.index), first.pixels) == (2, None)
  data.image_size += 1
  with pytest.raises(UserError, match='legal: sides that are multiples of'):
    tok.batched(tmp_path, data)


def test_one_number_that_is_none_is_refused(images):
  tok = vqjax.load(checkpoint(CHECKPOINTS[0])[0])
  pixels = images / np.float32(255)
  pixels[1, 2, 3] = np.nan
  with pytest.raises(UserError, match='images are float32 from nan to nan'):
    tok.encode(pixels)
