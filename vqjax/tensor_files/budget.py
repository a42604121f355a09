"""How much a file may cost: in proportion to its size, whatever it claims."""

import math
from collections.abc import Iterable

FACTOR = 4  # times the file's size
CONSTANT = 2**26  # bytes, of the smallest file


class Budget:
  """What reading one file may still allocate, and so how long it may go on, in bytes.

  Everything that a file can ask for is drawn from it before it is made. What only looks at bytes of
  the file costs as much as a copy of them would: whoever uses it makes one.

  Args:
    size: of the file.
  """

  def __init__(self, size: int) -> None:
    self._left = FACTOR * size + CONSTANT

  def draw(self, count: int) -> None:
    """Takes `count` bytes; ValueError if there are not as many left."""
    self._left -= count
    if self._left < 0:
      raise ValueError(f'it asks for more memory than {FACTOR} times its size')

  def array(self, shape: Iterable[int], itemsize: int) -> None:
    """Takes what an array costs; a side of length zero must not hide how long the others are."""
    self.draw(itemsize * math.prod(max(n, 1) for n in shape))
