import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqjax.quantizers import nearest_code


def brute_force(z, codes):
  z, codes = np.asarray(z, np.float64), np.asarray(codes, np.float64)
  return np.argmin(((z[:, None] - codes[None]) ** 2).sum(-1), axis=-1)


@pytest.mark.parametrize('block', [None, 1, 7, 64, 100, 1000])
def test_equals_brute_force_whatever_the_block(block):
  z = jax.random.normal(jax.random.key(0), (200, 6))
  codes = jax.random.normal(jax.random.key(1), (100, 6))
  index = nearest_code(z, codes, block=block)
  assert index.dtype == jnp.int32
  np.testing.assert_array_equal(index, brute_force(z, codes))


@pytest.mark.parametrize('block', [None, 2])
def test_ties_go_to_the_first_code(block):
  codes = jnp.array([[1.0, 0], [0, 1], [1, 0], [0, 1], [0, 1]])
  np.testing.assert_array_equal(
    nearest_code(jnp.array([[1.0, 0], [0, 1]]), codes, block=block), [0, 1]
  )


def test_far_codes_lose_in_every_block():
  """Padding of the last block must not win against codes with negative scores."""
  z = -jnp.ones((3, 4))
  codes = 100 * jnp.ones((5, 4)) + jnp.arange(5.0)[:, None]
  np.testing.assert_array_equal(nearest_code(z, codes, block=2), [0, 0, 0])


def test_default_block_does_not_divide_the_codes():
  z = jax.random.normal(jax.random.key(0), (2**13, 3))
  codes = jax.random.normal(jax.random.key(1), (300, 3))
  np.testing.assert_array_equal(nearest_code(z, codes), brute_force(z, codes))


@pytest.mark.parametrize('block', [None, 2, 100])
def test_row_that_is_not_finite_gets_a_code_and_spoils_no_other(block):
  z = jax.random.normal(jax.random.key(0), (9, 4))
  codes = jax.random.normal(jax.random.key(1), (5, 4))
  bad = z.at[2].set(jnp.nan).at[5].set(jnp.inf).at[6, 0].set(-jnp.inf)
  index = np.asarray(nearest_code(bad, codes, block=block))
  assert (index >= 0).all()
  assert (index < 5).all()
  good = [0, 1, 3, 4, 7, 8]
  np.testing.assert_array_equal(index[good], brute_force(z, codes)[good])


@pytest.mark.parametrize('block', [None, 4096])
def test_no_n_by_k_matrix_at_large_k(block):
  n, k, d = 512, 2**18, 8
  shapes = (jax.ShapeDtypeStruct((n, d), jnp.float32), jax.ShapeDtypeStruct((k, d), jnp.float32))
  compiled = jax.jit(lambda z, c: nearest_code(z, c, block=block)).lower(*shapes).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < n * k * 4 / 8


@pytest.mark.parametrize('block', [None, 32])
def test_sharded_rows_stay_in_place(block):
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  z = jax.random.normal(jax.random.key(0), (256, 6))
  codes = jax.random.normal(jax.random.key(1), (100, 6))
  find = jax.jit(lambda z, c: nearest_code(z, c, block=block))
  sharded = jax.device_put(z, NamedSharding(mesh, PartitionSpec('data')))
  replicated = jax.device_put(codes, NamedSharding(mesh, PartitionSpec()))
  np.testing.assert_array_equal(find(sharded, replicated), brute_force(z, codes))
  text = find.lower(sharded, replicated).compile().as_text()
  assert 'all-gather' not in text
  assert 'all-reduce' not in text


def test_no_gradient():
  z, codes = jnp.ones((4, 2)), jnp.eye(2)
  grads = jax.grad(lambda z, c: jnp.sum(c[nearest_code(z, c)] ** 2), (0, 1))(z, codes)
  assert (grads[0] == 0).all()
