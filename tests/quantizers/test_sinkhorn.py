import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqjax.quantizers import VectorQuantizer, nearest_code, sinkhorn
from vqjax.quantizers.sinkhorn import Sinkhorn


def dense(z, codes, epsilon=10.0, iters=5, normalize='all'):
  """The definition, with the original's guards, in float64: (indices [N], Q [N K])."""
  z, codes = np.asarray(z, np.float64), np.asarray(codes, np.float64)
  cost = np.sqrt(((z[:, None] - codes[None]) ** 2).sum(-1))
  if normalize == 'all':
    cost = (cost - cost.mean()) / (cost.std(ddof=1) + 1e-6)
    cost -= cost.min()
  elif normalize == 'dim':
    cost /= np.sqrt(z.shape[1])
  plan = np.exp(-epsilon * cost)
  plan /= plan.sum() + 1e-8
  for _ in range(iters):
    plan /= plan.sum(0, keepdims=True) + 1e-8
    plan /= len(codes)
    plan /= plan.sum(1, keepdims=True) + 1e-8
    plan /= len(z)
  plan *= len(z)
  return plan.argmax(1), plan


def rows_and_codes(n, k, d, seed=0):
  """Two clusters of rows, and codes of which most are near neither."""
  keys = jax.random.split(jax.random.key(seed))
  z = (jax.random.normal(keys[0], (n, d)) / 2).at[::2].add(2)
  return z, jax.random.normal(keys[1], (k, d))


def both(assign, z, codes, mask=None):
  """(indices, plan), compiled once."""
  return jax.jit(lambda *args, mask: (assign(*args, mask=mask), assign.plan(*args, mask)))(
    z, codes, mask=mask
  )


