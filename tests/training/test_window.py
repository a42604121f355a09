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


def drawn(step, batch_size=3):
  return range((step - 1) * batch_size, step * batch_size)


def named(numbers):
  return [f'{n}.png' for n in numbers]


def test_means_over_the_steps_and_codes_of_all_of_them():
  window = Window('checkpoints', named)
  steps = [
    reported(1.0, 5, 0, 0, 1),
    reported(2.0, 0, 2, 0, 1, generator=7.0),
    reported(6.0, 3, 0, 0, 0),
  ]
  for step, found in enumerate(steps, 1):
    window.add(step, found, drawn(step))
  counts = jnp.array([8.0, 2, 0, 2])
  summary = window.summary()
  assert summary == {
    'loss': 3.0,
    'generator': 7.0,  # the one step that had it
    'usage': 0.75,
    'perplexity': pytest.approx(float(perplexity(counts)), rel=1e-6),
  }
  assert summary['usage'] == usage(counts)
  window.add(4, reported(5.0, 0, 0, 1, 0), drawn(4))
  assert window.summary() == {'loss': 5.0, 'usage': 0.25, 'perplexity': 1.0}


def test_counts_of_many_steps_are_held_once():
  window = Window('checkpoints', named)
  for step in range(1, 5):
    window.add(step, reported(1.0, *range(16)), drawn(step))
  held = [x for *_, scalars in window._steps for x in scalars.values()]
  assert sum(np.size(x) for x in held) == 4
  np.testing.assert_array_equal(window._counts, 4 * np.arange(16))


def test_without_codes_there_are_no_numbers_of_them():
  window = Window('checkpoints', named)
  window.add(1, reported(1.0), drawn(1))
  assert window.summary() == {'loss': 1.0}


def test_the_first_step_that_is_not_finite_is_named():
  window = Window('runs/x/checkpoints', named)
  window.add(7, reported(1.0, 1, 2), drawn(7))
  window.add(8, reported(np.nan, 1, 2, grad_norm=np.inf, learning_rate=0.1), drawn(8))
  window.add(9, reported(np.nan, 1, 2), drawn(9))
  message = (
    r'step 8: grad_norm, loss not finite; .* checkpoint in runs/x/checkpoints is from before'
  )
  with pytest.raises(UserError, match=message):
    window.summary()


def test_the_examples_of_that_step_are_named_some_in_the_error_and_all_in_the_log(caplog):
  window = Window('checkpoints', named)
  window.add(2, reported(np.nan), drawn(2, 3))
  with pytest.raises(UserError, match=r'of the step were 3\.png, 4\.png, 5\.png\. Lower .*=skip\.'):
    window.summary()
  window.add(2, reported(np.nan), drawn(2, 100))
  with pytest.raises(UserError, match=r'were 100\.png, .* 115\.png and 84 more, which the log'):
    window.summary()
  assert caplog.messages[0] == 'step 2: loss not finite; its examples: 3.png, 4.png, 5.png'
  assert caplog.messages[1].endswith(', '.join(named(range(100, 200))))


def test_so_many_are_left_out_of_the_means_and_one_more_stops_the_run(caplog):
  window = Window('checkpoints', named, allowed=3, skipped=1)
  window.add(5, reported(1.0, 2, 0), drawn(5))
  window.add(6, reported(np.inf, 0, 0), drawn(6))
  window.add(7, reported(3.0, 2, 0), drawn(7))
  assert window.summary() == {'loss': 2.0, 'usage': 0.5, 'perplexity': 1.0}
  assert window.skipped == 2
  named_in_the_log = (
    'step 6: loss not finite and skipped, 2 so far of 3; its examples: 15.png, 16.png, 17.png'
  )
  assert caplog.messages == [named_in_the_log]
  window.add(8, reported(np.nan, 0, 0), drawn(8))
  assert window.summary() == {}
  window.add(9, reported(np.nan, 0, 0), drawn(9))
  with pytest.raises(UserError, match=r'step 9: loss not finite, beyond .*max_nonfinite_steps=3;'):
    window.summary()
