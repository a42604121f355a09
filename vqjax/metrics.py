"""The old place of `vqjax.evaluation.metrics`; it goes with version 0.3."""

import warnings

from vqjax.evaluation.metrics import *  # noqa: F403

warnings.warn(
  'vqjax.metrics is vqjax.evaluation.metrics now, and the old name goes with version 0.3.',
  DeprecationWarning,
  stacklevel=2,
)
