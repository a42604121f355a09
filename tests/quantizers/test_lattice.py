import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqjax.quantizers import BSQ, FSQ, LFQ, Grouped, Residual, ops, rotation

ALL = [
  FSQ((8, 5, 5, 4)),
  FSQ((8, 5, 5, 2), symmetric=True, estimator=rotation),
  FSQ((5, 5, 5, 5), symmetric=True, bound='soft_clamp'),
  LFQ(4, commitment_weight=0.25),
  LFQ(4, tokens=2, entropy_bits=3),
  BSQ(4, commitment_weight=0.25),
]
every = pytest.mark.parametrize('quantizer', ALL, ids=lambda q: type(q).__name__)
apply = lambda quantizer, z, **kwargs: quantizer.apply({}, z, **{'train': True, **kwargs})


@pytest.mark.parametrize(('name', 'levels'), [('8555', (8, 5, 5, 5)), ('sym', (8, 5, 5, 2))])
def test_fsq_follows_the_reference(name, levels):
  data = load(f'quantizers/fsq_{name}')
  fsq = FSQ(levels, symmetric=name == 'sym')

  def objective(x):
    out = apply(fsq, x)
    return jnp.sum(data['in_g'] * out.z_q), out

  gx, out = jax.grad(objective, has_aux=True)(data['in_x'])
  np.testing.assert_array_equal(out.indices, data['out_idx'])
  np.testing.assert_allclose(out.z_q, data['out_y'], atol=1e-6)
  np.testing.assert_allclose(gx, data['out_gx'], atol=1e-5, rtol=1e-5)
  codebook = fsq.apply({}, jnp.arange(math.prod(levels)), method='lookup')
  np.testing.assert_allclose(codebook, data['out_codebook'], atol=1e-6)


