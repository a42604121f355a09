"""Which code each row takes: `(z [N D], codes [K D], key) -> indices [N]`."""

import dataclasses

from vqjax.quantizers import lookup


@dataclasses.dataclass(frozen=True)
class Nearest:
  """The nearest code in Euclidean distance; on unit vectors that is the largest cosine.

  Attributes:
    block: codes scored at a time, see `lookup.nearest_code`.
  """

  block: int | None = None

  def __call__(self, z, codes, key=None):
    del key  # deterministic
    return lookup.nearest_code(z, codes, block=self.block)
