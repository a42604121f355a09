import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load

from vqjax.quantizers import Entropy, KLToUniform, Orthogonality, kl_to_uniform

ALL = [
  Entropy(),
  Entropy(diversity_only=True, squared=False),
  Orthogonality(),
  KLToUniform(),
]
every = pytest.mark.parametrize('regularizer', ALL, ids=str)


def sample(n=40, k=7, d=3):
  return (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(n, d), (k, d)]))


def test_kl_equals_the_reference():
  data = load('quantizers/taming_gumbel_kl')
  x = np.moveaxis(data['in_x'], 1, -1).reshape(-1, 8)
  logits = x @ data['in_w'][:, :, 0, 0].T + data['in_b'][None]
  ours = float(data['hp_kl_weight']) * kl_to_uniform(logits)
  np.testing.assert_allclose(ours, data['out_kl'], atol=1e-7, rtol=1e-5)


def test_entropy_by_hand():
  z, codes = sample()
  t, gamma = 0.7, 0.5
  distance = ((np.asarray(z)[:, None] - np.asarray(codes)[None]) ** 2).sum(-1)
  p = np.exp(-distance / t) / np.exp(-distance / t).sum(1, keepdims=True)
  h = lambda p: -(p * np.log(p)).sum(-1)
  rows, codes_used = h(p).mean(), h(p.mean(0))
  ours = Entropy(gamma=gamma, temperature=t)(z, codes)
  np.testing.assert_allclose(ours, rows - gamma * codes_used, rtol=1e-5)
  ours = Entropy(temperature=t, diversity_only=True)(z, codes)
  np.testing.assert_allclose(ours, -codes_used, rtol=1e-5)
  p = np.exp(-np.sqrt(distance) / t) / np.exp(-np.sqrt(distance) / t).sum(1, keepdims=True)
  ours = Entropy(temperature=t, diversity_only=True, squared=False)(z, codes)
  np.testing.assert_allclose(ours, -h(p.mean(0)), rtol=1e-5)


def test_entropy_takes_at_most_max_rows_and_every_column():
  z, codes = sample()
  ours = Entropy(max_rows=20)(z, codes)  # 2 divides 40, a grid of 5 x 8 perhaps; 3 does not
  np.testing.assert_allclose(ours, Entropy()(z[::3], codes), rtol=1e-6)
  # Of 4 grids of 4 x 4, a sixteenth: not the left upper corners, which are code 0.
  z = jnp.tile(codes[:4], (16, 1))
  assert Entropy(max_rows=4, diversity_only=True)(z, codes[:4]) < -1.3  # about -log 4


def test_orthogonality_by_hand():
  codes = jnp.array([[2.0, 0], [0, 3], [1, 1]])
  # Cosines: 1 on the diagonal, 0 between the first two, sqrt(1/2) to the third.
  expected = (3 + 4 * 0.5) / 9 - 1 / 3
  np.testing.assert_allclose(Orthogonality()(codes, codes), expected, rtol=1e-6)
  np.testing.assert_allclose(Orthogonality()(codes, 5 * jnp.eye(4)), 0, atol=1e-7)


def test_descent_on_the_entropy_spreads_collapsed_codes():
  z, _ = sample(200, 7, 3)
  codes = 1e-2 * jax.random.normal(jax.random.key(5), (7, 3)) + 3
  loss = lambda codes: Entropy(temperature=0.5)(z, codes)
  used = lambda codes: len(np.unique(((z[:, None] - codes[None]) ** 2).sum(-1).argmin(1)))
  start = used(codes)
  step = jax.jit(lambda c: c - 0.5 * jax.grad(loss)(c))
  for _ in range(300):
    codes = step(codes)
  assert start < 7
  assert used(codes) == 7


@every
def test_gradients_are_finite_at_equal_and_zero_rows(regularizer):
  z, codes = sample()
  z, codes = z.at[0].set(codes[0]).at[1].set(0), codes.at[1].set(0).at[2].set(codes[3])
  grads = jax.grad(regularizer, (0, 1))(z, codes)
  assert all(jnp.isfinite(g).all() for g in grads)
  assert (grads[1] != 0).any()


@every
def test_masked_rows_do_not_matter(regularizer):
  z, codes = sample()
  ones = jnp.ones(40, bool)
  assert regularizer(z, codes) == regularizer(z, codes, ones)
  mask = ones.at[30:].set(False)
  run = jax.value_and_grad(regularizer, (0, 1))
  (a, ga), (b, gb) = (run(z.at[30:].set(v), codes, mask) for v in (1e3, jnp.nan))
  assert a == b
  jax.tree.map(np.testing.assert_array_equal, ga, gb)
  assert (ga[0][30:] == 0).all()
  np.testing.assert_allclose(a, regularizer(z[:30], codes), rtol=1e-5)


def test_wrong_settings_are_named():
  with pytest.raises(ValueError, match=r'Entropy\.temperature is 0; legal: above 0'):
    Entropy(temperature=0)
  with pytest.raises(ValueError, match=r'Entropy\.max_rows is 0; legal: at least 1'):
    Entropy(max_rows=0)
  with pytest.raises(ValueError, match=r'Orthogonality\.max_codes is 0; legal: at least 1'):
    Orthogonality(max_codes=0)
