"""Loss terms by hand; test_golden_losses.py has the reference's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.training import losses


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


def test_r1_by_hand():
  slopes = jnp.arange(8.0).reshape(2, 2, 2, 1)
  assert losses.r1(slopes) == (0 + 1 + 4 + 9 + 16 + 25 + 36 + 49) / 2


def test_lecam_by_hand():
  real, fake = jnp.array([3.0, -2]), jnp.array([-4.0, 5])
  # Real logits above the average fake one, fake ones below the average real one.
  assert losses.lecam(real, fake, 1.0, -1.0) == (16 + 0) / 2 + (25 + 0) / 2


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