@pytest.mark.parametrize('name', ['opt_sinkhorn0', 'opt_sinkhorn1'])
@pytest.mark.parametrize('max_kernel', [2**26, 2**12])
def test_equals_the_original(name, max_kernel):
  golden = load(f'quantizers/{name}')
  assign = Sinkhorn(float(golden['hp_epsilon']), int(golden['hp_n_iters']), max_kernel=max_kernel)
  z, codes = jnp.asarray(golden['in_X']), jnp.asarray(golden['in_E'])
  index, plan = both(assign, z, codes)
  assert index.dtype == jnp.int32
  np.testing.assert_array_equal(index, golden['out_idx'])
  np.testing.assert_allclose(plan.sum(1), golden['out_colsum'], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(plan.sum(0), golden['out_rowsum'], rtol=1e-3, atol=1e-3)
  if 'out_Q' in golden:
    np.testing.assert_allclose(plan, golden['out_Q'], rtol=1e-3, atol=5e-6)


@pytest.mark.parametrize(
  ('shape', 'settings'),
  [
    ((300, 40, 5), {}),
    ((50, 200, 16), {}),
    ((300, 40, 5), {'iters': 1}),
    ((300, 40, 5), {'iters': 50}),
    ((300, 40, 5), {'epsilon': 2.0}),
    ((300, 40, 5), {'epsilon': 3.0, 'normalize': 'dim'}),
    ((300, 40, 5), {'epsilon': 2.5, 'normalize': 'none'}),
    ((5, 30, 3), {}),
  ],
)
def test_equals_the_definition(shape, settings):
  z, codes = rows_and_codes(*shape)
  expected, expected_plan = dense(z, codes, **settings)
  index, plan = both(Sinkhorn(**settings), z, codes)
  np.testing.assert_array_equal(index, expected)
  np.testing.assert_allclose(plan, expected_plan, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize('max_kernel', [1, 200 * 7, 200 * 99])
def test_blocks_computed_anew_equal_the_kept_matrix(max_kernel):
  z, codes = rows_and_codes(200, 100, 6)
  kept, anew = both(Sinkhorn(), z, codes), both(Sinkhorn(max_kernel=max_kernel), z, codes)
  np.testing.assert_array_equal(anew[0], kept[0])
  np.testing.assert_allclose(anew[1], kept[1], rtol=1e-4, atol=1e-7)


def test_matrix_kept_in_blocks(monkeypatch):
  z, codes = rows_and_codes(200, 100, 6)
  whole = both(Sinkhorn(), z, codes)
  monkeypatch.setattr(sinkhorn, 'MAX_BLOCK', 200 * 7)
  blocks = both(Sinkhorn(), z, codes)
  np.testing.assert_array_equal(blocks[0], whole[0])
  np.testing.assert_allclose(blocks[1], whole[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('max_kernel', [2**26, 2**10])
def test_no_matrix_beyond_max_kernel(max_kernel):
  n, k, d = 512, 8192, 8
  shapes = (jax.ShapeDtypeStruct((n, d), jnp.float32), jax.ShapeDtypeStruct((k, d), jnp.float32))
  compiled = jax.jit(Sinkhorn(max_kernel=max_kernel)).lower(*shapes).compile()
  used = compiled.memory_analysis().temp_size_in_bytes
  if max_kernel < n * k:
    assert used < n * k * 4 / 8
  else:
    assert used > n * k * 4  # the measure sees the matrix where there is one


@pytest.mark.parametrize('max_kernel', [2**26, 2**10])
def test_mask_of_ones_gives_the_same_bits(max_kernel):
  z, codes = rows_and_codes(128, 50, 6)
  assign, ones = Sinkhorn(max_kernel=max_kernel), jnp.ones(128, bool)
  for bare, masked in (
    (jax.jit(assign), jax.jit(lambda z, codes, mask: assign(z, codes, mask=mask))),
    (jax.jit(assign.plan), jax.jit(assign.plan)),
  ):
    np.testing.assert_array_equal(masked(z, codes, ones), bare(z, codes))


@pytest.mark.parametrize('normalize', ['all', 'none'])
def test_masked_rows_do_not_matter(normalize):
  z, codes = rows_and_codes(128, 50, 6)
  mask = jnp.arange(128) % 3 != 0
  assign = Sinkhorn(normalize=normalize)
  find = jax.jit(lambda z: (assign(z, codes, mask=mask), assign.plan(z, codes, mask)))
  index, plan = find(z)
  for value in (0.0, 1e6, jnp.inf, jnp.nan):
    other_index, other_plan = find(jnp.where(mask[:, None], z, value))
    np.testing.assert_array_equal(other_index[mask], index[mask])
    np.testing.assert_array_equal(other_plan, plan)
    assert ((other_index >= 0) & (other_index < 50)).all()
  assert (plan[~mask] == 0).all()
  without = both(assign, z[np.asarray(mask)], codes)
  np.testing.assert_array_equal(index[mask], without[0])
  np.testing.assert_allclose(plan[mask], without[1], rtol=1e-4, atol=1e-7)


def test_rows_that_are_not_finite_do_not_matter():
  z, codes = rows_and_codes(128, 50, 6)
  bad = z.at[3].set(jnp.nan).at[7, 2].set(jnp.inf)
  mask = jnp.ones(128, bool).at[jnp.array([3, 7])].set(False)
  np.testing.assert_array_equal(Sinkhorn().plan(bad, codes), Sinkhorn().plan(z, codes, mask))


def test_mask_of_zeros_is_finite():
  z, codes = rows_and_codes(8, 5, 3)
  assert (Sinkhorn().plan(z, codes, mask=jnp.zeros(8, bool)) == 0).all()


@pytest.mark.parametrize('max_kernel', [2**26, 2**12])
@pytest.mark.parametrize('sample', [False, True])
def test_sharded_rows_give_the_same_codes_and_stay_in_place(max_kernel, sample):
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  z, codes = rows_and_codes(512, 100, 6)
  assign = Sinkhorn(sample=sample, max_kernel=max_kernel)
  find = jax.jit(lambda z, c: assign(z, c, key=jax.random.key(3)))
  sharded = jax.device_put(z, NamedSharding(mesh, PartitionSpec('data')))
  replicated = jax.device_put(codes, NamedSharding(mesh, PartitionSpec()))
  compiled = find.lower(sharded, replicated).compile()
  np.testing.assert_array_equal(compiled(sharded, replicated), find(z, codes))
  text = compiled.as_text()
  assert 'all-gather' not in text
  assert 'all-reduce' in text  # prices are those of all rows


def test_draws_follow_the_plan():
  z, codes = rows_and_codes(6, 5, 3)
  assign = Sinkhorn(epsilon=1.0, sample=True)
  draw = jax.jit(jax.vmap(lambda key: assign(z, codes, key=key)))
  drawn = draw(jax.random.split(jax.random.key(0), 20_000))  # [S N]
  frequency = np.stack([np.bincount(column, minlength=5) for column in drawn.T]) / 20_000
  expected = dense(z, codes, epsilon=1.0)[1]
  assert expected.max() < 0.9  # there is something to draw
  np.testing.assert_allclose(frequency, expected, atol=0.015)


def test_draw_does_not_depend_on_blocks():
  z, codes = rows_and_codes(64, 50, 3)
  draw = lambda **settings: jax.jit(Sinkhorn(epsilon=2.0, **settings))(
    z, codes, key=jax.random.key(1)
  )
  drawn = draw(sample=True)
  np.testing.assert_array_equal(draw(sample=True, max_kernel=64 * 7), drawn)
  assert (drawn != draw()).any()


def test_draw_without_a_key():
  z, codes = rows_and_codes(4, 5, 3)
  with pytest.raises(ValueError, match=r"Sinkhorn\(sample=True\).*rngs=\{'vq': key\}"):
    Sinkhorn(sample=True)(z, codes)


def test_outlier_gets_the_nearest_code_after_prices():
  """The original's row of zeros takes code 0."""
  z, codes = rows_and_codes(256, 32, 4)
  z = z.at[3].set(60 * codes[17] / jnp.linalg.norm(codes[17]))
  assign = Sinkhorn(normalize='dim')
  index, plan = both(assign, z, codes)
  assert (plan[3] == 0).all()  # nothing is left of it in float32
  assert index[3] == nearest_code(z, codes)[3] != 0
  others = np.arange(256) != 3
  np.testing.assert_array_equal(index[others], dense(z, codes, normalize='dim')[0][others])


def test_code_out_of_reach_stays_without_rows():
  """Its price must not grow until, all at once, every row takes it."""
  z, codes = rows_and_codes(256, 32, 4)
  codes = codes.at[5].set(1000.0)
  index = Sinkhorn(normalize='none', iters=100)(z, codes)
  assert (index != 5).all()
  assert len(np.unique(index)) > 20


def test_many_turns_stay_finite():
  z, codes = rows_and_codes(64, 16, 4)
  z, codes = z.at[3].set(9.0), codes.at[5].set(-9.0)  # of hardly any mass, but some
  plan = Sinkhorn(4.0, normalize='none', iters=1000).plan(z, codes)
  assert np.isfinite(plan).all()
  np.testing.assert_allclose(plan.sum(0), 4, rtol=1e-3)
  np.testing.assert_allclose(plan.sum(1), 1, rtol=1e-3)


def test_uses_all_codes_where_nearest_uses_few():
  z = 0.1 * jax.random.normal(jax.random.key(0), (2048, 8))
  codes = jax.random.normal(jax.random.key(1), (64, 8))
  near = np.bincount(nearest_code(z, codes), minlength=64)
  balanced = np.bincount(Sinkhorn(iters=20)(z, codes), minlength=64)
  assert (near > 0).sum() <= 16
  assert (balanced > 0).all()
  assert balanced.max() <= 3 * 2048 / 64


def test_ties_go_to_the_first_code():
  codes = jnp.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
  np.testing.assert_array_equal(Sinkhorn()(jnp.array([[1.0, 0], [0, 1]]), codes), [0, 1])


def test_no_gradient():
  z, codes = rows_and_codes(16, 5, 3)
  grads = jax.grad(lambda z, c: jnp.sum(Sinkhorn().plan(z, c) ** 2), (0, 1))(z, codes)
  assert all((grad == 0).all() for grad in grads)
  grads = jax.grad(lambda z, c: jnp.sum(c[Sinkhorn()(z, c)] ** 2), (0, 1))(z, codes)
  assert (grads[0] == 0).all()


def test_in_a_quantizer():
  z, _ = rows_and_codes(256, 1, 4)
  vq = VectorQuantizer(64, assign=Sinkhorn())
  variables = vq.init(jax.random.key(0), z, train=True)
  codes = variables['params']['codebook']
  train = vq.apply(variables, z, train=True)
  np.testing.assert_array_equal(train.indices, Sinkhorn()(z, codes))
  np.testing.assert_array_equal(vq.apply(variables, z, train=False).indices, nearest_code(z, codes))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'epsilon': 0.0}, 'epsilon is 0.0; legal: above 0'),
    ({'epsilon': float('nan')}, 'epsilon is nan'),
    ({'iters': 0}, 'iters is 0; legal: at least 1'),
    ({'max_kernel': 0}, 'max_kernel is 0; legal: at least 1'),
    ({'normalize': 'most'}, "normalize is 'most'; legal: all, dim, none"),
  ],
)
def test_settings_that_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    Sinkhorn(**settings)
