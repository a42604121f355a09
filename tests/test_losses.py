import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load

from vqjax import losses


@pytest.mark.parametrize(
  ('name', 'loss'),
  [
    ('hinge_d', losses.DISCRIMINATOR['hinge']),
    ('vanilla_d', losses.DISCRIMINATOR['softplus']),
    ('hinge_g', losses.GENERATOR['linear']),
    ('enh_vanilla_g', losses.GENERATOR['softplus']),
  ],
)
def test_gan_losses_equal_the_reference(name, loss):
  data = load('losses/gan_losses')
  inputs = ('real', 'fake') if name.endswith('_d') else ('fake',)
  logits = [jnp.asarray(data[f'in_logits_{kind}']) for kind in inputs]
  value, gradients = jax.value_and_grad(loss, tuple(range(len(logits))))(*logits)
  np.testing.assert_allclose(value, data[f'out_{name}'], rtol=1e-6)
  for kind, gradient in zip(inputs, gradients, strict=True):
    np.testing.assert_allclose(gradient, data[f'out_{name}_g{kind}'], atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize('logit', [-200.0, 200.0])
@pytest.mark.parametrize('name', ['softplus', 'hinge', 'linear'])
def test_gan_losses_stay_finite_at_large_logits(name, logit):
  logits = jnp.full((2, 3), logit)
  if name in losses.GENERATOR:
    value, gradient = jax.value_and_grad(losses.GENERATOR[name])(logits)
    assert value == (200 if logit < 0 else (-200 if name == 'linear' else 0))
    assert jnp.isfinite(gradient).all()
  if name in losses.DISCRIMINATOR:
    value, gradients = jax.value_and_grad(losses.DISCRIMINATOR[name], (0, 1))(logits, logits)
    np.testing.assert_allclose(value, 100, atol=1)  # one of the two halves is wrong by 200
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_pixel_terms_by_hand():
  x = jnp.array([[1.0, 2], [3, 4]])
  y = jnp.array([[1.0, 0], [6, 3]])
  assert losses.PIXELS['l1'](x, y) == (0 + 2 + 3 + 1) / 4
  assert losses.PIXELS['l2'](x, y) == (0 + 4 + 9 + 1) / 4


@pytest.mark.parametrize(
  ('reconstruction', 'gan', 'cap', 'expected'),
  [
    ([3.0, 4.0], [0.0, 0.5], 1e4, 5 / 0.5001),
    ([3.0, 4.0], [30.0, 40.0], 1e4, 5 / 50.0001),
    ([3.0, 4.0], [0.0, 0.5], 2.0, 2.0),  # the cap
    ([3.0, 4.0], [0.0, 0.0], 1e4, 1e4),  # 5 / 1e-4 is above it
    ([0.0, 0.0], [3.0, 4.0], 1e4, 0.0),
    ([0.0, 0.0], [0.0, 0.0], 1e4, 0.0),
  ],
)
def test_adaptive_weight_by_hand(reconstruction, gan, cap, expected):
  kernel = lambda values: jnp.array(values).reshape(1, 1, 2, 1)
  weigh = lambda *gradients: losses.adaptive_weight(*gradients, cap)
  pair = kernel(reconstruction), kernel(gan)
  weight, gradients = jax.value_and_grad(weigh, (0, 1))(*pair)
  assert weight.dtype == jnp.float32
  np.testing.assert_allclose(weight, expected, rtol=1e-6)
  for gradient in gradients:  # nothing flows through the weight, nor NaN from the root at 0
    np.testing.assert_array_equal(gradient, jnp.zeros((1, 1, 2, 1)))


def test_adaptive_weight_is_capped_at_ten_thousand():
  assert losses.adaptive_weight(jnp.ones((4, 4)) * 1e6, jnp.zeros((4, 4))) == 1e4
