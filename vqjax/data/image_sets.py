"""Images of one size as another program left them: a folder of files, or an .npz in one array."""

import contextlib
import pathlib
import re
from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from vqjax import tensor_files
from vqjax.data.batches import eval_batches
from vqjax.data.decode import UnreadableImage, decode
from vqjax.data.folder import image_names
from vqjax.data.image_files import file_batches, read_file
from vqjax.data.sources import Source
from vqjax.errors import UserError, printable

_LAYOUT = 'legal: a folder of images, or an .npz with arr_0, uint8 [N H W 3]'
_REPAIR = 'repair it, or remove it'


class ImageSet(Protocol):
  """Images that can be gone through more than once, in one order."""

  size: tuple[int, int]  # height and width
  labels: np.ndarray | None  # int64 [N], where classes are known
  class_names: Sequence[str]  # of the labels; empty where only numbers are known

  def __len__(self) -> int:
    """N."""

  def batches(self, batch_size: int, positions: Sequence[int]) -> Generator[np.ndarray, None, None]:
    """The images at these positions, which rise: uint8 [up to batch_size H W 3] each time.

    While iterating it raises a UserError for what cannot be read.
    """


def open_images(path: str | pathlib.Path, flag: str) -> ImageSet:
  """A folder of image files, or `arr_0` of an .npz, which is read only batch by batch.

  Files of a folder are in the order of their paths below it; their classes are the folders in it,
  if there are several, or the numbers of names as 000012_7.png, if all are such. Classes of an .npz
  are its `arr_1`, int [N], as ADM's samplers write them.

  Args:
    path: of the folder, or of the file; or the output of vqjax.generate.
    flag: that named it, for errors.

  Raises:
    UserError: there is no such thing, or none of these layouts.
  """
  place = pathlib.Path(path).expanduser()
  if place.is_dir():
    generated = (place / 'generate.json').is_file()  # with a sheet beside the images
    return _Folder(place / 'images' if generated else place, flag)
  if not place.is_file():
    raise UserError(f'--{flag}={path} does not exist (looked in {pathlib.Path.cwd()}); {_LAYOUT}.')
  return _Array(place)


class Cut:
  """The images of a source as evaluation cuts them, as an `ImageSet`.

  As in a folder, one that cannot be read is an error: nothing is left out, so that positions hold.

  Args:
    source: of images.
    data: section of a config, see `default_data`.
  """

  labels: np.ndarray | None = None
  class_names: Sequence[str] = ()

  def __init__(self, source: Source, data: ConfigDict) -> None:
    self.size: tuple[int, int] = (data.image_size, data.image_size)
    self._source, self._data = source, data

  def __len__(self) -> int:
    return len(self._source)

  def batches(self, batch_size: int, positions: Sequence[int]) -> Generator[np.ndarray, None, None]:
    chosen = _Chosen(self._source, positions)
    with contextlib.closing(eval_batches(chosen, self._data, batch_size=batch_size)) as batches:
      for batch in batches:
        yield batch['image'][batch['mask']]


class _Chosen:
  """A `Source` of some of another's images, decoded; a UserError for one that cannot be."""

  def __init__(self, source, positions):
    self._source, self._positions = source, positions
    self.description = source.description

  def __len__(self):
    return len(self._positions)

  def __getitem__(self, index):
    try:
      example = self._source[self._positions[index]]
      if isinstance(example['image'], np.ndarray):
        return example
      return {**example, 'image': decode(example['image'], example['name'])}
    except UnreadableImage as error:
      raise UserError(f'cannot read the image {error}; {_REPAIR}.') from error


class _Folder:
  def __init__(self, root: pathlib.Path, flag: str) -> None:
    names = image_names(root, f'choose another --{flag}')
    self._paths = [root / name for name in names]
    self.size = read_file(self._paths[0], _REPAIR).shape[:2]
    tops = [name.split('/')[0] if '/' in name else '' for name in names]
    numbers = [re.fullmatch(r'\d+_(\d+)\.\w+', name) for name in names]
    classes = sorted(set(tops))
    self.class_names: Sequence[str] = classes if len(classes) > 1 else ()
    self.labels = None
    if self.class_names:
      of = {name: label for label, name in enumerate(classes)}
      self.labels = np.array([of[top] for top in tops], np.int64)
    elif all(numbers):
      self.labels = np.array([int(number[1]) for number in numbers if number], np.int64)

  def __len__(self) -> int:
    return len(self._paths)

  def batches(self, batch_size: int, positions: Sequence[int]) -> Generator[np.ndarray, None, None]:
    files = {'image': [self._paths[i] for i in positions]}
    found = file_batches(files, self.size, batch_size, f'{self._paths[0].name}', _REPAIR)
    with contextlib.closing(found):
      for batch in found:
        yield batch['image'][batch['mask']]


class _Array:
  class_names: Sequence[str] = ()

  def __init__(self, path: pathlib.Path) -> None:
    self._path = path
    with _whole(path), tensor_files.open_npz(path) as arrays:
      if 'arr_0' not in arrays:
        found = printable(', '.join(arrays)[:200]) or 'nothing'
        raise UserError(f'{path} has no images, arr_0 (it has {found}); {_LAYOUT}.')
      with tensor_files.open_npz_rows(path, 'arr_0') as rows:
        shape, dtype = rows.shape, rows.dtype
      labels = arrays['arr_1']() if 'arr_1' in arrays else None
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
      raise UserError(
        f'{path} has arr_0 of {dtype} {list(shape)}; legal: uint8 [N H W 3], colours of '
        '0 to 255 as they are shown.'
      )
    if labels is not None and (labels.dtype.kind not in 'iu' or labels.shape != shape[:1]):
      raise UserError(
        f'{path} has arr_1 of {labels.dtype} {list(labels.shape)} beside {shape[0]} images; legal: '
        f'classes, int [{shape[0]}], or no arr_1.'
      )
    self.size = shape[1:3]
    self.labels = None if labels is None else labels.astype(np.int64)
    self._count = shape[0]

  def __len__(self) -> int:
    return self._count

  def batches(self, batch_size: int, positions: Sequence[int]) -> Generator[np.ndarray, None, None]:
    wanted = np.asarray(positions, np.int64)
    with _whole(self._path), tensor_files.open_npz_rows(self._path, 'arr_0') as rows:
      for start in range(0, int(wanted.max(initial=-1)) + 1, batch_size):
        batch = rows.read(min(batch_size, self._count - start))
        if len(batch) < min(batch_size, self._count - start):
          raise EOFError
        here = wanted[(wanted >= start) & (wanted < start + batch_size)] - start
        if len(here):
          yield batch[here]


@contextlib.contextmanager
def _whole(path):
  """Says in one sentence what is the matter with a file."""
  try:
    yield
  except tensor_files.DAMAGE as error:
    raise UserError(f'{path} is no .npz of images, or damaged; {_LAYOUT}.') from error
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}; {_LAYOUT}.') from error
