import jax
import jax.numpy as jnp
import numpy as np
from random_params import compiled, random_params

from vqjax.networks import MaskGITEncoder
from vqjax.networks.maskgit import MaskGITBlock

TINY = {'channels': 8, 'channel_mult': (1, 2), 'num_res_blocks': 1, 'norm_groups': 4}


def silent(tree):
  return jax.tree.map(np.zeros_like, tree)


def test_the_shortcut_between_widths_sees_the_output_of_the_block():
  """`h + W h`, as published; where widths agree `h + x`."""
  x = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float32)
  block = MaskGITBlock(8, norm_groups=4, dtype=jnp.float32)
  params = random_params(block, x)
  assert 'nin_shortcut' not in params
  y = compiled(block)(params | {'conv2': silent(params['conv2'])}, x)
  np.testing.assert_array_equal(y, x)

  block = MaskGITBlock(16, norm_groups=4, dtype=jnp.float32)
  params, run = random_params(block, x), compiled(block)
  h = run(params | {'nin_shortcut': silent(params['nin_shortcut'])}, x)
  kernel = params['nin_shortcut']['kernel']
  assert kernel.shape == (16, 16)
  np.testing.assert_allclose(run(params, x), h + np.asarray(h) @ kernel, atol=1e-4)


def test_biases_stand_where_the_original_has_them():
  encoder = MaskGITEncoder(**TINY)
  params = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
  biased = {
    '/'.join(k.key for k in path[1:-1])
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == 'bias'
  }
  assert {name for name in biased if 'norm' not in name} == {'conv_out'}


def test_resolution_is_halved_by_averaging():
  """Behind silent blocks: a wave that averages to nothing over 2x2 pixels is not seen."""
  encoder = MaskGITEncoder(**TINY | {'channel_mult': (1, 1)})
  x = np.random.default_rng(0).normal(size=(1, 4, 6, 3)).astype(np.float32)
  params, run = random_params(encoder, x), compiled(encoder)
  params |= {name: silent(params[name]) for name in params if 'block' in name or 'mid' in name}
  params['conv_in']['kernel'][:, [0, 2]] = params['conv_in']['kernel'][[0, 2]] = 0
  wave = np.where((np.arange(4)[:, None] + np.arange(6)) % 2, 1.0, -1.0).astype(np.float32)
  z = run(params, x)
  np.testing.assert_allclose(run(params, x + wave[None, ..., None]), z, atol=1e-4)
  step = np.where(np.arange(4) < 2, 1.0, -1.0).astype(np.float32)
  assert np.abs(run(params, x + step[None, :, None, None]) - z).max() > 0.1
