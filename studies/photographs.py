"""Free photographs to train on: those of GCompris, from Debian's package gcompris-qt-data.

python -m studies.photographs OUT [--shorter=PIXELS]

On Debian and its kin, without root: the package (44 MB) is fetched by apt-get download, unpacked by
dpkg -x in a temporary folder, and its photographs are written to OUT/train and OUT/val as they are
in it, WebP files of 200 pixels a side or more; with --shorter, larger ones are shrunk to that
shorter side and written without loss, so that reading them takes a fifth of the time. A tenth is
held out: whole photographs, and those that show one scene are on one side. OUT/copyright is the
package's: author and licence of each file, all of them free.
"""

import hashlib
import io
import logging
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from studies import qt_resources
from vqjax import commands
from vqjax.errors import UserError

PACKAGE = 'gcompris-qt-data'
# Where figures in the documents come from: version of the package, sha256, photographs in it.
VERSION = '3.1-2'
SHA256 = 'e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f'
COUNT = 265
# The activities of GCompris whose pictures are photographs, but for a few paintings.
ACTIVITIES = (
  'categorization',
  'clickgame',
  'details',
  'erase',
  'explore_farm_animals',
  'explore_monuments',
  'explore_world_animals',
  'explore_world_music',
)
_FOLDER = '/gcompris/src/activities/'
_SMALLEST = 200  # pixels of the shorter side
_HELD_OUT = slice(5, None, 10)  # of the scenes, in the order of their names
_ALIKE = 0.85  # correlation of thumbnails from which on two photographs are of one scene

_log = logging.getLogger('vqjax')


def photographs(unpacked: pathlib.Path) -> dict[str, bytes]:
  """The photographs in the package's resource collections: {path below activities/: file}, sorted.

  Raises:
    UserError: a collection that cannot be read.
  """
  found = {}
  for path in sorted(unpacked.rglob('*.rcc')):
    try:
      for name, content in qt_resources.files(path.read_bytes()):
        below = name.removeprefix(_FOLDER)
        if below.split('/')[0] in ACTIVITIES and below.endswith('.webp') and _large(content):
          found[below] = content
    except (OSError, ValueError) as error:
      raise UserError(
        f'{path.name} of {PACKAGE} cannot be read: {error}; fetch the package anew.'
      ) from error
  return dict(sorted(found.items()))


def scenes(files: Mapping[str, bytes]) -> list[list[str]]:
  """Names by scene: photographs of one name, or alike as thumbnails, and so on along the chain.

  Some are there in two sizes, and the same monument was photographed for several activities. To
  take two scenes for one does no harm.
  """
  names = list(files)
  stems = np.array([pathlib.PurePath(n).stem.removesuffix('_background').lower() for n in names])
  looks = np.stack([_thumbnail(content) for content in files.values()])
  related = (stems[:, None] == stems[None]) | (looks @ looks.T > _ALIKE)
  number, label = connected_components(related, directed=False)
  return [[names[i] for i in np.flatnonzero(label == scene)] for scene in range(number)]


def write(unpacked: pathlib.Path, out: pathlib.Path, shorter: int | None = None) -> tuple[int, int]:
  """Writes train/, val/ and copyright of an unpacked package; returns how many are in each.

  Args:
    unpacked: what dpkg -x made of it.
    out: folder to make.
    shorter: shorter side in pixels of what is larger; None: files as they are.

  Raises:
    UserError: there are none, or `out` cannot be written.
  """
  files = photographs(unpacked)
  if not files:
    raise UserError(f'{PACKAGE} has no photographs in it; legal: a version such as {VERSION}.')
  held_out = {name for scene in scenes(files)[_HELD_OUT] for name in scene}
  partial = out.with_name(f'.{out.name}.{os.getpid()}')
  try:
    for name, content in files.items():
      path = partial / ('val' if name in held_out else 'train') / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(_shrunk(content, shorter) if shorter else content)
    shutil.copy(unpacked / 'usr/share/doc' / PACKAGE / 'copyright', partial)
    os.replace(partial, out)
  except OSError as error:
    raise UserError(f'cannot write {out}: {error.strerror}; choose another OUT.') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return len(files) - len(held_out), len(held_out)


def _large(content):
  """Whether it is an opaque colour picture large enough."""
  with Image.open(io.BytesIO(content)) as image:
    return image.mode == 'RGB' and min(image.size) >= _SMALLEST


def _shrunk(content, shorter):
  with Image.open(io.BytesIO(content)) as image:
    factor = shorter / min(image.size)
    if factor >= 1:
      return content
    size = tuple(round(factor * side) for side in image.size)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, 'webp', lossless=True)
  return buffer.getvalue()


def _thumbnail(content):
  """16 x 16 levels of grey, of mean 0 and length 1: float64 [256]."""
  with Image.open(io.BytesIO(content)) as image:
    grey = image.convert('L').resize((16, 16), Image.Resampling.BOX)
  levels = np.asarray(grey, np.float64).ravel()
  levels -= levels.mean()
  return levels / max(np.linalg.norm(levels), 1e-9)


def _fetch(folder):
  """Downloads the package into `folder` and unpacks it there; returns its version."""
  _run('apt-get', 'download', PACKAGE, folder=folder, advice='run apt-get update as root')
  (package,) = folder.glob('*.deb')
  version = package.name.split('_')[1]
  digest = hashlib.sha256(package.read_bytes()).hexdigest()
  if version == VERSION and digest != SHA256:
    raise UserError(
      f'{package.name} has sha256 {digest}, not {SHA256}; take another mirror in '
      '/etc/apt/sources.list.'
    )
  _run('dpkg', '-x', package.name, '.', folder=folder, advice='see that there is room for 100 MB')
  return version


def _run(*command, folder, advice):
  try:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
  except FileNotFoundError as error:
    raise UserError(
      f'{command[0]} is not on this machine, which Debian and its kin have; take any folder of '
      'photographs in place of these.'
    ) from error
  if done.returncode:
    said = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
    raise UserError(f'{" ".join(command)}: {said[-1].removeprefix("E: ").rstrip(".")}; {advice}.')


def _arguments(parser):
  parser.add_argument('out', metavar='OUT', type=commands.path, help='Folder to make.')
  parser.add_argument(
    '--shorter', type=int, metavar='PIXELS', help='Shrink what is larger to this.'
  )


def _main(args):
  if args.out.exists():
    raise UserError(f'{args.out} is there already; remove it, or choose another OUT.')
  if args.shorter is not None and args.shorter < 1:
    raise UserError(f'--shorter is {args.shorter}; legal: 1 or more pixels.')
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    version = _fetch(folder)
    train, val = write(folder, args.out, args.shorter)
  _log.info('%d photographs in %s/train and %d in %s/val', train, args.out, val, args.out)
  if (version, train + val) != (VERSION, COUNT):
    _log.warning(
      '%s is of version %s with %d photographs; figures in the documents are of %s with %d.',
      *(PACKAGE, version, train + val, VERSION, COUNT),
    )
  _log.info('authors and licences: %s', args.out / 'copyright')


COMMAND = commands.Command(
  doc=__doc__,
  arguments=_arguments,
  main=_main,
  example='python -m studies.photographs runs/photographs',
  uses_jax=False,
)

if __name__ == '__main__':
  commands.run(COMMAND)
