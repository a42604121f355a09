"""The operations that a benchmark divides by, against counts by hand."""

import jax
import jax.numpy as jnp

from benchmarks.train_step import count
from vqjax.networks.convolutions import conv3x3, upsampled_conv3x3


def test_operations_of_products_and_convolutions():
  x, w = jnp.zeros((5, 7, 3)), jnp.zeros((3, 11))
  assert count(lambda x, w: jnp.tanh(x @ w), x, w) == 2 * 5 * 7 * 3 * 11
  image, kernel = jnp.zeros((2, 8, 6, 3)), jnp.zeros((3, 3, 3, 16))

  @jax.jit  # a program within the program
  def convolve(image, kernel):
    layout = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(image, kernel, (2, 2), 'SAME', dimension_numbers=layout)

  assert count(convolve, image, kernel) == 2 * (2 * 4 * 3 * 16) * (3 * 3 * 3)


def test_of_a_choice_by_platform_the_definition_counts():
  image, kernel = jnp.zeros((2, 8, 6, 3)), jnp.zeros((3, 3, 3, 16))
  assert count(conv3x3, image, kernel) == 2 * (2 * 8 * 6 * 16) * (3 * 3 * 3)
  assert count(upsampled_conv3x3, image, kernel) == 2 * (2 * 16 * 12 * 16) * (3 * 3 * 3)
