"""Every form of the 3x3 convolution against its definition, XLA's, and which form runs where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.networks import convolutions

# The definitions, to which all forms are held.
FUNCTIONS = {
  'conv3x3': (convolutions.conv3x3, convolutions._same, 1),
  'upsampled_conv3x3': (convolutions.upsampled_conv3x3, convolutions._repeated, 2),
}


def draw(function, size, channels, features, batch=2):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = (
    (batch, *size, channels),
    (3, 3, channels, features),
    (batch, *(FUNCTIONS[function][2] * n for n in size), features),
  )
  return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.fixture(params=[True, False], ids=['winograd', 'products'])
def wide(request, monkeypatch):
  """Whether all widths count as wide."""
  monkeypatch.setattr(convolutions, 'WIDE', 1 if request.param else 10**9)


@pytest.mark.usefixtures('wide')
@pytest.mark.parametrize('function', FUNCTIONS)
@pytest.mark.parametrize('size', [(8, 6), (2, 2), (5, 4), (7, 3), (1, 1)], ids=str)
@pytest.mark.parametrize(('channels', 'features'), [(3, 5), (8, 1), (1, 8)])
def test_values_and_gradients_are_those_of_the_definition(function, size, channels, features):
  fast, definition, _ = FUNCTIONS[function]
  x, kernel, dy = draw(function, size, channels, features)
  both = lambda f: (f(x, kernel), *jax.vjp(f, x, kernel)[1](dy))
  for got, expected in zip(jax.jit(both, static_argnums=0)(fast), both(definition), strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.usefixtures('wide')
@pytest.mark.parametrize('function', FUNCTIONS)
def test_a_gradient_has_a_gradient(function):
  """As R1 takes it, of the slopes for images."""
  x, kernel, _ = draw(function, (4, 4), 3, 2)

  def r1(f, kernel):
    return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(f(x, kernel))))(x)))

  fast, definition, _ = FUNCTIONS[function]
  got, expected = (jax.grad(lambda k, f=f: r1(f, k))(kernel) for f in (fast, definition))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('function', FUNCTIONS)
def test_other_dtypes_are_the_definition(function):
  fast, definition, _ = FUNCTIONS[function]
  x, kernel, _ = (a.astype(jnp.bfloat16) for a in draw(function, (4, 4), 3, 2))
  np.testing.assert_array_equal(fast(x, kernel), definition(x, kernel))


@pytest.mark.parametrize('function', FUNCTIONS)
def test_an_accelerator_runs_the_definition(function):
  fast, definition, _ = FUNCTIONS[function]
  x, kernel, dy = draw(function, (4, 4), 3, 2)

  def operations(f, platform):
    gradient = jax.jit(lambda x, kernel, dy: jax.vjp(f, x, kernel)[1](dy))
    text = gradient.trace(x, kernel, dy).lower(lowering_platforms=(platform,)).as_text()
    return {name: text.count(f'stablehlo.{name}') for name in ('convolution', 'dot_general')}

  assert operations(fast, 'cuda') == operations(definition, 'cuda')
  assert operations(fast, 'cpu') != operations(definition, 'cpu')


def test_winograd_is_for_wide_and_small_maps():
  def products(x_shape, features):
    x, kernel = jnp.zeros(x_shape), jnp.zeros((3, 3, x_shape[-1], features))
    return jax.jit(convolutions.conv3x3).lower(x, kernel).as_text().count('stablehlo.dot_general')

  wide = convolutions.WIDE
  assert products((1, 4, 4, wide), wide) == 16
  assert products((1, 4, 4, wide - 1), wide) == 0
  assert products((1, 4, 4, wide), wide - 1) == 0
  assert products((1, 4, 5, wide), wide) == 0
  assert products((1, 32, 64, wide), wide) == 16
  assert products((9, 32, 64, wide), wide) == 16
  assert products((1, 64, 64, wide), wide) == 0
