"""What a line of the log says about the steps since the one before."""

import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.errors import UserError
from vqjax.quantizers import perplexity, usage
from vqjax.training.window import Window


def reported(loss, *counts, **more):
  scalars = {'loss': loss, **more}
  found = {name: jnp.asarray(value, jnp.float32) for name, value in scalars.items()}
  return found | ({'code_counts': jnp.asarray(counts, jnp.float32)} if counts else {})


def test_means_over_the_steps_and_codes_of_all_of_them():
  window = Window('checkpoints')
  steps = [
    reported(1.0, 5, 0, 0, 1),
    reported(2.0, 0, 2, 0, 1, generator=7.0),
    reported(6.0, 3, 0, 0, 0),
  ]
  for step, found in enumerate(steps, 1):
    window.add(step, found)
  counts = jnp.array([8.0, 2, 0, 2])
  summary = window.summary()
  assert summary == {
    'loss': 3.0,
    'generator': 7.0,  # the one step that had it
    'usage': 0.75,
    'perplexity': pytest.approx(float(perplexity(counts)), rel=1e-6),
  }
  assert summary['usage'] == usage(counts)
  window.add(4, reported(5.0, 0, 0, 1, 0))
  assert window.summary() == {'loss': 5.0, 'usage': 0.25, 'perplexity': 1.0}


def test_counts_of_many_steps_are_held_once():
  window = Window('checkpoints')
  for step in range(1, 5):
    window.add(step, reported(1.0, *range(16)))
  held = [x for _, scalars in window._steps for x in scalars.values()]
  assert sum(np.size(x) for x in held) == 4
  np.testing.assert_array_equal(window._counts, 4 * np.arange(16))


def test_without_codes_there_are_no_numbers_of_them():
  window = Window('checkpoints')
  window.add(1, reported(1.0))
  assert window.summary() == {'loss': 1.0}


def test_the_first_step_that_is_not_finite_is_named():
  window = Window('runs/x/checkpoints')
  window.add(7, reported(1.0, 1, 2))
  window.add(8, reported(np.nan, 1, 2, grad_norm=np.inf, learning_rate=0.1))
  window.add(9, reported(np.nan, 1, 2))
  message = (
    r'step 8: grad_norm, loss not finite; .* checkpoint in runs/x/checkpoints is from before'
  )
  with pytest.raises(UserError, match=message):
    window.summary()
