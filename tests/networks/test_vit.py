import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import QUICK, compiled, random_params

from vqjax.errors import UserError
from vqjax.networks import ViTDecoder, ViTEncoder, vit

TINY = {'dim': 16, 'depth': 2, 'heads': 2, 'mlp_dim': 24, 'patch_size': 4}


@pytest.mark.parametrize(('y', 'x'), [(0, 0), (0, 2), (1, 0), (2, 4)])
def test_positions(y, x):
  table = vit.positions(3, 5, 8)
  assert table.shape == (3, 5, 8)
  assert table.dtype == np.float32
  w = (1.0, 0.01)  # 10000 ** (-k / 2)
  waves = lambda at: [math.sin(at * w[0]), math.sin(at * w[1]), *(math.cos(at * f) for f in w)]
  np.testing.assert_allclose(table[y, x], waves(x) + waves(y), rtol=1e-6)


def test_positions_need_four_parts():
  with pytest.raises(UserError) as error:
    vit.positions(2, 2, 30)
  assert str(error.value) == (
    'dim is 30; legal: a multiple of 4, for the sine and cosine of two coordinates.'
  )


def test_names_are_those_of_the_original():
  encode = lambda **fields: jax.eval_shape(
    lambda: ViTEncoder(**TINY | fields).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  )
  paths = lambda tree: {
    '/'.join(k.key for k in path): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree['params'])
  }
  norms = {f'{name}/{part}': (16,) for name in ('norm',) for part in ('scale', 'bias')}
  layer = {
    'attn/to_qkv/kernel': (16, 3 * 2 * 64),
    'attn/to_out/kernel': (2 * 64, 16),
    'attn/to_out/bias': (16,),
    'ff/net_0/kernel': (16, 24),
    'ff/net_0/bias': (24,),
    'ff/net_2/kernel': (24, 16),
    'ff/net_2/bias': (16,),
    **{f'{part}/{name}': shape for part in ('attn', 'ff') for name, shape in norms.items()},
  }
  assert paths(encode()) == {
    'to_patch_embedding/kernel': (4, 4, 3, 16),
    'to_patch_embedding/bias': (16,),
    **{f'layer_{i}_{name}': shape for i in range(2) for name, shape in layer.items()},
    **norms,
  }
  projected = lambda **fields: any('to_out' in path for path in paths(encode(**fields)))
  assert not projected(heads=1, dim=64)
  assert projected(heads=2, dim=64)
  assert projected(heads=1, dim=16)


def normalised(x, params):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
  return x * params['scale'] + params['bias']


def test_encoder_adds_positions():
  """Without layers, a black image gives the norm of the embedding's bias plus position."""
  encoder = ViTEncoder(**TINY | {'depth': 0})
  x = np.zeros((1, 8, 12, 3), np.float32)
  params = random_params(encoder, x)
  z = compiled(encoder)(params, x)
  embedded = params['to_patch_embedding']['bias'] + vit.positions(2, 3, 16)
  np.testing.assert_allclose(z[0], normalised(embedded, params['norm']), atol=1e-5)


def test_attention():
  attention = vit.Attention(heads=2, dtype=jnp.float32)
  x = np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
  params = random_params(attention, x)
  q, k, v = np.split(normalised(x, params['norm']) @ params['to_qkv']['kernel'], 3, axis=-1)
  heads = []
  for i in (slice(64), slice(64, None)):
    weights = np.exp(q[..., i] @ k[..., i].swapaxes(1, 2) / 8)
    heads.append(weights / weights.sum(-1, keepdims=True) @ v[..., i])
  out = np.concatenate(heads, -1) @ params['to_out']['kernel'] + params['to_out']['bias']
  np.testing.assert_allclose(compiled(attention)(params, x), x + out, atol=1e-4)


def test_feed_forward():
  feed_forward = vit.FeedForward(mlp_dim=24, dtype=jnp.float32)
  x = np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
  params = random_params(feed_forward, x)
  first, second = params['net_0'], params['net_2']
  h = np.tanh(normalised(x, params['norm']) @ first['kernel'] + first['bias'])
  expected = x + h @ second['kernel'] + second['bias']
  np.testing.assert_allclose(compiled(feed_forward)(params, x), expected, atol=1e-5)


def test_decoder_puts_patches_in_their_places():
  decoder = ViTDecoder(**TINY | {'depth': 0})
  z = np.random.default_rng(0).normal(size=(2, 2, 3, 16)).astype(np.float32)
  params, run = random_params(decoder, z), compiled(decoder)
  other = z.copy()
  other[1, 1, 2] += np.arange(16)
  changed = np.abs(run(params, z) - run(params, other)).max(-1) > 0
  assert changed.shape == (2, 8, 12)
  assert changed[1, 4:, 8:].all()
  assert changed.sum() == 4 * 4


def test_softmax_is_float32_in_bfloat16():
  attention = vit.Attention(heads=2, dtype=jnp.bfloat16)
  x = jnp.zeros((1, 6, 16), jnp.bfloat16)
  with jax.numpy_dtype_promotion('standard'):
    program = str(jax.make_jaxpr(lambda: attention.init_with_output(jax.random.key(0), x))())
  assert set(re.findall(r':(\w+)\[[\d,]*\] = exp ', program)) == {'f32'}


def test_initial_bounds():
  """Xavier's, with `to_qkv` as one matrix and the patch layers as [dim, 3 * patch ** 2]."""
  encoder, decoder = ViTEncoder(**TINY | {'depth': 1}), ViTDecoder(**TINY | {'depth': 1})
  images, latents = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 2, 2, 16))
  init = lambda key: (encoder.init(key, images)['params'], decoder.init(key, latents)['params'])
  params, decoder_params = jax.jit(init, compiler_options=QUICK)(jax.random.key(0))
  pixel = decoder_params['to_pixel']
  embedding, layer = params['to_patch_embedding'], params['layer_0_attn']
  xavier = lambda rows, columns: math.sqrt(6 / (rows + columns))
  for weight, bound in (
    (layer['to_qkv']['kernel'], xavier(16, 3 * 128)),
    (layer['to_out']['kernel'], xavier(16, 128)),
    (embedding['kernel'], xavier(16, 48)),
    (pixel['kernel'], xavier(16, 48)),
    (embedding['bias'], 1 / math.sqrt(48)),
    (pixel['bias'], 1 / math.sqrt(48)),
  ):
    assert 0.5 * bound < np.abs(weight).max() <= bound
    assert weight.ndim == 1 or np.abs(weight).max() > 0.95 * bound
  for bias in (layer['to_out']['bias'], params['layer_0_ff']['net_0']['bias']):
    assert not bias.any()
