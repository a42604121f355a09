"""The old place of `vqjax.evaluation.statistics`; it goes with version 0.3."""

import warnings

from vqjax.evaluation.statistics import *  # noqa: F403

warnings.warn(
  'vqjax.feature_statistics is vqjax.evaluation.statistics now, and the old name goes with version '
  '0.3.',
  DeprecationWarning,
  stacklevel=2,
)
