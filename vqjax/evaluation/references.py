"""What generated images are compared with: statistics and images, in the layout of ADM's files."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from vqjax import tensor_files
from vqjax.data.image_sets import ImageSet, open_images
from vqjax.errors import UserError, printable
from vqjax.evaluation import statistics
from vqjax.evaluation.adm import Statistics
from vqjax.evaluation.collect import spread
from vqjax.evaluation.statistics import Precomputed
from vqjax.networks.inception import FEATURES, SPATIAL_FEATURES
from vqjax.whole_files import reason, replacing

IMAGES = 10_000  # of the reference are what precision and recall look at, as in ADM's files
_BATCH = 64
_STATISTICS = ('mu', 'sigma', 'mu_s', 'sigma_s')
_LAYOUT = (
  "legal: a folder of images, or an .npz as ADM's or --save_reference's, with mu, sigma, mu_s and "
  'sigma_s, images in arr_0, or all of them'
)


@dataclasses.dataclass(frozen=True)
class Reference:
  """What is there of a reference."""

  path: str
  statistics: Mapping[str, Statistics]  # of `pool` and `spatial`, where they are stored
  images: ImageSet | None
  count: int | None = None  # images behind the statistics, where that is known
  provenance: str = ''

  def positions(self) -> frozenset[int]:
    """Those of the images that precision and recall look at, evenly spread."""
    return spread(len(self.images), IMAGES) if self.images is not None else frozenset()


def open_reference(path: str | pathlib.Path) -> Reference:
  """Opens a folder of images, or an .npz of statistics, or images, or both.

  Stored statistics are used in the place of those of the images, as ADM's evaluator does: they are
  of the whole training set.

  Raises:
    UserError: no such thing, another layout or width, or statistics of another protocol.
  """
  place = pathlib.Path(path).expanduser()
  if not place.is_file():
    return Reference(str(path), {}, open_images(path, 'reference'))
  names = array_names(place)
  if not names & {*_STATISTICS, 'arr_0'}:
    found = printable(', '.join(sorted(names))[:200]) or 'nothing'
    raise UserError(f'{path} has {found}; {_LAYOUT}.')
  images = open_images(path, 'reference') if 'arr_0' in names else None
  if not names & set(_STATISTICS):
    return Reference(str(path), {}, images)
  if names >= {'mu', 'sigma'} and not names & {'mu_s', 'sigma_s'}:
    raise UserError(
      f'{path} has mu and sigma without mu_s and sigma_s, as pytorch-fid and rFID write them, of '
      f'images that are resized otherwise; {_LAYOUT}.'
    )
  pool, spatial = (
    statistics.load(path, width, suffix)
    for width, suffix in ((FEATURES, ''), (SPATIAL_FEATURES, '_s'))
  )
  both: Mapping[str, Precomputed] = {'pool': pool, 'spatial': spatial}
  return Reference(str(path), both, images, pool.count, pool.provenance)


def array_names(path: str | pathlib.Path) -> set[str]:
  """What an .npz has; of a folder nothing.

  Raises:
    UserError: another file.
  """
  place = pathlib.Path(path).expanduser()
  if place.is_dir():
    return set()
  try:
    with tensor_files.open_npz(place) as arrays:
      return set(arrays)
  except (OSError, *tensor_files.DAMAGE) as error:
    raise UserError(f'{path} is no .npz that can be read; {_LAYOUT}.') from error


def write_reference(
  path: str | pathlib.Path, reference: Reference, found: Mapping[str, Statistics], provenance: str
) -> None:
  """Writes an .npz in ADM's layout, with `count` and `provenance` beside.

  Args:
    path: of the file.
    reference: whose images it gets, 10,000 at most, evenly spread, as `arr_0`.
    found: statistics of all its images.
    provenance: what the numbers are of.

  Raises:
    UserError: fewer than two images, or a path that cannot be written.
  """
  place, images = pathlib.Path(path).expanduser(), reference.images
  assert images is not None  # statistics were made of them
  positions = sorted(reference.positions())
  pool, spatial = found['pool'], found['spatial']
  arrays = dict(
    zip(_STATISTICS, (pool.mean, pool.covariance, spatial.mean, spatial.covariance), strict=True)
  )
  arrays |= {'count': np.asarray(pool.count), 'provenance': np.asarray(provenance)}
  header = {'descr': '|u1', 'fortran_order': False, 'shape': (len(positions), *images.size, 3)}
  try:
    with replacing(place) as partial, zipfile.ZipFile(partial, 'w') as archive:
      for name, array in arrays.items():
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as file:
          np.lib.format.write_array(file, array, allow_pickle=False)
      with archive.open('arr_0.npy', 'w', force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in images.batches(_BATCH, positions):
          file.write(np.ascontiguousarray(batch).data)
  except OSError as error:
    raise UserError(
      f'cannot write {path}: {reason(error, place)}; name a file in a folder that can be written.'
    ) from error
