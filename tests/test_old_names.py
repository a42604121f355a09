"""Names of before 0.2 that are to work for one release more, and say so."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
  ('old', 'new', 'name'),
  [
    ('vqjax.metrics', 'vqjax.evaluation.metrics', 'psnr'),
    ('vqjax.feature_statistics', 'vqjax.evaluation.statistics', 'FeatureStatistics'),
  ],
)
def test_the_old_name_gives_the_same_and_says_the_new_one(old, new, name):
  sys.modules.pop(old, None)
  with pytest.warns(DeprecationWarning, match=rf'{old} is {new} now, .* goes with version 0\.3'):
    module = importlib.import_module(old)
  assert getattr(module, name) is getattr(importlib.import_module(new), name)
