"""What every encoder and decoder that a config can name has in common."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import QUICK, compiled, random_params

from vqjax.networks import NETWORKS, Decoder, Encoder, ImageDecoder, layers

CNN = {'channels': 8, 'channel_mult': (1, 1), 'num_res_blocks': 0, 'norm_groups': 4}
VIT = {'dim': 16, 'depth': 1, 'heads': 2, 'mlp_dim': 24, 'patch_size': 4}
# Fields of a small network, and its pixels per token side.
TINY = {
  'cnn': (CNN | {'mid_attention': False}, 2),
  'maskgit': (CNN, 2),
  'edsr': ({'channels': 8, 'num_blocks': 1, 'patch_size': 4}, 4),
  'vit': (VIT, 4),
  'optvq_small': ({'channels': 4}, 4),
  'vqtorch': ({'channels': 4}, 4),
  'vqtorch_classifier': ({'channels': 4}, 4),
}


def sides(name, **fields):
  fields = TINY[name][0] | fields
  has = lambda kind: inspect.signature(kind).parameters
  return [kind(**{k: v for k, v in fields.items() if k in has(kind)}) for kind in NETWORKS[name]]


def test_every_network_is_in_the_table():
  assert list(TINY) == list(NETWORKS)


@pytest.mark.parametrize('name', NETWORKS)
def test_both_sides_fulfil_their_contract(name):
  """Members and arguments; the next test says that they mean what they should."""
  encoder, decoder = sides(name)
  assert isinstance(encoder, Encoder)
  assert isinstance(decoder, Decoder)
  assert not isinstance(encoder, Decoder)
  assert isinstance(decoder, ImageDecoder) != decoder.classifies
  arguments = lambda of: list(inspect.signature(of.__call__).parameters)
  assert arguments(encoder) == arguments(Encoder)[1:]
  assert arguments(decoder) == arguments(Decoder)[1:]


@pytest.mark.parametrize('name', NETWORKS)
def test_contract(name):
  """In bfloat16, on images that are not square, with gradient through both sides."""
  encoder, decoder = sides(name, dtype=jnp.bfloat16)
  x = jax.random.uniform(jax.random.key(0), (2, 8, 12, 3))

  def loss(params):
    z = encoder.apply({'params': params[0]}, x, True)
    y = decoder.apply({'params': params[1]}, z, True)
    return jnp.mean((y - 0.5) ** 2), (z, y)

  latents = jnp.zeros((1, 2, 2, encoder.width_out))
  with jax.numpy_dtype_promotion('standard'):  # flax's normalisation mixes dtypes in bfloat16
    params = random_params(encoder, x), random_params(decoder, latents)
    grads, (z, y) = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(params)
  side = TINY[name][1]
  assert encoder.downsample == side
  assert z.dtype == jnp.bfloat16
  assert z.shape == (2, 8 // side, 12 // side, encoder.width_out)
  assert decoder.width_in in (None, encoder.width_out)
  assert y.dtype == jnp.float32
  if decoder.classifies:
    assert y.shape == (2, decoder.num_classes)
  else:
    assert decoder.downsample == side
    assert y.shape == (2, 8, 12, decoder.out_channels)
  assert np.isfinite(y).all()
  for leaf in jax.tree.leaves(grads):
    assert leaf.dtype == jnp.float32
    assert np.isfinite(leaf).all()
  last = grads[1]
  for key in decoder.last_kernel:
    last = last[key]
  assert last.ndim in (2, 4)
  assert np.abs(last).max() > 0
  assert np.abs(jax.tree.leaves(grads[0])[0]).max() > 0


@pytest.mark.parametrize('name', ['cnn', 'maskgit', 'vit'])
def test_remat_keeps_the_parameters(name):
  trees = []
  for remat in (False, True):
    encoder, decoder = sides(name, remat=remat, num_res_blocks=1)
    init = lambda encoder=encoder, decoder=decoder: (
      encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))),
      decoder.init(jax.random.key(0), jnp.zeros((1, 2, 2, encoder.width_out))),
    )
    trees.append(jax.eval_shape(init))
    assert ('remat' in str(jax.make_jaxpr(init)())) == remat
  assert trees[0] == trees[1]


def test_patch_transpose_is_the_transposed_convolution():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  layer = layers.PatchTranspose(features=3, size=2)
  params = random_params(layer, x)
  assert params['kernel'].shape == (2, 2, 3, 5)
  run = lambda x, kernel: jax.lax.conv_transpose(x, kernel, (2, 2), 'VALID', transpose_kernel=True)
  expected = np.asarray(jax.jit(run, compiler_options=QUICK)(x, params['kernel'])) + params['bias']
  np.testing.assert_allclose(compiled(layer)(params, x), expected, atol=1e-5)


def test_patch_transpose_starts_as_in_pytorch():
  params = layers.PatchTranspose(features=16, size=2).init(
    jax.random.key(0), jnp.zeros((1, 1, 1, 32))
  )['params']
  bound = 1 / np.sqrt(16 * 2 * 2)
  for leaf in jax.tree.leaves(params):
    assert 0.8 * bound < np.abs(leaf).max() <= bound
