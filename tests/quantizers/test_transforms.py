import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.quantizers import Affine, Linear, RunningAffine, VectorQuantizer

KEY = jax.random.key(0)
normal = lambda seed, shape: jax.random.normal(jax.random.key(seed), shape)


def variables_of(transform):
  """Variables as training would leave them: not at their start."""
  own = transform.init(KEY, 12, 4)
  if isinstance(transform, RunningAffine):
    return transform.observe(
      own, normal(1, (12, 4)), 3 + 2 * normal(2, (50, 4)), jnp.ones(50, bool)
    )
  leaves, tree = jax.tree.flatten(own)
  noise = [leaf + 0.2 * normal(i, leaf.shape) for i, leaf in enumerate(leaves)]
  return jax.tree.unflatten(tree, noise)


@pytest.mark.parametrize(
  'transform',
  [Linear(), Linear(bias=True), Affine(1.5, groups=3), RunningAffine(), RunningAffine(groups=4)],
  ids=str,
)
def test_inverse_undoes_codes(transform):
  variables, weights = variables_of(transform), normal(5, (12, 4))
  codes = transform.codes(variables, weights)
  assert jnp.abs(codes - weights).max() > 0.1
  back = transform.inverse(variables, codes, jnp.arange(12), 12)
  np.testing.assert_allclose(back, weights, atol=2e-3)
  # Rows in any order: each by the block of its code.
  order = jax.random.permutation(KEY, 12)
  shuffled = transform.inverse(variables, codes[order], order, 12)
  np.testing.assert_allclose(shuffled, weights[order], atol=2e-3)


def test_affine_starts_as_the_identity_and_scales_its_learning_rate():
  weights = normal(1, (12, 4))
  np.testing.assert_array_equal(
    Affine(2.0, 3).codes(Affine(2.0, 3).init(KEY, 12, 4), weights), weights
  )
  gradient = lambda lr: jax.grad(lambda v: Affine(lr).codes(v, weights).sum())(
    Affine(lr).init(KEY, 12, 4)
  )
  np.testing.assert_allclose(gradient(3.0)['bias'], 3 * gradient(1.0)['bias'], rtol=1e-6)


def test_running_codes_have_the_moments_of_the_rows():
  transform, weights = RunningAffine(groups=2), normal(1, (12, 4))
  rows, mask = 5 + 3 * normal(2, (400, 4)), jnp.arange(400) < 300
  own = transform.init(KEY, 12, 4)
  np.testing.assert_array_equal(transform.codes(own, weights), weights)  # nothing seen yet
  own = transform.observe(own, weights, rows.at[300:].set(jnp.nan), mask)
  codes = transform.codes(own, weights)
  for block in (codes[:6], codes[6:]):
    np.testing.assert_allclose(block.mean(0), rows[:300].mean(0), rtol=1e-4)
    np.testing.assert_allclose(block.std(0), rows[:300].std(0), rtol=1e-4)


def test_running_statistics_move_in_training_only_and_not_without_rows():
  vq = VectorQuantizer(12, transform=RunningAffine())
  z = normal(1, (20, 4))
  variables = vq.init(KEY, z, train=True)
  assert not variables['vq']['transform']['started']
  _, still = vq.apply(variables, z, train=False, mutable=['vq'])
  assert not still['vq']['transform']['started']
  step = jax.jit(lambda mask: vq.apply(variables, z, train=True, mask=mask, mutable=['vq'])[1])
  assert step(jnp.ones(20, bool))['vq']['transform']['started']
  nothing = step(jnp.zeros(20, bool))['vq']['transform']
  jax.tree.map(np.testing.assert_array_equal, nothing, variables['vq']['transform'])


def test_one_step_of_the_linear_map_moves_codes_that_no_row_took():
  vq = VectorQuantizer(12, transform=Linear(), codebook_init=jax.nn.initializers.normal(1.0))
  z = normal(3, (8, 4))
  variables = vq.init(KEY, z, train=True)
  gradient = jax.grad(lambda p: vq.apply({'params': p}, z, train=True).loss)(variables['params'])
  used = jnp.zeros(12, bool).at[vq.apply(variables, z, train=False).indices].set(True)
  assert 0 < used.sum() < 12
  assert (gradient['codebook'][~used] == 0).all()
  moved = jax.tree.map(lambda p, g: p - 0.1 * g, variables['params'], gradient)
  codes = lambda p: vq.apply({'params': p}, jnp.arange(12), method='lookup')
  assert (codes(moved) != codes(variables['params']))[~used].any(-1).all()


@pytest.mark.parametrize('field', ['batch_decay', 'code_decay'])
def test_wrong_decay_is_named(field):
  with pytest.raises(ValueError, match=rf'RunningAffine\.{field} is 1\.0; legal: 0 <= {field} < 1'):
    RunningAffine(**{field: 1.0})
