import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load

from vqjax.quantizers import double_forward, hessian_vector

BOTH = pytest.mark.parametrize('study', [double_forward, hessian_vector])


def decoder_loss(params, x, t):
  hidden = jnp.tanh(jnp.matmul(x, params['W1'].T, precision='highest'))
  return jnp.mean(jnp.square(jnp.matmul(hidden, params['W2'].T, precision='highest') - t))


def setup():
  data = load('quantizers/grad_vhp_dfp')
  params = {name: jnp.asarray(data[f'in_{name}']) for name in ('W1', 'W2')}
  return data, params, jnp.asarray(data['in_e']), jnp.asarray(data['in_q'])


@pytest.mark.parametrize(
  ('study', 'name', 'atol'), [(double_forward, 'dfp', 5e-6), (hessian_vector, 'vhp', 2e-5)]
)
def test_gradients_equal_the_reference(study, name, atol):
  data, params, z, q = setup()
  loss = lambda x: decoder_loss(params, x, data['in_t'])
  value, (dz, dq) = jax.jit(jax.value_and_grad(lambda z, q: study(loss, z, q), (0, 1)))(z, q)
  np.testing.assert_allclose(dz, data[f'out_{name}'], atol=atol, rtol=1e-5)
  np.testing.assert_allclose(value, loss(q), rtol=1e-6)
  assert (dq == 0).all()


@BOTH
def test_value_and_parameters_are_those_of_the_code(study):
  data, params, z, q = setup()

  def through(params, z):
    return study(lambda x: decoder_loss(params, x, data['in_t']), z, q)

  plain = jax.value_and_grad(lambda params: decoder_loss(params, q, data['in_t']))(params)
  ours = jax.value_and_grad(through)(params, z)
  jax.tree.map(np.testing.assert_array_equal, ours, plain)


@BOTH
def test_a_quadratic_loss_has_one_answer(study):
  a = jax.random.normal(jax.random.key(0), (8, 8))
  loss = lambda x: jnp.sum(jnp.square(jnp.matmul(x, a, precision='highest')))
  z, q = (jax.random.normal(jax.random.key(i), (5, 8)) for i in (1, 2))
  dz = jax.grad(lambda z: study(loss, z, q))(z)
  np.testing.assert_allclose(dz, jax.grad(loss)(z), rtol=1e-4, atol=1e-4)


@BOTH
def test_code_of_another_shape_is_refused(study):
  with pytest.raises(ValueError, match=r'q has shape \(5, 2\); legal: that of z, \(3, 2\)'):
    study(jnp.sum, jnp.ones((3, 2)), jnp.ones((5, 2)))


@BOTH
def test_bfloat16_latents_get_their_gradient_in_bfloat16(study):
  data, params, z, q = setup()
  z = z.astype(jnp.bfloat16)
  loss = lambda x: decoder_loss(params, x, data['in_t'])
  dz = jax.grad(lambda z: study(loss, z, q))(z)
  assert dz.dtype == jnp.bfloat16
  wide = jax.grad(lambda z: study(loss, z, q))(z.astype(jnp.float32))
  np.testing.assert_array_equal(dz, wide.astype(jnp.bfloat16))
