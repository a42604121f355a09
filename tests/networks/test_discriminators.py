"""Sizes and properties of discriminators; test_golden_losses.py has the reference's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.errors import UserError
from vqjax.networks import MaskGITDiscriminator, PatchGAN, StyleGAN2Discriminator, stylegan
from vqjax.networks.discriminators import ActNorm


def images(size, batch=4, seed=0):
  return jax.random.uniform(jax.random.key(seed), (batch, size, size, 3))


@pytest.mark.parametrize(
  ('model', 'logits', 'params'),
  [
    (PatchGAN(), (1, 30, 30, 1), 2_765_633),
    (PatchGAN(num_layers=2), (1, 62, 62, 1), 663_361),
    # A bias for each of the 128 + 256 + 512 channels between.
    (PatchGAN(norm='actnorm'), (1, 30, 30, 1), 2_765_633 + 896),
    (StyleGAN2Discriminator(stylegan.pyramid(256, 128)), (1,), 28_864_129),
    (MaskGITDiscriminator(stylegan.pyramid(256, 64)), (1,), 23_998_017),
  ],
  ids=['patchgan3', 'patchgan2', 'actnorm', 'stylegan2', 'maskgit'],
)
def test_full_size(model, logits, params):
  found, variables = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
  )
  assert found.shape == logits
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == params


def test_widths_double_up_to_the_most():
  assert stylegan.pyramid(256, 128) == (128, 256, 512, 512, 512, 512, 512)
  assert stylegan.pyramid(16, 12, most=20) == (12, 20, 20)


@pytest.mark.parametrize('size', [4, 48, 255])
def test_sizes_that_cannot_be_halved_down_to_four(size):
  with pytest.raises(UserError, match=f'takes images of {size} pixels; legal: a power of two from'):
    stylegan.pyramid(size, 64)


@pytest.mark.parametrize('module', [StyleGAN2Discriminator, MaskGITDiscriminator])
def test_images_of_another_size_are_refused(module):
  with pytest.raises(UserError, match='with 3 widths got images of 32x32 pixels; legal: 16x16'):
    jax.eval_shape(module((2, 2, 2)).init, jax.random.key(0), images(32))


def test_a_batch_that_makes_no_groups_is_refused():
  with pytest.raises(UserError, match='got 9 images, which do not split into groups of 4; legal: '):
    jax.eval_shape(StyleGAN2Discriminator((2, 2)).init, jax.random.key(0), images(8, batch=9))


@pytest.mark.parametrize('module', [StyleGAN2Discriminator, MaskGITDiscriminator])
def test_only_stylegan2_looks_at_the_batch(module):
  model = module((2, 3))
  x = images(8)
  apply = jax.jit(lambda x: model.init_with_output(jax.random.key(0), x)[0])
  changed = np.abs(apply(x) - apply(x.at[1:].set(images(8, seed=1)[1:])))
  assert (changed[1:] > 1e-4).all()
  assert (changed[0] > 1e-6) == (module is StyleGAN2Discriminator)


@pytest.mark.parametrize(('padding', 'stride'), [(2, 1), (1, 2)])
def test_the_blur_is_the_depthwise_convolution(padding, stride):
  x = images(8)
  kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
  expected = jax.lax.conv_general_dilated(
    x,
    np.tile(kernel[:, :, None, None], (1, 1, 1, 3)),
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=3,
  )
  np.testing.assert_allclose(stylegan._blur(x, padding, stride), expected, atol=1e-6)


@pytest.mark.parametrize(
  'model',
  [PatchGAN(4, 1, norm='actnorm'), StyleGAN2Discriminator((2, 3)), MaskGITDiscriminator((2, 3))],
  ids=lambda model: type(model).__name__,
)
def test_equal_flat_images_have_finite_gradients(model):
  x = jnp.zeros((4, 8, 8, 3))

  @jax.jit
  def slope(x):
    variables = model.init(jax.random.key(0), x)
    apply = lambda x: model.apply(variables, x, mutable=['batch_stats'])[0]
    return jax.grad(lambda x: jnp.sum(apply(x)))(x)

  assert jnp.isfinite(slope(x)).all()


@pytest.mark.parametrize(
  'model',
  [PatchGAN(4, 2, norm=norm, dtype=jnp.bfloat16) for norm in ('batch', 'actnorm')]
  + [
    module((2, 3), dtype=jnp.bfloat16) for module in (StyleGAN2Discriminator, MaskGITDiscriminator)
  ],
  ids=['batch', 'actnorm', 'stylegan2', 'maskgit'],
)
def test_parameters_and_logits_are_float32(model):
  with jax.numpy_dtype_promotion('standard'):  # flax's normalisation mixes dtypes in bfloat16
    logits, variables = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    )
  assert logits.dtype == jnp.float32
  assert {str(x.dtype) for x in jax.tree.leaves(variables)} <= {'float32', 'bool'}


def test_actnorm_normalises_the_first_batch_and_stays():
  x = 3 * jax.random.normal(jax.random.key(0), (4, 6, 6, 5)) + 7
  model = ActNorm()
  variables = model.init(jax.random.key(0), x)
  assert not variables['batch_stats']['ready']  # initialising is no batch
  y, moved = model.apply(variables, x, mutable=['batch_stats'])
  np.testing.assert_allclose(jnp.mean(y, (0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(jnp.std(y, (0, 1, 2), ddof=1), 1, rtol=1e-5)
  again, _ = model.apply(variables | moved, 2 * x, mutable=['batch_stats'])
  mean, std = jnp.mean(x, (0, 1, 2)), jnp.std(x, (0, 1, 2), ddof=1)
  np.testing.assert_allclose(again, 2 * y + (mean / std)[None, None, None], atol=1e-4)


def test_an_unknown_norm_is_refused():
  with pytest.raises(UserError, match=r"config.gan.norm is 'layer'; legal: batch, actnorm\."):
    jax.eval_shape(PatchGAN(norm='layer').init, jax.random.key(0), images(32))
