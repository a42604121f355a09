import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from vqjax.quantizers import kmeans, kmeans_plus_plus, lloyd


def inertia(rows, codes):
  rows, codes = np.asarray(rows, np.float64), np.asarray(codes, np.float64)
  return ((rows[:, None] - codes[None]) ** 2).sum(-1).min(1).sum()


def digits():
  return jnp.asarray(load_digits().data / 16, jnp.float32)


def test_the_second_centre_is_drawn_by_squared_distance():
  rows = jnp.array([[0.0], [1], [3], [3.5]])
  keys = jax.random.split(jax.random.key(0), 20_000)
  pairs = jax.vmap(lambda key: kmeans_plus_plus(key, rows, 2))(keys)[..., 0]
  first, second = (np.searchsorted(rows[:, 0], pairs[:, i]) for i in (0, 1))
  counts = np.zeros((4, 4))
  np.add.at(counts, (first, second), 1)
  squared = (np.asarray(rows) - np.asarray(rows).T) ** 2
  np.testing.assert_allclose(counts / len(keys), squared / squared.sum(1)[:, None] / 4, atol=0.01)


def test_farthest_first_takes_the_farthest():
  rows = jnp.array([[0.0], [1], [3], [7]])
  centres = kmeans_plus_plus(jax.random.key(0), rows, 4, farthest_first=True)[:, 0]
  for k in range(1, 4):
    nearest = np.abs(np.asarray(rows) - np.asarray(centres)[None, :k]).min(1)
    assert centres[k] == rows[nearest.argmax(), 0]


def test_one_centre_a_blob():
  means = 100 * jax.random.normal(jax.random.key(0), (12, 5))
  rows = (means[:, None] + jax.random.normal(jax.random.key(1), (12, 40, 5))).reshape(-1, 5)
  codes = kmeans(jax.random.key(2), rows, 12)
  found = ((means[:, None] - codes[None]) ** 2).sum(-1).argmin(1)
  assert len(set(found.tolist())) == 12
  np.testing.assert_allclose(codes[found], means, atol=1)


def test_as_good_as_scikit_learn_on_digits():
  rows = digits()
  peer = [KMeans(32, n_init=1, max_iter=20, random_state=i).fit(rows).inertia_ for i in range(5)]
  run = jax.jit(lambda key: kmeans(key, rows, 32, iters=20))
  ours = [inertia(rows, run(jax.random.key(i))) for i in range(5)]
  assert np.mean(ours) < 1.02 * np.mean(peer)


def test_an_iteration_never_makes_it_worse():
  rows, start = digits(), kmeans_plus_plus(jax.random.key(0), digits(), 16)
  costs = [inertia(rows, lloyd(rows, start, n)) for n in range(6)]
  assert all(b < a for a, b in itertools.pairwise(costs))


@pytest.mark.parametrize('sphere', [False, True])
def test_fewer_rows_than_codes_still_give_all_codes(sphere):
  rows = jnp.tile(jax.random.normal(jax.random.key(0), (3, 4)), (2, 1))
  codes = kmeans(jax.random.key(1), rows, 20, sphere=sphere)
  assert codes.shape == (20, 4)
  assert jnp.isfinite(codes).all()
  assert len(np.unique(np.asarray(codes), axis=0)) == 20
  assert (
    inertia(rows / (jnp.linalg.norm(rows, axis=1, keepdims=True) if sphere else 1), codes) < 1e-2
  )


@pytest.mark.parametrize('place', [0.0, 1.0, 1000.0])
def test_equal_rows_still_give_different_codes(place):
  codes = np.asarray(kmeans_plus_plus(jax.random.key(0), jnp.full((5, 8), place), 16))
  assert len(np.unique(codes, axis=0)) == 16
  np.testing.assert_allclose(codes, place, rtol=1e-4, atol=1e-2)


def test_without_rows_that_count_codes_are_finite_and_different():
  codes = kmeans(jax.random.key(0), jnp.full((5, 4), jnp.nan), 3)
  assert jnp.isfinite(codes).all()
  assert len(np.unique(np.asarray(codes), axis=0)) == 3


def test_rows_that_do_not_count_are_as_if_they_were_not_there():
  rows, mask = digits()[:300], jnp.arange(300) < 200
  a = kmeans(jax.random.key(0), rows.at[200:].set(jnp.nan), 8, mask=mask)
  b = kmeans(jax.random.key(0), rows.at[200:].set(1e6), 8, mask=mask)
  c = kmeans(jax.random.key(0), rows.at[200:].set(jnp.inf), 8)  # not finite: left out unasked
  np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(a, c)
  assert jnp.abs(a).max() <= 1


def test_a_code_without_rows_stays():
  rows = jnp.array([[0.0, 0], [0, 2]])
  codes = lloyd(rows, jnp.array([[0.0, 1], [50, 50]]), 3)
  np.testing.assert_array_equal(codes, [[0, 1], [50, 50]])


def test_codes_on_the_sphere_have_length_one():
  rows = jax.random.normal(jax.random.key(0), (200, 6))
  rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
  codes = kmeans(jax.random.key(1), rows, 16, sphere=True)
  np.testing.assert_allclose(jnp.linalg.norm(codes, axis=1), 1, rtol=1e-6)


def test_a_code_whose_rows_cancel_stays_on_the_sphere():
  rows = jnp.array([[1.0, 0], [-1, 0]])
  np.testing.assert_array_equal(lloyd(rows, jnp.array([[0.0, 1]]), 2, sphere=True), [[0, 1]])


def test_calls_outside_jit_compile_once(caplog):
  rows = jax.random.normal(jax.random.key(0), (50, 3))

  def compiled(seed):
    caplog.clear()
    with jax.log_compiles():
      kmeans(jax.random.key(seed), rows + seed, 5, iters=3)
    return [record for record in caplog.records if 'Compiling' in record.getMessage()]

  jax.clear_caches()
  assert compiled(0)
  assert not compiled(1)


def test_eight_devices_give_what_one_gives():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  rows = digits()[:1600]
  run = jax.jit(lambda rows: kmeans(jax.random.key(0), rows, 24))
  sharded = jax.device_put(rows, NamedSharding(mesh, PartitionSpec('data')))
  np.testing.assert_allclose(run(sharded), run(rows), atol=1e-5)
  text = run.lower(sharded).compile().as_text()
  gathered = [line for line in text.splitlines() if ' all-gather(' in line]
  assert not [line for line in gathered if '[1600,64]' in line]  # rows stay in place


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: kmeans(jax.random.key(0), jnp.ones((3, 2)), 0), r'num_codes is 0; legal: at least 1'),
    (lambda: kmeans(jax.random.key(0), jnp.ones(3), 2), r'rows have shape \(3,\); legal: \[N D\]'),
    (lambda: lloyd(jnp.ones((3, 2)), jnp.ones((2, 2)), -1), r'iters is -1; legal: at least 0'),
  ],
)
def test_wrong_use_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