def test_residual_fsq_follows_the_reference():
  data = load('quantizers/rfsq')
  levels = (8, 5, 5, 3)
  base = FSQ(levels, symmetric=True, bound='soft_clamp')
  scale = tuple(1 / n for n in levels)
  out = apply(Residual(base, 2, share=True, scale=scale), data['in_x'])
  np.testing.assert_array_equal(out.indices, data['out_idx'])
  np.testing.assert_allclose(out.z_q, data['out_y'], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(('name', 'kind'), [('lfq', LFQ), ('bsq', BSQ)])
def test_binary_quantizers_follow_the_reference(name, kind):
  data = load(f'quantizers/{name}')
  quantizer = kind(6, commitment_weight=0.25)

  def loss(x):
    out = apply(quantizer, x)
    return out.loss, out

  gx, out = jax.grad(loss, has_aux=True)(data['in_x'])
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
  np.testing.assert_array_equal(out.indices, data['out_idx'])
  np.testing.assert_allclose(out.z_q, data['out_y'], atol=1e-6, rtol=1e-5)
  close(out.metrics['sample_entropy'], data['out_pse'])
  close(out.metrics['code_entropy'], data['out_be'])
  close(out.metrics['commitment'], data['out_commit'])
  close(out.loss, data['out_loss'])
  np.testing.assert_allclose(gx, data['out_gx'], atol=1e-5, rtol=1e-4)


def unbounded(fsq, codes):
  """A row that enters at each code, or inside its bin where tanh never gets to the code."""
  levels, q = np.asarray(fsq.levels), np.asarray(codes, np.float64)
  if fsq.bound == 'soft_clamp':
    v = 1 + 1 / (levels - 1)
    return v * np.arctanh(q / v)
  if fsq.symmetric:
    edge = 1 - 0.4 / (levels - 1)
    return np.arctanh(np.clip(q, -edge, edge))
  half, offset = (levels - 1) * 1.001 / 2, np.where(levels % 2, 0, 0.5)
  return np.arctanh((q * (levels // 2) + offset) / half) - np.arctanh(offset / half)


@pytest.mark.parametrize(
  'quantizer', [*ALL, FSQ((8, 8, 8, 5, 5, 5)), LFQ(12)], ids=lambda q: type(q).__name__
)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_every_code_is_reached_and_read_back(quantizer, dtype):
  """In bfloat16 too, where an index sum in the input's type would merge codes."""
  tokens = jnp.arange(quantizer.num_codes, dtype=jnp.int32)
  if quantizer.token_axes:
    tokens = jnp.stack([tokens, tokens[::-1]], axis=-1)
  codes = quantizer.apply({}, tokens, method='lookup')
  again = codes.astype(dtype).astype(jnp.float32)
  again = quantizer.apply({}, again, train=False, method='select')
  np.testing.assert_array_equal(again.indices, tokens)
  z = unbounded(quantizer, codes) if isinstance(quantizer, FSQ) else codes
  out = apply(quantizer, jnp.asarray(z, jnp.float32).astype(dtype))
  np.testing.assert_array_equal(out.indices, tokens)
  assert out.z_q.dtype == dtype
  np.testing.assert_array_equal(out.z_q, codes.astype(dtype))
  assert out.metrics['usage'] == 1


@pytest.mark.parametrize('quantizer', [FSQ((8,) * 10), FSQ((2**16, 2**14)), LFQ(30)], ids=repr)
def test_the_largest_code_spaces_are_read_back(quantizer):
  tokens = jax.random.randint(jax.random.key(0), (4096,), 0, quantizer.num_codes)
  tokens = tokens.at[0].set(quantizer.num_codes - 1)
  codes = quantizer.apply({}, tokens, method='lookup')
  out = quantizer.apply({}, codes, train=False, method='select')
  np.testing.assert_array_equal(out.indices, tokens)


@every
def test_training_and_eight_devices_change_no_token(quantizer):
  z = jax.random.normal(jax.random.key(0), (16, 6, 4))
  mask = jnp.ones((16, 6), bool).at[3:9, 2:].set(False)

  def objective(z):
    out = apply(quantizer, z, mask=mask)
    return out.loss + jnp.sum(jnp.sin(out.z_q)), out

  run = jax.jit(jax.grad(objective, has_aux=True))
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  one, many = run(z), run(jax.device_put(z, NamedSharding(mesh, PartitionSpec('data'))))
  np.testing.assert_array_equal(one[1].indices, many[1].indices)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), one, many)
  still = apply(quantizer, z, mask=mask, train=False)
  np.testing.assert_array_equal(one[1].indices, still.indices)


@every
def test_padding_changes_nothing_and_ones_are_no_mask(quantizer):
  z = jax.random.normal(jax.random.key(0), (2, 6, 4))

  def run(z, mask):
    def objective(z):
      out = apply(quantizer, z, mask=mask)
      return out.loss + jnp.sum(out.z_q[:, :4]), out

    return jax.jit(jax.grad(objective, has_aux=True))(z)

  equal = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  equal(run(z, None), run(z, jnp.ones((2, 6), bool)))
  mask = jnp.zeros((2, 6), bool).at[:, :4].set(True)
  (ga, a), (gb, b) = (run(z.at[:, 4:].set(v), mask) for v in (3.0, jnp.nan))
  equal((ga, a.loss, a.metrics, a.indices[:, :4]), (gb, b.loss, b.metrics, b.indices[:, :4]))
  _, short = run(z[:, :4], None)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    (a.loss, a.metrics),
    (short.loss, short.metrics),
  )


@every
def test_gradients_are_finite_at_zero_and_far_away(quantizer):
  z = jnp.zeros((3, 4)).at[1].set(1e4).at[2].set(-1e4)
  grads = jax.grad(lambda z: apply(quantizer, z).loss + apply(quantizer, z).z_q.sum())(z)
  assert jnp.isfinite(grads).all()


@every
def test_it_composes(quantizer):
  z = jax.random.normal(jax.random.key(0), (5, 8))
  for vq in (Grouped(quantizer, 2), Grouped(Residual(quantizer, 2, scale=0.5), 2, share=False)):
    out = vq.apply({}, z, train=True)
    np.testing.assert_array_equal(out.z_q, vq.apply({}, out.indices, method='lookup'))
    assert out.indices.ndim == 1 + vq.token_axes


def test_independent_bits_follow_the_reference():
  """Entropy and log probability behind BinaryMapper, which draws bits by their logits."""
  data = load('quantizers/binary_mapper_aux')
  logits = jnp.asarray(data['in_logits'])
  entropy = jnp.sum(ops.bit_entropy(logits), axis=-1)
  aux = jax.nn.relu(4 * np.log(2) - entropy - np.log(2))
  np.testing.assert_allclose(aux, data['out_aux'], atol=1e-6, rtol=1e-5)
  signs = LFQ(4).apply({}, jnp.arange(5), method='lookup')[:, ::-1]  # its first bit is the least
  logp = jnp.sum(jax.nn.log_sigmoid(signs * logits), axis=-1)
  np.testing.assert_allclose(logp, data['out_logp'], atol=1e-6, rtol=1e-5)


def test_entropies_by_enumeration():
  z = 0.01 * jax.random.normal(jax.random.key(0), (50, 6))
  codes = LFQ(6).apply({}, jnp.arange(64), method='lookup')
  p = jax.nn.softmax(2 * 100.0 * z @ codes.T, axis=-1)
  h = lambda p: -np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-38)), 0), axis=-1)
  found = apply(LFQ(6), z).metrics
  np.testing.assert_allclose(found['sample_entropy'], h(p).mean(), rtol=1e-4)
  np.testing.assert_allclose(found['code_entropy'], h(p.mean(0)), rtol=1e-4)
  bound = apply(LFQ(6, entropy_bits=2), z).metrics
  np.testing.assert_allclose(bound['sample_entropy'], found['sample_entropy'], rtol=1e-6)
  assert found['code_entropy'] < bound['code_entropy'] <= 6 * np.log(2) + 1e-5
  odd = apply(LFQ(6, entropy_bits=5), z).metrics
  halves = h(p.reshape(50, 32, 2).sum(2).mean(0)) + h(p.reshape(50, 32, 2).sum(1).mean(0))
  np.testing.assert_allclose(odd['code_entropy'], halves, rtol=1e-4)


