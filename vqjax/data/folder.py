"""A folder of image files, with class folders or without."""

import os
import pathlib
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from vqjax.data.decode import UnreadableImage
from vqjax.errors import UserError, printable

_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
_HELD_OUT = ('val', 'validation', 'test')
_Choice = Callable[[list[str]], list[str]]
DEMO = 'a config with :demo trains without any data'
_ADVICE = f'point data.path at a folder of images; {DEMO}'


class Folder:
  """The images under `root` that `keep` keeps, in an order that is the same on every machine.

  `folder[i]` is {'image': the file's bytes, 'label': int, 'name': path below `root`}; the label is
  the index of the top-level folder in sorted order, which are the classes, 0 for a file outside
  them. Raises `UserError` if `root` cannot be listed or holds no image, `UnreadableImage` if a file
  cannot be read.
  """

  def __init__(self, root: pathlib.Path, keep: _Choice = list, what: str = 'images') -> None:
    self._root = root
    names = image_names(root)
    # Of all the names, so that a class has the same label on both sides of a hold-out.
    tops = {name.split('/')[0] for name in names if '/' in name}
    self.class_names = tuple(sorted(tops))
    self._labels = {top: label for label, top in enumerate(self.class_names)}
    self._names = keep(names)
    self.description = f'{len(self)} {what} in {root}, {max(1, len(tops))} classes'

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> dict[str, Any]:
    name = self._names[index]
    try:
      encoded = (self._root / name).read_bytes()
    except OSError as error:
      raise UnreadableImage(name, error.strerror or str(error)) from error
    return {'image': encoded, 'label': self._labels.get(name.split('/')[0], 0), 'name': name}

  def name_of(self, index: int) -> str:
    """The path of the file."""
    return str(self._root / self._names[index])


def has_parts(path: str | pathlib.Path) -> bool:
  """Whether a folder is divided: it has train/ or held-out images of their own in it."""
  return any((pathlib.Path(path).expanduser() / name).is_dir() for name in ('train', *_HELD_OUT))


def open_folder(data: ConfigDict, split: str) -> Folder:
  """The training or held-out images that `data.path`, `eval_path` and `holdout` describe.

  Held out is `data.eval_path`, else val/, validation/ or test/ beside train/, else a fraction
  `data.holdout` of the files, chosen by a hash of their path below the folder.
  """
  if not data.path:
    raise UserError(
      f"data.path is '' and data.source='folder' needs one: --config.data.path=FOLDER; {DEMO}."
    )
  path = pathlib.Path(data.path).expanduser()
  _check_folder(path, 'data.path')
  train = path / 'train' if (path / 'train').is_dir() else path
  held_out = next((path / name for name in _HELD_OUT if (path / name).is_dir()), None)
  if data.eval_path:
    held_out = pathlib.Path(data.eval_path).expanduser()
    _check_folder(held_out, 'data.eval_path')
  elif held_out and train == path and split == 'train':
    raise UserError(
      f'data.path={path} holds {held_out.name}/ but no train/; name the training folder train, or'
      f' give the two apart: --config.data.path and --config.data.eval_path; {DEMO}.'
    )
  if held_out:
    return Folder(train if split == 'train' else held_out)
  return _part(train, data.holdout, split)


def _part(root: pathlib.Path, holdout: float, split: str) -> Folder:
  if not 0 < holdout < 1:
    raise UserError(
      f'data.holdout is {holdout}; give a fraction between 0 and 1, or held-out images of their own'
      ' with --config.data.eval_path.'
    )

  def keep(names: list[str]) -> list[str]:
    # By name alone: no picture changes sides when others come or go. The first and the last hash
    # see to it that neither side is ever empty.
    hashes = {name: _hash(_of_file(root, name)) for name in names}
    first, last = min(hashes.values()), max(hashes.values())
    if first == last:
      raise UserError(
        f'{root} holds a single image, {printable(names[0])}; two are the least, since one is held'
        f' out: add more, or give --config.data.eval_path; {DEMO}.'
      )
    held_out = {h for h in hashes.values() if h == first or (h < holdout and h != last)}
    return [name for name in names if (hashes[name] in held_out) == (split == 'eval')]

  return Folder(root, keep, 'training images' if split == 'train' else 'held-out images')


def _of_file(root: pathlib.Path, name: str) -> str:
  """The name of the file itself where `name` is a link to another below `root`."""
  if not os.path.islink(root / name):
    return name
  target, top = (os.path.realpath(path) for path in (root / name, root))
  return os.path.relpath(target, top) if target.startswith(top + os.sep) else name


def _hash(name: str) -> float:
  return zlib.crc32(name.encode('utf-8', 'surrogateescape')) / 2**32


def _check_folder(path: pathlib.Path, field: str) -> None:
  if not path.exists():
    raise UserError(
      f'{field}={path} does not exist (looked in {pathlib.Path.cwd()}); point it at a folder of'
      f' images; {DEMO}.'
    )
  if not path.is_dir():
    raise UserError(f'{field}={path} is a file, not a folder; give the folder it is in; {DEMO}.')


def image_names(root: pathlib.Path, advice: str = _ADVICE) -> list[str]:
  """Paths below `root`, with forward slashes, sorted by code point; hidden ones are skipped.

  Links are followed, as data sets are often assembled from them, but every folder is listed once,
  whatever leads to it: a link may lead back. Only regular files are images: another kind, such as
  a pipe, may have no end. Raises `UserError`, which ends with `advice`, if `root` cannot be listed
  or holds no image.
  """
  names: list[str] = []
  others: Counter[str] = Counter()
  seen = set()

  def visit(folder: str, below: str) -> None:
    status = os.stat(folder)
    if (place := (status.st_dev, status.st_ino)) in seen:
      return
    seen.add(place)
    with os.scandir(folder) as entries:
      ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
      suffix = os.path.splitext(entry.name)[1].lower()
      if entry.is_dir():
        if not entry.name.startswith('.'):
          visit(entry.path, f'{below}{entry.name}/')
      elif entry.name.startswith('.') or suffix not in _SUFFIXES:
        others[suffix or 'no suffix'] += 1
      elif entry.is_file() or not os.path.exists(entry.path):  # a broken link is named when read
        names.append(below + entry.name)
      else:
        others[f'{suffix} that is no regular file'] += 1

  try:
    visit(str(root), '')
  except OSError as error:
    raise UserError(
      f'cannot list {printable(str(error.filename))}: {error.strerror}; give yourself the right to'
      f' read it, or {advice}.'
    ) from error
  if not names:
    ranked = sorted(others, key=lambda suffix: (-others[suffix], suffix))[:5]
    found = ', '.join(f'{others[suffix]} {suffix}' for suffix in ranked) or 'no files'
    raise UserError(
      f'{root} holds no image: found {found}, looked for {" ".join(_SUFFIXES)}; {advice}.'
    )
  return sorted(names)
