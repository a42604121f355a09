"""Every kind of file that people have in their folders, against the colours that went in."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import simplejpeg
from pictures import encoded, picture, png
from PIL import EpsImagePlugin, Image, ImageCms, ImageOps

from vqjax.data.decode import UnreadableImage, decode

RED = (200, 30, 60)


def flat(colour, mode='RGB', size=(16, 8)):
  return Image.new(mode, size, colour)


def assert_flat(pixels, colour, shape=(8, 16, 3), within=0):
  assert pixels.dtype == np.uint8
  assert pixels.shape == shape
  assert np.abs(pixels.astype(int) - np.array(colour)).max() <= within


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_lossless_formats_give_the_pixels_back(kind):
  pixels = picture(0)
  np.testing.assert_array_equal(decode(encoded(pixels, kind), 'x'), pixels)


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_lossy_formats_keep_the_colour(kind):
  assert_flat(decode(encoded(flat(RED), kind, quality=95), 'x'), RED, within=4)


def photograph():
  rows, columns = np.mgrid[:61, :83]  # no multiples of a block
  waves = [np.sin(rows / (5 + c)) * np.cos(columns / (7 - c)) for c in range(3)]
  noise = np.random.default_rng(0).normal(0, 12, (61, 83, 3))
  return np.clip(np.stack(waves, -1) * 90 + 128 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('quality', [20, 75, 95])
@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'restart_marker_blocks': 3}])
@pytest.mark.parametrize('mode', ['4:2:0', '4:2:2', '4:4:4', 'RGB', 'L', 'CMYK'])
def test_a_jpeg_is_what_pillow_makes_of_it(mode, options, quality):
  image = Image.fromarray(photograph())
  if mode == 'RGB':
    options = {**options, 'keep_rgb': True}
  elif mode in ('L', 'CMYK'):
    image = image.convert(mode)
  else:
    options = {**options, 'subsampling': mode}
  file = encoded(image, 'JPEG', quality=quality, **options)
  with Image.open(io.BytesIO(file)) as pillows:
    np.testing.assert_array_equal(decode(file, 'x'), np.asarray(pillows.convert('RGB')))


@pytest.mark.parametrize('progressive', [False, True])
def test_a_jpeg_of_which_anything_is_missing_is_unreadable(progressive):
  file = encoded(photograph(), 'JPEG', progressive=progressive)
  start = file.rindex(b'\xff\xda')  # of the last scan
  for end in (100, start, start + 20, len(file) - 40):
    with pytest.raises(UnreadableImage, match=r'^x \(.+\)$'):
      decode(file[:end], 'x')


def test_a_jpeg_that_can_be_made_good_is_what_pillow_makes_of_it():
  file = encoded(photograph(), 'JPEG', quality=95)
  damaged = file[:-200] + bytes(20) + file[-180:-2] + b'some bytes before the end\xff\xd9'
  with pytest.raises(ValueError, match='Corrupt JPEG data'):
    simplejpeg.decode_jpeg(damaged, strict=True)
  with Image.open(io.BytesIO(damaged)) as pillows:
    np.testing.assert_array_equal(decode(damaged, 'x'), np.asarray(pillows))


def test_grey_is_spread_over_three_channels():
  assert_flat(decode(png(flat(77, 'L')), 'x'), (77, 77, 77))
  assert_flat(decode(png(flat(1, '1')), 'x'), (255, 255, 255))


def test_16_bit_grey_is_scaled_not_clipped():
  ramp = np.array([[0, 257, 1000, 32768, 65535]], np.uint16)
  pixels = decode(png(ramp), 'x')
  np.testing.assert_array_equal(pixels[0, :, 0], [0, 1, 4, 128, 255])
  np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
  np.testing.assert_array_equal(decode(encoded(ramp, 'TIFF'), 'x'), pixels)


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_pixels_without_a_fixed_range_are_unreadable(mode):
  with pytest.raises(UnreadableImage, match='no fixed range'):
    decode(encoded(flat(70_000, mode), 'TIFF'), 'x')


def test_palette():
  image = flat(RED).quantize(4)
  assert image.mode == 'P'
  assert_flat(decode(png(image), 'x'), RED)


def test_transparent_palette_lies_on_white():
  image = Image.new('P', (16, 8), 0)
  image.putpalette([0, 0, 0, *RED])
  image.paste(1, (0, 0, 8, 8))
  pixels = decode(png(image, transparency=0), 'x')
  assert_flat(pixels[:, :8], RED, (8, 8, 3))
  assert_flat(pixels[:, 8:], (255, 255, 255), (8, 8, 3))


def test_alpha_lies_on_white():
  half = [(c + 255) / 2 for c in RED]
  assert_flat(decode(png(flat((*RED, 128), 'RGBA')), 'x'), half, within=1)
  assert_flat(decode(png(flat((100, 0), 'LA')), 'x'), (255, 255, 255))
  # A single colour of an RGB picture declared transparent.
  assert_flat(decode(png(flat(RED), transparency=RED), 'x'), (255, 255, 255))


def test_adobe_cmyk_is_not_inverted():
  # No cyan, full magenta and yellow, no black: red.
  pixels = decode(encoded(flat((0, 255, 255, 0), 'CMYK'), 'JPEG', quality=100), 'x')
  assert_flat(pixels, (255, 0, 0), within=3)


def test_adobe_ycck():
  # The same red: its inks, taken for RGB, are stored as YCbCr (YCCK turns inks to light, and Adobe
  # stores them inverted: the two cancel). Pillow writes no YCCK; a flag in its marker makes one.
  y, cb, cr = flat((0, 255, 255)).convert('YCbCr').getpixel((0, 0))
  stored = encoded(flat((255 - y, 255 - cb, 255 - cr, 0), 'CMYK'), 'JPEG', quality=100)
  at = stored.index(b'Adobe') + len(b'Adobe') + 6
  assert stored[at] == 0
  ycck = stored[:at] + b'\x02' + stored[at + 1 :]
  assert_flat(decode(ycck, 'x'), (255, 0, 0), within=4)


def test_colour_profile_is_ignored():
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  assert_flat(decode(png(flat(RED), icc_profile=profile), 'x'), RED)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_exif_rotation(orientation, kind):
  upright = picture(1, 5, 7)
  # The definition: which side of the upright picture the stored rows and columns start from.
  stored = {
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.transpose(1, 0, 2),
    6: np.rot90(upright, 1),
    7: np.rot90(upright.transpose(1, 0, 2), 2),
    8: np.rot90(upright, -1),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = encoded(np.ascontiguousarray(stored), kind, exif=exif)
  np.testing.assert_array_equal(decode(file, 'x'), upright)


def test_exif_rotation_of_a_jpeg():
  exif = Image.Exif()
  for orientation in range(1, 9):
    exif[0x0112] = orientation
    file = encoded(photograph(), 'JPEG', exif=exif)
    with Image.open(io.BytesIO(file)) as image:
      upright = np.asarray(ImageOps.exif_transpose(image))
    got = decode(file, 'x')
    np.testing.assert_array_equal(got, upright)
    assert got.flags.c_contiguous


@pytest.mark.parametrize(
  'exif', [b'Exif\0\0garbage', b'Exif\0\0II*\0\xff\xff\xff\x7f', b'Exif\0\0']
)
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])  # Pillow warns of the one, raises for the other
@pytest.mark.filterwarnings('ignore::UserWarning')
def test_broken_exif_costs_nothing_but_the_rotation(exif, kind):
  assert_flat(decode(encoded(flat(RED), kind, exif=exif), 'x'), RED, within=6)


def test_first_frame_of_many():
  frames = [flat(RED), flat((0, 255, 0))]
  for kind in ('GIF', 'TIFF', 'WEBP'):
    options = {'lossless': True} if kind == 'WEBP' else {}
    file = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(file)) as image:
      assert image.n_frames == 2
    assert_flat(decode(file, 'x'), RED)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF', 'WEBP', 'BMP', 'TIFF'])
def test_truncated(kind):
  file = encoded(picture(2, 64, 64), kind)
  with pytest.raises(UnreadableImage, match=r'^a/b\.img \(.+\)$') as raised:
    decode(file[: len(file) // 2], 'a/b.img')
  assert raised.value.name == 'a/b.img'


def test_corrupt():
  file = png(picture(3, 64, 64))
  middle = len(file) // 2
  with pytest.raises(UnreadableImage):
    decode(file[:middle] + bytes(16) + file[middle + 16 :], 'x')
  with pytest.raises(UnreadableImage, match='none of JPEG, '):
    decode(b'<html>404</html>', 'x')
  with pytest.raises(UnreadableImage, match='empty file'):
    decode(b'', 'x')


def test_a_name_forges_no_line():
  name = 'bad\x1b[31m\nfake log line \udcff ünïcode.jpg'  # \udcff: a byte that is no UTF-8
  with pytest.raises(UnreadableImage) as raised:
    decode(b'', name)
  assert str(raised.value) == r'bad\x1b[31m\nfake log line \udcff ünïcode.jpg (empty file)'
  assert raised.value.name == name


@pytest.mark.parametrize('size', [(1, 101), (101, 1), (3, 60_000)])
def test_a_picture_of_extreme_sides_is_unreadable(size):
  with pytest.raises(
    UnreadableImage, match=f'{size[0]} x {size[1]} pixels, of sides more than 100 '
  ):
    decode(encoded(flat(RED, size=size), 'PNG'), 'x')
  assert decode(encoded(flat(RED, size=(1, 100)), 'PNG'), 'x').shape == (100, 1, 3)


def test_a_picture_starts_no_program(tmp_path, monkeypatch):
  """Pillow has Ghostscript read an EPS, whatever its name is."""
  program, started = tmp_path / 'gs', tmp_path / 'started'
  program.write_text(f'#!/bin/sh\ntouch {started}\n')
  program.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
  monkeypatch.setattr(EpsImagePlugin, 'gs_binary', None)  # look for it anew
  file = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'
  with contextlib.suppress(OSError), Image.open(io.BytesIO(file)) as image:
    image.load()
  assert started.exists()  # or else this test shows nothing
  started.unlink()
  with pytest.raises(UnreadableImage, match='none of JPEG, '):
    decode(file, 'y.jpg')
  assert not started.exists()


def test_warnings_of_pillow(tmp_path):
  # In a process of its own, where only the filters that the package sets are in force.
  exif = b'Exif\0\0II*\0\x08\0\0\0\xff\xff'
  (tmp_path / 'exif.jpg').write_bytes(encoded(flat(RED), 'JPEG', exif=exif))
  # A header that promises 10000 x 10000 pixels: Pillow warns of it, but would go on.
  bomb = bytearray(png(flat(0, '1')))
  bomb[16:24] = struct.pack('>II', 10_000, 10_000)
  bomb[29:33] = struct.pack('>I', zlib.crc32(bomb[12:29]))
  (tmp_path / 'bomb.png').write_bytes(bomb)
  code = (
    'from vqjax.data.decode import UnreadableImage, decode\n'
    'assert decode(open("exif.jpg", "rb").read(), "x").shape == (8, 16, 3)\n'
    'try:\n'
    '  decode(open("bomb.png", "rb").read(), "bomb.png")\n'
    'except UnreadableImage as error:\n'
    '  print(error)\n'
  )
  run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
  assert (run.returncode, run.stderr) == (0, '')
  assert run.stdout.startswith('bomb.png (')
  assert 'decompression bomb' in run.stdout
