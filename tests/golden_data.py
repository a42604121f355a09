"""Reading the golden files."""

import atexit
import functools
import json
import lzma
import os
import pathlib
import shutil
import tempfile

import numpy as np

# The repository keeps the small ones; VQJAX_GOLDEN names a folder with all that were made. What is
# expected of either is named: a missing file fails its tests and does not take them along.
OUTSIDE = os.environ.get('VQJAX_GOLDEN')
GOLDEN = pathlib.Path(OUTSIDE or pathlib.Path(__file__).parent / 'golden')
LARGE = (
  'ldm_rot_t3_a',
  'ldm_vq_f4_a',
  'optvq_16x16x4_a',
  'rot_t1_f4_euclidean_a',
  'taming_f16_1024_a',
)
CHECKPOINTS = sorted(
  (
    'llamagen_vq16_a',
    'maskgit_f16_a',
    'optvq_cifar10_compiled_a',
    'optvq_hf_a',
    'rot_t1_f8_cosine_a',
    'taming_flat_legacy_a',
    'vitvq_rot_small_a',
    *(LARGE if OUTSIDE else ('tiny_ok',)),
  )
)


def load(name):
  """Arrays of `tests/golden/NAME.npz` as a dict."""
  with np.load(GOLDEN / f'{name}.npz', allow_pickle=False) as data:
    return dict(data)


@functools.cache
def checkpoint(name, folder='checkpoints'):
  """A published checkpoint: (its path, arrays that went in and came out, its sidecar).

  Of a golden of `generation` without weights the path is None.
  """
  sidecar = json.loads((GOLDEN / folder / f'{name}.json').read_text())
  path = (
    _unpacked(GOLDEN / folder / sidecar['file']) if isinstance(sidecar.get('file'), str) else None
  )
  return path, load(f'{folder}/{name}.io'), sidecar


def compare(sidecar, name, ours, theirs):
  """Holds an array to the tolerance beside it."""
  rule = sidecar['arrays'][name]
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape
  if rule.get('exact'):
    np.testing.assert_array_equal(ours, theirs, name)
  elif 'tol_of_max' in rule:
    assert np.abs(ours - theirs).max() <= rule['tol_of_max'] * np.abs(theirs).max(), name
  else:
    np.testing.assert_allclose(ours, theirs, atol=rule['atol'], rtol=rule['rtol'], err_msg=name)


def _unpacked(path):
  """The file or folder itself, or a copy of it with the .xz of its files undone."""
  packed = [*path.glob('*.xz'), *path.parent.glob(f'{path.name}.xz')]
  if not packed:
    return path
  copy = pathlib.Path(_scratch()) / path.name
  if path.is_dir():
    shutil.copytree(path, copy)
  for file in packed:
    target = (copy if path.is_dir() else copy.parent) / file.name.removesuffix('.xz')
    target.write_bytes(lzma.decompress(file.read_bytes()))
  return copy


@functools.cache
def _scratch():
  folder = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, folder)
  return folder
