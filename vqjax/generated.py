"""Files of generated images: pictures, all of them as one array, and a sheet of some."""

import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vqjax.report import pictures
from vqjax.whole_files import replacing

_ROWS, _COLUMNS = 16, 8  # of a sheet, at most


def write_png(path: pathlib.Path, pixels: np.ndarray) -> None:
  """Writes an image uint8 [H W 3]."""
  with replacing(path) as partial:
    Image.fromarray(pixels).save(partial, 'png')


def read_png(path: pathlib.Path) -> np.ndarray:
  """Reads what `write_png` wrote."""
  with Image.open(path) as image:
    return np.asarray(image)


def write_npz(
  path: pathlib.Path,
  files: Sequence[pathlib.Path],
  size: tuple[int, int],
  labels: np.ndarray | None = None,
) -> None:
  """Images of one size as `arr_0` uint8 [N H W 3], one after the other, and labels as `arr_1`."""
  header = {'descr': '|u1', 'fortran_order': False, 'shape': (len(files), *size, 3)}
  with replacing(path) as partial, zipfile.ZipFile(partial, 'w') as archive:
    # A ZipInfo has no time, so that the bytes are the same again.
    with archive.open(zipfile.ZipInfo('arr_0.npy'), 'w', force_zip64=True) as member:
      np.lib.format.write_array_header_1_0(member, header)
      for file in files:
        member.write(read_png(file).tobytes())
    if labels is not None:
      with archive.open(zipfile.ZipInfo('arr_1.npy'), 'w') as member:
        np.lib.format.write_array(member, labels)


def sheet(files: Sequence[pathlib.Path], labels: np.ndarray) -> np.ndarray:
  """The first images of each class in a row, or of all in rows of 8: uint8 [H' W' 3].

  Rows are of classes where there are several, 16 at most, and of one of them several images.

  Args:
    files: of images of one size.
    labels: int32 [N] of them.
  """
  classes = np.unique(labels)
  if len(classes) == 1 or len(classes) > _ROWS or len(classes) == len(labels):
    return pictures.grid(np.stack([read_png(file) for file in files[: _ROWS * _COLUMNS]]), _COLUMNS)
  rows = [np.flatnonzero(labels == label)[:_COLUMNS] for label in classes]
  columns = max(len(row) for row in rows)
  white = np.full_like(read_png(files[0]), 255)
  images = [[read_png(files[n]) for n in row] + [white] * (columns - len(row)) for row in rows]
  return pictures.grid(np.concatenate(images), columns)
