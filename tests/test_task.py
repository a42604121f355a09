"""The losses of the two tasks by hand, and what an objective makes of them."""

import jax.numpy as jnp
import numpy as np

from vqjax import task


def test_pixel_terms_by_hand():
  x = jnp.array([[[1.0, 2]], [[3, 4]]])
  y = jnp.array([[[1.0, 0]], [[6, 3]]])
  np.testing.assert_array_equal(task.l1(x, y), [(0 + 2) / 2, (3 + 1) / 2])
  np.testing.assert_array_equal(task.l2(x, y), [(0 + 4) / 2, (9 + 1) / 2])


def test_cross_entropy_and_accuracy_by_hand():
  logits = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1]])) + 80
  labels = jnp.array([0, 1, 1])
  np.testing.assert_allclose(task.cross_entropy(labels, logits), -np.log([0.5, 0.2, 0.5]), 1e-5)
  np.testing.assert_array_equal(task.accuracy(labels, logits), [1, 0, 1])


def test_a_label_without_a_logit_is_no_number():
  found = task.cross_entropy(jnp.array([-1, 3, 2]), jnp.zeros((3, 3)))
  np.testing.assert_array_equal(jnp.isnan(found), [True, True, False])


def test_an_objective_is_the_weighted_sum_of_its_losses():
  x, y = jnp.array([[1.0, 2], [3, 4]]), jnp.array([[1.0, 0], [6, 3]])
  weights = task.RECONSTRUCTION.weights({'l1': 0.5, 'l2': 2.0, 'cross_entropy': 1.0})
  assert weights == {'l1': 0.5, 'l2': 2.0}
  terms, total = task.RECONSTRUCTION.compare(weights, x, y)
  np.testing.assert_array_equal(terms['l2'], task.l2(x, y))
  np.testing.assert_array_equal(total, 0.5 * task.l1(x, y) + 2 * task.l2(x, y))
  _, total = task.RECONSTRUCTION.compare({}, x, y)
  np.testing.assert_array_equal(total, [0, 0])


def test_accuracy_is_watched_and_not_trained_on():
  labels, logits = jnp.array([0, 1]), jnp.array([[2.0, 1], [3, 0]])
  terms, total = task.CLASSIFICATION.compare({'cross_entropy': 3.0}, labels, logits)
  np.testing.assert_array_equal(terms['accuracy'], [1, 0])
  np.testing.assert_array_equal(total, 3 * task.cross_entropy(labels, logits))
