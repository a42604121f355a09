"""Two folders of images, originals and what another program made of them, to batches of pairs."""

import pathlib
from typing import NamedTuple

from vqjax.data.folder import image_names
from vqjax.data.image_files import file_batches, read_file
from vqjax.data.stalls import Batches
from vqjax.errors import UserError, printable

_REPAIR = 'repair it, or remove it together with its partner'


class Pairs(NamedTuple):
  """Images by the same name below two folders; names are sorted and without suffix."""

  originals: dict[str, pathlib.Path]
  reconstructions: dict[str, pathlib.Path]
  size: tuple[int, int]  # height and width of the first original, which all images must have

  def __len__(self) -> int:
    return len(self.originals)


def open_pairs(originals: str | pathlib.Path, reconstructions: str | pathlib.Path) -> Pairs:
  """Pairs the images of two folders by their path below it, whatever the suffix.

  Raises:
    UserError: a folder that cannot be read, an image without its partner, two of one name, or a
      first original that is unreadable.
  """
  paths = _paths('originals', originals), _paths('reconstructions', reconstructions)
  sides = (originals, paths[0]), (reconstructions, paths[1])
  for (here, names), (there, others) in (sides, sides[::-1]):
    if alone := [name for name in names if name not in others]:
      raise UserError(
        f'{len(alone)} of {len(names)} images in {here} have no partner in {there}, the first is '
        f'{alone[0]!r}; pairs have the same path below their folder, whatever the suffix.'
      )
  first = next(iter(paths[0].values()))
  return Pairs(*paths, size=read_file(first, _REPAIR).shape[:2])


def pair_batches(pairs: Pairs, batch_size: int, limit: int | None = None) -> Batches:
  """All pairs, or the first `limit`, in the order of their names, once.

  A batch is {'original': uint8 [B H W 3], 'reconstruction': likewise, 'mask': bool [B]}; see
  `file_batches`.
  """
  names = list(pairs.originals)[:limit]
  sides = {'original': pairs.originals, 'reconstruction': pairs.reconstructions}
  files = {kind: [paths[name] for name in names] for kind, paths in sides.items()}
  return file_batches(files, pairs.size, batch_size, 'the first original', _REPAIR)


def _paths(flag, folder):
  root = pathlib.Path(folder).expanduser()
  if not root.is_dir():
    raise UserError(
      f'--{flag}={folder} is no folder (looked in {pathlib.Path.cwd()}); name one with images.'
    )
  paths: dict[str, pathlib.Path] = {}
  for name in image_names(root, f'choose another --{flag}'):
    stem = name.rpartition('.')[0]
    if stem in paths:
      two = ' and '.join(printable(str(path)) for path in (paths[stem], root / name))
      raise UserError(f'{two} differ in their suffix alone; remove one.')
    paths[stem] = root / name
  return paths
