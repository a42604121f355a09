import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load

from vqjax.quantizers import Reflection, Rotation, reflection, rotation, straight_through
from vqjax.quantizers import tangent_rotation as tangential

ALL = [straight_through] + [
  kind(scale, radial)
  for kind in (Rotation, Reflection)
  for scale in ('ratio', 'inv_norm', 'none')
  for radial in ('keep', 'drop')
]


def gradient(estimator, e, q, g):
  return jax.grad(lambda e: jnp.sum(estimator(e, q) * g))(e)


def sample(seed, n=64, d=8):
  keys = jax.random.split(jax.random.key(seed), 3)
  return tuple(jax.random.normal(key, (n, d)) for key in keys)


@pytest.mark.parametrize(
  ('name', 'estimator', 'rtol'),
  [
    ('rot_lucid', rotation, 1e-5),
    ('rot_vae', rotation, 1e-4),  # the reference adds 1e-6 to its norms
    ('rot_gan_rot', tangential, 1e-5),
    ('rot_vit', tangential, 1e-5),
    ('rot_gan_noscale', Rotation('inv_norm', 'drop'), 1e-5),
    ('rot_gan_ref', reflection, 1e-5),
  ],
)
def test_gradient_equals_the_reference(name, estimator, rtol):
  data = load(f'quantizers/{name}')
  e, q, g = data['in_e'], data['in_q'], data['in_g']
  if name == 'rot_vit':
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
  np.testing.assert_allclose(data['out_y'], q, atol=5e-5)
  ours = gradient(estimator, e, q, g)
  error = np.linalg.norm(ours - data['out_ge'], axis=-1)
  assert (error <= rtol * np.linalg.norm(data['out_ge'], axis=-1)).all(), error.max()
  if estimator.radial == 'drop':
    assert np.abs(np.sum(e * ours, axis=-1)).max() < 1e-4


def test_degenerate_rows_equal_the_reference_where_it_is_finite():
  data = load('quantizers/rot_edge_lucid')
  ours = gradient(Rotation(safe=False), data['in_e'], data['in_q'], data['in_g'])
  np.testing.assert_allclose(ours, data['out_ge'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('estimator', ALL, ids=str)
def test_degenerate_rows_are_finite_and_bounded(estimator, dtype):
  data = load('quantizers/rot_edge_lucid')
  e, q, g = (jnp.asarray(data[k], dtype) for k in ('in_e', 'in_q', 'in_g'))
  # Rows: q = -e, q = -2e, e = 0, q = 0, q = e, tiny e; and a row that is almost antipodal.
  e = jnp.concatenate([e, e[:1]])
  q = jnp.concatenate([q, -e[:1] * (1 + 2**-7)])
  g = jnp.concatenate([g, g[:1]])
  value, pull = jax.vjp(lambda e: estimator(e, q), e)
  assert (value == q).all()
  (dz,) = pull(g)
  assert dz.dtype == dtype
  assert jnp.isfinite(dz).all()
  # The safe default: a row without a direction gets the gradient unchanged.
  np.testing.assert_array_equal(dz[2:4], g[2:4])
  np.testing.assert_array_equal(dz[5], g[5])


@pytest.mark.parametrize('estimator', ALL, ids=str)
def test_value_is_the_code_bit_for_bit_and_the_code_gets_no_gradient(estimator):
  e, q, g = sample(0)
  value, pull = jax.vjp(estimator, e, q)
  assert (value == q).all()
  de, dq = pull(g)
  assert (dq == 0).all()
  assert (de != 0).any()


@pytest.mark.parametrize('estimator', ALL[1:], ids=str)
def test_closed_form_equals_the_stop_gradient_definition(estimator):
  e, q, g = sample(1)
  value, pull = jax.vjp(lambda e: estimator.definition(e, q), e)
  np.testing.assert_allclose(value, q, atol=1e-5)
  np.testing.assert_allclose(gradient(estimator, e, q, g), pull(g)[0], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize('d', [2, 3, 32, 256])
def test_rotation_keeps_ratio_of_lengths_and_angle(d):
  e, q, g = sample(2, d=d)
  de = gradient(rotation, e, q, g)
  norm = lambda x: np.linalg.norm(x, axis=-1)
  cos = lambda a, b: np.sum(a * b, axis=-1) / norm(a) / norm(b)
  np.testing.assert_allclose(norm(de) / norm(g), norm(q) / norm(e), rtol=1e-4)
  np.testing.assert_allclose(cos(e, de), cos(q, g), atol=1e-4)


def test_rotation_is_a_rotation():
  e, q, _ = sample(3, n=1, d=5)
  rows = jax.vmap(lambda g: gradient(Rotation('none'), e, q, g[None])[0])(jnp.eye(5))  # R
  np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-5)
  np.testing.assert_allclose(np.linalg.det(rows), 1, atol=1e-5)
  unit = lambda x: x / np.linalg.norm(x)
  np.testing.assert_allclose(rows @ unit(e[0]), unit(q[0]), atol=1e-5)


def test_bfloat16_input_has_a_float32_accurate_gradient():
  e, q, g = (x.astype(jnp.bfloat16) for x in sample(4))
  wide = gradient(rotation, *(x.astype(jnp.float32) for x in (e, q, g)))
  np.testing.assert_array_equal(gradient(rotation, e, q, g), wide.astype(jnp.bfloat16))


def test_equal_settings_do_not_compile_again():
  traces = []

  def loss(e, q, estimator):
    traces.append(estimator)
    return jnp.sum(estimator(e, q) ** 2)

  step = jax.jit(jax.grad(loss), static_argnums=2)
  e, q, _ = sample(5)
  step(e, q, Rotation())
  step(e, q, dataclasses.replace(Rotation(radial='drop'), radial='keep'))
  assert len(traces) == 1


def test_wrong_setting_names_the_legal_ones():
  with pytest.raises(ValueError, match=r"Rotation\.scale is 'rato'; legal: ratio, inv_norm, none"):
    Rotation(scale='rato')
