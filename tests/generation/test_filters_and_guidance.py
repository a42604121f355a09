"""What is left of a distribution, and guidance schedules, against the authors' numbers."""

import types

import jax
import numpy as np
import pytest
from golden_data import checkpoint, compare

from vqjax.errors import UserError
from vqjax.generation import filters, guidance

_, FILTERS, FILTERS_SIDECAR = checkpoint('llamagen_filter_a', 'generation')


@pytest.mark.parametrize('name', FILTERS_SIDECAR['settings'])
def test_filters_keep_what_llamagen_keeps(name):
  setting = FILTERS_SIDECAR['settings'][name]
  logits = filters.temper(FILTERS[setting['input']][:, -1], setting['temperature'])
  left = filters.top_p(filters.top_k(logits, setting['top_k']), setting['top_p'])
  compare(FILTERS_SIDECAR, f'probs_{name}', jax.nn.softmax(left), FILTERS[f'probs_{name}'])
  if name != 's7':  # at temperature 0 theirs have no probability for all but the first
    compare(FILTERS_SIDECAR, f'kept_{name}', np.isfinite(left), FILTERS[f'kept_{name}'])


def test_ties_at_the_edge_all_stay():
  logits = np.log(np.array([0.4, 0.2, 0.2, 0.1, 0.1], np.float32))
  kept = lambda left: np.isfinite(left).tolist()
  assert kept(filters.top_k(logits, 2)) == [True, True, True, False, False]
  assert kept(filters.top_p(logits, 0.5)) == [True, True, True, False, False]
  assert kept(filters.top_p(logits, 0.01)) == [True, False, False, False, False]


def test_power_cosine_is_rars():
  _, io, sidecar = checkpoint('rar_schedules_a', 'generation')
  for i, (scale, power) in enumerate(sidecar['settings']['pairs']):
    ours = guidance.power_cosine(scale, sidecar['settings']['N'], power)
    compare(sidecar, f'cfg_{i}', ours, io[f'cfg_{i}'])


def test_other_schedules():
  np.testing.assert_array_equal(guidance.linear(3, 5), [1, 1.5, 2, 2.5, 3])
  scales = guidance.constant(2, 4)
  np.testing.assert_array_equal(guidance.until(scales, 1), [2, 2, 1, 1])
  np.testing.assert_array_equal(guidance.until(scales, -1), scales)


def test_a_scale_of_one_is_the_condition_itself():
  given, without = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
  guide = jax.jit(guidance.guide)
  np.testing.assert_array_equal(guide(given, without, np.float32(1)), given)
  expected = without + 2 * (given - without)
  np.testing.assert_allclose(guide(given, without, np.float32(2)), expected, rtol=1e-5, atol=1e-6)


def test_guidance_without_a_null_class_is_refused():
  for has_null, classes, lacks in ((False, 3, 'null class'), (True, 0, 'classes')):
    model = types.SimpleNamespace(has_null=has_null, num_classes=classes)
    assert not guidance.check(0, model)
    assert not guidance.check(1, model)
    with pytest.raises(UserError, match=f'guidance is 1.5, but .* with no {lacks}; set it to 0'):
      guidance.check(1.5, model)
