"""Reconstructs pictures of any size by a trained tokenizer.

python -m vqjax.reconstruct SOURCE --input=PICTURES --out=OUT [--step=N]

SOURCE is anything that `vqjax.load` takes. If PICTURES is a picture, OUT is a new file that ends in
.png. If it is a folder, OUT is a new folder, which gets a PNG of the same relative path for every
picture. The model is compiled once for every size, rounded up to whole tokens, and that takes
seconds: many pictures of one size are faster than of many sizes.
"""

import logging
import pathlib

import numpy as np
from PIL import Image

from vqjax import commands, pretrained
from vqjax.data.decode import UnreadableImage, decode
from vqjax.data.folder import image_names
from vqjax.errors import UserError
from vqjax.runs.log import ImageProgress
from vqjax.whole_files import reason, replacing

log = logging.getLogger('vqjax')


def reconstruct(
  tok: pretrained.Pretrained, pictures: str | pathlib.Path, out: str | pathlib.Path
) -> int:
  """Writes the reconstruction of every picture as a PNG; returns how many there are.

  Unreadable pictures are named in the log and left out. If two names differ in their suffix alone,
  all names keep theirs: a.jpg.png and a.bmp.png.

  Args:
    tok: the tokenizer.
    pictures: a picture, upright as its EXIF says, grey or not, any transparency laid on white; or a
      folder of them.
    out: a file that is not there yet, and ends in .png; or a folder, new or empty.

  Raises:
    UserError: none of the pictures can be read, or `out` cannot be written or holds something.
  """
  targets = _targets(pathlib.Path(pictures).expanduser(), pathlib.Path(out).expanduser())
  progress, unreadable = ImageProgress(len(targets)), 0
  for picture, target in targets.items():
    try:
      pixels = reconstruct_picture(tok, _read(picture))
    except UnreadableImage as error:
      unreadable += 1
      log.warning('skipped unreadable image %s; %d so far', error, unreadable)
    else:
      _write(target, pixels)
    progress.add(1)
  if unreadable == len(targets):
    raise UserError(
      f'none of {unreadable} pictures in {pictures} could be read; the log names them and says why:'
      ' mend them, or choose another --input.'
    )
  count = len(targets) - unreadable
  log.info('written: %d of %d pictures, %s', count, len(targets), out)
  return count


def reconstruct_picture(tok: pretrained.Pretrained, image: np.ndarray) -> np.ndarray:
  """One picture uint8 [H W 3] of any size -> its reconstruction, uint8 [H W 3]."""
  height, width = image.shape[:2]
  padded = pad_to_tokens(image, tok.model.downsample)
  return np.asarray(tok.reconstruct(padded[None]))[0, :height, :width]


def pad_to_tokens(image: np.ndarray, unit: int) -> np.ndarray:
  """Extends [H W 3] to multiples of `unit` below and on the right, by its mirror image.

  The outermost row is not repeated, unless it is the only one.
  """
  missing = [(0, -side % unit) for side in image.shape[:2]]
  return np.pad(image, [*missing, (0, 0)], mode='reflect')


def _targets(pictures, out):
  """{picture: PNG to write}, after a look that nothing is in the way."""
  if pictures.is_file():
    if out.suffix.lower() != '.png' or out.exists():
      state = 'is there already' if out.exists() else 'does not end in .png'
      raise UserError(f'--out={out} {state}; legal for a picture: a new file, for example new.png.')
    return {pictures: out}
  if not pictures.is_dir():
    raise UserError(
      f'--input={pictures} does not exist (looked in {pathlib.Path.cwd()}); legal: a picture, or a '
      'folder of pictures.'
    )
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise UserError(f'--out={out} is there already; legal for a folder: a new or empty folder.')
  names = image_names(pictures, 'choose another --input')
  stems = {name: name.rpartition('.')[0] for name in names}
  if len(set(stems.values())) < len(names):
    stems = {name: name for name in names}
  return {pictures / name: out / f'{stem}.png' for name, stem in stems.items()}


def _read(path):
  try:
    encoded = path.read_bytes()
  except OSError as error:
    raise UnreadableImage(str(path), error.strerror or str(error)) from error
  return decode(encoded, str(path))


def _write(path, pixels):
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
      Image.fromarray(pixels).save(partial, 'png')
  except OSError as error:
    raise UserError(
      f'cannot write {path}: {reason(error, path)}; make room, then run the same '
      'command with another --out.'
    ) from error


def _arguments(parser):
  parser.add_argument('source', metavar='SOURCE', help='a run folder, or a published checkpoint')
  parser.add_argument('--input', required=True, help='a picture, or a folder of pictures')
  parser.add_argument('--out', required=True, help='a .png of a picture, a new folder of a folder')
  parser.add_argument('--step', type=int, help='checkpoint of a run; the best by default')


def _main(args):
  reconstruct(pretrained.load(args.source, step=args.step), args.input, args.out)


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.reconstruct runs/rot_vqgan_demo --input=photo.jpg --out=again.png',
  interrupted='run the same command again, with another --out',
  memory='smaller pictures need less',
  workdir=True,
)

if __name__ == '__main__':
  commands.run(COMMAND)
