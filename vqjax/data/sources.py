"""Where images come from: one random-access source for each value of `data.source`."""

from collections.abc import Callable
from typing import Any, Protocol

from ml_collections import ConfigDict

from vqjax.data.array_record import open_array_record
from vqjax.data.digits import Digits
from vqjax.data.folder import has_parts, open_folder
from vqjax.data.photos import Photos
from vqjax.data.tfds import Tfds
from vqjax.data.transforms import make_transform
from vqjax.errors import UserError


class Source(Protocol):
  """What `train_batches` and `eval_batches` read: any object of this shape will do.

  It may have a method `name_of(index: int) -> str` too, which names an image without reading it: so
  the log can say which one is being waited for. `class_names` are strings in the order of the
  labels, none of them if there are no classes; where they are not known it is None, or not there.
  """

  description: str  # how many images, and where: a line for the log

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'image': encoded bytes or uint8 RGB [H W 3], 'label': int, 'name': str}, from any thread.

    Raises `UnreadableImage` for one that cannot be read.
    """
    ...


_SOURCES: dict[str, Callable[[ConfigDict, str], Source]] = {
  'photos': lambda data, split: Photos(split),
  'digits': lambda data, split: Digits(split),
  'folder': open_folder,
  'array_record': open_array_record,
  'tfds': lambda data, split: Tfds(data.tfds_name, data.path, getattr(data, f'{split}_split')),
}

_WITHOUT_PATH = ('photos', 'digits')  # they come with packages


def make_source(data: ConfigDict, split: str) -> Source:
  """The images that the config section `data` (see `default_data`) names for 'train' or 'eval'.

  Raises `UserError` for a field that is wrong, in either split's transform too: better now than at
  the first evaluation, and for data that are not there.
  """
  for each in ('train', 'eval'):
    make_transform(data, each)
  if data.source not in _SOURCES:
    names = ', '.join(map(repr, _SOURCES))
    raise UserError(f'data.source is {data.source!r}; it can be one of {names}.')
  if data.source in _WITHOUT_PATH and (path := data.path or data.eval_path):
    raise UserError(
      f'data.path is {path!r}, but data.source={data.source!r} reads no path: add '
      '--config.data.source=folder, or another source that does.'
    )
  return _SOURCES[data.source](data, split)


def choose_images(data: ConfigDict, path: str | None) -> None:
  """Makes `data`, of a run's config, the images at `path`, where that is not None.

  A folder of another place than the run's is evaluated whole, or its part val/ where it has parts:
  nothing in it was trained on.

  Raises:
    UserError: there is none, and the run has no images of its own.
  """
  if path:
    if data.source in _WITHOUT_PATH:
      data.source = 'folder'
    whole = data.source == 'folder' and path != data.path and not has_parts(path)
    data.path, data.eval_path = path, path if whole else ''
  elif data.source == 'folder' and not data.path:
    raise UserError('this run has no images of its own; name some by --data_path=FOLDER.')
