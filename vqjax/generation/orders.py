"""Which symbols a masked sampler reveals, and how many by each step; computed on the host."""

import numpy as np

from vqjax.generation.layout import Layout
from vqjax.generation.masking import host_rate


def halton(layout: Layout) -> np.ndarray:
  """Cells in the order of Halton-MaskGIT, the first to be revealed first: int32 [h w].

  Besnier et al. (ICLR 2025), section 3: point i = 1, 2, .. is cell (floor(h phi_2(i)), floor(w
  phi_3(i))), by the radical inverses in bases 2 and 3, of which the first 10,000 are taken, each
  cell as it comes first. Points are spread out, so that symbols of one step depend little on each
  other.

  Deviations: the grid need not be square; and cells that no point falls into, six of a 64 by 64
  grid, come last in raster order, where the original fails.
  """
  height, width = (np.float32(side) for side in layout.grid)
  rows = (_radical_inverse(2).astype(np.float32) * height).astype(np.int32)
  columns = (_radical_inverse(3).astype(np.float32) * width).astype(np.int32)
  cells = np.concatenate([rows * layout.grid[1] + columns, np.arange(np.prod(layout.grid))])
  _, first = np.unique(cells, return_index=True)
  return cells[np.sort(first)].astype(np.int32)


def _radical_inverse(base: int, count: int = 10_000) -> np.ndarray:
  """The digits of 1..count behind the point, the last one first: float64 [count]."""
  rest, scale = np.arange(1, count + 1), 1.0
  value = np.zeros(count)
  while rest.any():
    scale /= base
    value += rest % base * scale
    rest //= base
  return value


def reveal_counts(length: int, progress: np.ndarray, schedule: str = 'arccos') -> np.ndarray:
  """Symbols that are revealed after each step, of N: int32 [T], `max(t + 1, int(N (1 - rate)))`.

  Args:
    length: N.
    progress: float32 [T], r of every step: `steps_done` or `steps_begun`.
    schedule: of `masking`.
  """
  share = 1 - host_rate(schedule, progress, np.array(length))
  counts = (np.float32(length) * share).astype(np.int32)
  return np.maximum(counts, np.arange(1, len(counts) + 1, dtype=np.int32))


def mask_lengths(length: int, steps: int, schedule: str = 'cosine') -> np.ndarray:
  """MaskGIT's symbols that stay masked after each step: int32 [T N+1], `int(U rate)`.

  By the number U in 0..N of those that were unknown at first, which is an image's own.
  """
  unknown = np.arange(length + 1)
  rates = host_rate(schedule, steps_done(steps)[:, None], unknown[None])
  return (unknown.astype(np.float32) * rates).astype(np.int32)


def steps_done(steps: int) -> np.ndarray:
  """1/T, 2/T, .., 1: float32 [T]."""
  return np.arange(1, steps + 1, dtype=np.float32) / np.float32(steps)


def steps_begun(steps: int) -> np.ndarray:
  """0, 1/(T-1), .., 1: float32 [T]; 1 for a single step, which is the last."""
  return np.linspace(0, 1, steps).astype(np.float32) if steps > 1 else np.ones(1, np.float32)
