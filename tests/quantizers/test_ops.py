import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.quantizers import code_counts, masked_mean, perplexity, unit, usage


def test_unit_has_a_finite_gradient_at_zero():
  x = jnp.array([[0.0, 0], [3, 4]])
  np.testing.assert_allclose(unit(x), [[0, 0], [0.6, 0.8]], rtol=1e-6)
  assert jnp.isfinite(jax.grad(lambda x: unit(x)[:, 0].sum())(x)).all()


def test_masked_mean_ignores_masked_rows_even_nan():
  x = jnp.array([[1.0, 2], [3, 4], [jnp.nan, 7]])
  mask = jnp.array([True, True, False])
  value, grad = jax.value_and_grad(lambda x: masked_mean(jnp.square(x), mask))(x)
  assert value == np.mean(np.square([1, 2, 3, 4]))
  np.testing.assert_array_equal(grad[:2], x[:2] / 2)
  assert masked_mean(x[:2]) == masked_mean(x[:2], jnp.ones(2, bool)) == 2.5
  assert masked_mean(x, jnp.zeros(3, bool)) == 0


def test_code_statistics_by_hand():
  counts = code_counts(jnp.array([0, 0, 2, 3, 3, 3]), 8, jnp.array([1, 1, 1, 1, 1, 0], bool))
  np.testing.assert_array_equal(counts, [2, 0, 1, 2, 0, 0, 0, 0])
  assert usage(counts) == 3 / 8
  p = np.array([2, 1, 2]) / 5
  np.testing.assert_allclose(perplexity(counts), np.exp(-(p * np.log(p)).sum()), rtol=1e-6)


@pytest.mark.parametrize(('counts', 'expected'), [([0, 0, 0], 1), ([5, 0, 0], 1), ([2, 2, 2], 3)])
def test_perplexity_at_its_ends(counts, expected):
  np.testing.assert_allclose(perplexity(jnp.array(counts, jnp.float32)), expected, rtol=1e-6)