@pytest.mark.parametrize(
  ('bits', 'tau', 'mean'),
  [(6, 100.0, 1e-7), (9, 100.0, 1e-7), (12, 100.0, 1e-7)]
  + [(6, 1.0, 3e-5), (9, 0.7, 4e-4), (12, 0.5, 4e-3)],
)
def test_a_floor_in_the_entropy_of_a_row_would_change_it_by_what_is_documented(bits, tau, mean):
  z = np.random.default_rng(0).standard_normal((64, bits))
  codes = np.asarray(LFQ(bits).apply({}, jnp.arange(2**bits), method='lookup'), float)
  logits = 2 * tau * z @ codes.T
  p = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
  floored = -np.sum(p * np.log(np.maximum(p, 1e-5)), axis=-1)
  exact = -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=-1)
  ours = apply(LFQ(bits, inverse_temperature=tau), jnp.asarray(z, jnp.float32))
  np.testing.assert_allclose(ours.metrics['sample_entropy'], exact.mean(), rtol=1e-4)
  assert (exact - floored).min() >= 0
  assert (exact - floored).max() <= 1e-5 * 2**bits / np.e
  assert 0.5 * mean < (exact - floored).mean() < 2 * mean


def test_entropy_of_equal_use_of_many_codes_is_not_floored():
  run = jax.jit(lambda z: apply(LFQ(18, entropy_bits=18), z))
  np.testing.assert_allclose(
    run(jnp.zeros((2, 18))).metrics['code_entropy'], 18 * np.log(2), rtol=1e-6
  )


@pytest.mark.parametrize('kind', [LFQ, BSQ])
def test_scale_moves_rows_and_codes_alike(kind):
  quantizer = kind(4, scale=2.0)
  codes = quantizer.apply({}, jnp.arange(16), method='lookup')
  np.testing.assert_allclose(apply(quantizer, codes).metrics['commitment'], 0, atol=1e-12)


def test_a_code_space_too_large_to_enumerate_is_never_built():
  lfq, shape = LFQ(36, tokens=2), jax.ShapeDtypeStruct((256, 36), jnp.float32)
  run = jax.jit(jax.grad(lambda z: apply(lfq, z).loss))
  memory = run.lower(shape).compile().memory_analysis().temp_size_in_bytes
  assert memory < 100e6
  out = apply(lfq, jax.random.normal(jax.random.key(0), (256, 36)))
  assert out.indices.shape == (256, 2)
  assert out.metrics['usage'] > 0
  assert 'usage' not in apply(LFQ(24), jnp.ones((2, 24))).metrics


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: FSQ(()), r'FSQ\.levels is \(\); legal: at least one'),
    (lambda: FSQ((8, 2)), r'FSQ\.levels is \(8, 2\).*each 3 or more \(2 with symmetric'),
    (lambda: FSQ((64,) * 6), r'makes 68719476736 codes; legal: at most 2\^30'),
    (lambda: FSQ((8,), bound='soft_clamp'), r"FSQ\.bound is 'soft_clamp'; legal: tanh, and"),
    (lambda: FSQ((2**17, 3)), r'FSQ\.levels is \(131072, 3\); legal: at most 2\^16 in one'),
    (lambda: LFQ(4, scale=0.0), r'LFQ\.scale is 0\.0; legal: above 0'),
    (lambda: BSQ(4, inverse_temperature=0), r'BSQ\.inverse_temperature is 0; legal: above 0'),
    (lambda: LFQ(4, entropy_bits=21), r'LFQ\.entropy_bits is 21; legal: 1 to 20'),
    (lambda: LFQ(0), r'LFQ\.bits is 0; legal: at least 1'),
    (lambda: LFQ(36), r'LFQ\.tokens is 1; legal: divisors of bits=36 that leave at most 30'),
    (lambda: BSQ(18, tokens=4), r'BSQ\.tokens is 4; legal: divisors of bits=18'),
    (lambda: apply(FSQ((8, 5)), jnp.ones((2, 3))), r'z has width 3; FSQ\.levels \(8, 5\) needs 2'),
    (lambda: apply(LFQ(4), jnp.ones((2, 3))), r'z has width 3; LFQ\.bits=4 needs 4'),
  ],
)
def test_wrong_use_is_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@every
def test_an_impossible_token_is_nan(quantizer):
  tokens = jnp.full((1, 2) if quantizer.token_axes else (1,), quantizer.num_codes, jnp.int32)
  for token in (tokens, -jnp.ones_like(tokens)):
    assert jnp.isnan(quantizer.apply({}, token, method='lookup')).all()
