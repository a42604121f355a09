"""Reading the golden files."""

import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / 'golden'


def load(name):
  """Arrays of `tests/golden/NAME.npz` as a dict."""
  with np.load(GOLDEN / f'{name}.npz', allow_pickle=False) as data:
    return dict(data)
