"""Pictures of any size and kind, there and back."""

import numpy as np
import pytest
from data.pictures import encoded, picture, png, write
from golden_data import CHECKPOINTS, checkpoint
from PIL import Image

import vqjax
from vqjax import commands, pretrained
from vqjax import reconstruct as command
from vqjax.reconstruct import pad_to_tokens, reconstruct, reconstruct_picture

NAME = next(name for name in CHECKPOINTS if name.startswith('vitvq'))
UNIT = 8


@pytest.fixture(scope='module')
def tok():
  return vqjax.load(checkpoint(NAME)[0])


def smooth(height, width):
  """A colour gradient: what is cut off, shifted or turned shows."""
  y, x = np.mgrid[:height, :width]
  return np.stack([255 * y // height, 255 * x // width, np.full_like(x, 90)], -1).astype(np.uint8)


def read(path):
  return np.asarray(Image.open(path))


@pytest.mark.parametrize('size', [(16, 16), (16, 8), (13, 15), (9, 1), (1, 1), (3, 50)], ids=str)
def test_padding_is_the_mirror_image_up_to_whole_tokens(size):
  image = picture(0, *size)
  padded = pad_to_tokens(image, UNIT)
  assert padded.shape == (*(-(-side // UNIT) * UNIT for side in size), 3)
  np.testing.assert_array_equal(padded[: size[0], : size[1]], image)
  rows, columns = (
    [-abs(i % (2 * (side - 1) or 1) - (side - 1)) + side - 1 for i in range(whole)]
    for side, whole in zip(size, padded.shape[:2], strict=True)
  )
  np.testing.assert_array_equal(padded, image[rows][:, columns])


def test_whole_tokens_are_left_as_they_are(tok):
  image = picture(0, 16, 16)
  np.testing.assert_array_equal(pad_to_tokens(image, UNIT), image)
  np.testing.assert_array_equal(reconstruct_picture(tok, image), tok.reconstruct(image[None])[0])


@pytest.mark.parametrize('size', [(13, 15), (9, 16), (16, 11)], ids=str)
def test_any_size_comes_back_at_its_own_without_the_padding(size, tok):
  image = picture(0, *size)
  padded = tok.reconstruct(pad_to_tokens(image, UNIT)[None])[0]
  found = reconstruct_picture(tok, image)
  assert (found.shape, found.dtype) == (image.shape, np.uint8)
  np.testing.assert_array_equal(found, padded[: size[0], : size[1]])


def test_a_folder_of_every_kind(tok, tmp_path, caplog):
  image, pictures = smooth(13, 15), tmp_path / 'pictures'
  exif = Image.Exif()
  exif[0x0112] = 6  # stored lying on its side
  alpha = np.concatenate([image, np.full((13, 15, 1), 255, np.uint8)], -1)
  alpha[:5, :, 3] = 0
  write(pictures / 'plain.png', png(image))
  write(pictures / 'deep/er/turned.png', png(np.rot90(image), exif=exif))
  write(pictures / 'deep/grey.bmp', encoded(image[..., 1], 'BMP'))
  write(pictures / 'palette.gif', encoded(Image.fromarray(image).quantize(200), 'GIF'))
  write(pictures / 'alpha.png', png(alpha))
  write(pictures / 'broken.jpg', b'nothing')
  write(pictures / 'notes.txt', b'no picture')
  with caplog.at_level('INFO', 'vqjax'):
    assert reconstruct(tok, pictures, tmp_path / 'out') == 5
  found = {
    path.relative_to(tmp_path / 'out').as_posix(): read(path)
    for path in (tmp_path / 'out').rglob('*.*')
  }
  assert sorted(found) == [
    'alpha.png',
    'deep/er/turned.png',
    'deep/grey.png',
    'palette.png',
    'plain.png',
  ]
  white = np.where(alpha[..., 3:] == 0, 255, image).astype(np.uint8)
  grey = image[..., [1, 1, 1]]
  for name, seen in (
    ('plain', image),
    ('deep/er/turned', image),
    ('deep/grey', grey),
    ('alpha', white),
  ):
    np.testing.assert_array_equal(found[f'{name}.png'], reconstruct_picture(tok, seen), name)
  assert found['palette.png'].shape == (13, 15, 3)
  assert 'broken.jpg (none of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM); 1 so far' in caplog.text
  assert caplog.messages[-1] == f'written: 5 of 6 pictures, {tmp_path / "out"}'


def test_names_that_differ_in_their_suffix_keep_it(tok, tmp_path):
  write(tmp_path / 'in/a.png', png(smooth(16, 16)))
  write(tmp_path / 'in/a.bmp', encoded(smooth(15, 14), 'BMP'))
  write(tmp_path / 'in/b.png', png(smooth(16, 16)))
  reconstruct(tok, tmp_path / 'in', tmp_path / 'out')
  found = {path.name: read(path).shape for path in (tmp_path / 'out').iterdir()}
  assert found == {'a.png.png': (16, 16, 3), 'a.bmp.png': (15, 14, 3), 'b.png.png': (16, 16, 3)}


def test_the_command_on_one_picture(tok, tmp_path, capsys):
  write(tmp_path / 'photo.jpg', encoded(smooth(13, 15), 'PNG'))
  args = [str(checkpoint(NAME)[0]), f'--input={tmp_path / "photo.jpg"}']
  commands.run(command.COMMAND, [*args, f'--out={tmp_path / "new/again.png"}'])
  again = read(tmp_path / 'new/again.png')
  np.testing.assert_array_equal(again, reconstruct_picture(tok, smooth(13, 15)))
  assert capsys.readouterr().out.splitlines()[-1].startswith('written: 1 of 1 pictures, ')


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    ([], r'error: .* required: SOURCE, --input, --out; for example: .* --input=photo.jpg --out='),
    (['x', '--input=y'], r'error: .* required: --out; for example: .* --out=again.png \('),
    (
      ['--input=no', '--out=x.png'],
      r'error: --input=no does not exist \(looked in /.*\); legal: a',
    ),
    (['--input=one.png', '--out=x'], r'error: --out=x does not end in .png; legal for a picture'),
    (['--input=one.png', '--out=one.png'], r'error: --out=one.png is there already; legal for a'),
    (['--input=full', '--out=full'], r'error: --out=full is there already; legal for a folder: a'),
    (['--input=full', '--out=one.png'], r'error: --out=one.png is there already; legal for a fol'),
    (['--input=empty', '--out=x'], r'error: empty holds no image: found no files, .*; choose ano'),
    (['--input=bad', '--out=x'], r'error: none of 1 pictures in bad could be read; the log names'),
    (['--input=bad/a.png', '--out=x.png'], r'error: none of 1 pictures in bad/a.png could be rea'),
    (['--input=one.png', '--out=one.png/x.png'], r'error: cannot write one.png/x.png: .*; make'),
  ],
  ids=lambda part: ' '.join(part) if isinstance(part, list) else '',
)
def test_a_mistake_gets_one_sentence(args, message, tmp_path, tok, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(tmp_path / 'one.png', png(smooth(16, 16)))
  write(tmp_path / 'full/a.png', png(smooth(16, 16)))
  write(tmp_path / 'bad/a.png', b'nothing')
  (tmp_path / 'empty').mkdir()
  if args and args[0] != 'x':
    args = ['run', *args]
    monkeypatch.setattr(pretrained, 'load', lambda source, step: tok)
  with pytest.raises(SystemExit, match=message) as error:
    commands.run(command.COMMAND, args)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'x').exists()
  assert read(tmp_path / 'one.png').shape == (16, 16, 3)
