"""Encoded bytes -> RGB pixels, for every kind of file that a folder of images turns up."""

import contextlib
import io
import warnings
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from vqjax.errors import printable

# Set once for the process, since warning filters are not thread-safe. A picture over Pillow's limit
# is an attack or an accident: unreadable. Corrupt metadata says nothing about the pixels.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.')

# Pillow goes by content, whatever a file is called, and some of its readers start a program:
# that of EPS runs Ghostscript. These only decode.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')

# One that is longer, with its shorter side brought to some hundred pixels, would fill the memory.
MAX_RATIO = 100  # of the longer side to the shorter

_ORIENTATION = 0x0112  # the EXIF tag; its value says how to bring the stored pixels upright
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
  2: lambda pixels: pixels[:, ::-1],
  3: lambda pixels: pixels[::-1, ::-1],
  4: lambda pixels: pixels[::-1],
  5: lambda pixels: pixels.swapaxes(0, 1),
  6: lambda pixels: np.rot90(pixels, -1),
  7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
  8: lambda pixels: np.rot90(pixels),
}


class UnreadableImage(Exception):
  """One image that cannot be read; `str` of it is `name (reason)`, without control characters."""

  def __init__(self, name: str, reason: str) -> None:
    super().__init__(f'{printable(name)} ({reason})')
    self.name = name


def decode(encoded: bytes, name: str) -> np.ndarray:
  """Decodes one image (the first frame, if it has many) to uint8 RGB [H W 3].

  EXIF rotation is applied and transparency is laid on white, neither of which the original
  codebases do; 16-bit grey is scaled to 8 bits; colour profiles are ignored, as they do.
  Raises `UnreadableImage`, with `name`, for whatever is not a whole image in one of `FORMATS`, or
  has one side more than `MAX_RATIO` times the other.
  """
  if not encoded:
    raise UnreadableImage(name, 'empty file')
  try:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
      if max(image.size) > MAX_RATIO * min(image.size):
        width, height = image.size
        raise ValueError(f'{width} x {height} pixels, of sides more than {MAX_RATIO} to 1')
      return _upright(_pixels(image, encoded), image)
  except UnidentifiedImageError:
    # Pillow's own words hold the address of a buffer.
    raise UnreadableImage(name, f'none of {", ".join(FORMATS)}') from None
  except Exception as error:
    # A broken file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error, ...
    raise UnreadableImage(name, str(error) or type(error).__name__) from error


def _pixels(image: Image.Image, encoded: bytes) -> np.ndarray:
  if image.format == 'JPEG' and image.mode in ('RGB', 'L'):
    # The decoder that Pillow has too, without Pillow's two copies of every picture. What it finds
    # any fault with, Pillow is asked about: it takes what libjpeg can make good.
    with contextlib.suppress(ValueError):
      return simplejpeg.decode_jpeg(encoded, 'RGB', strict=True)
  image.load()
  return np.asarray(_rgb(image))


def _rgb(image: Image.Image) -> Image.Image:
  if image.mode == 'RGB' and not image.has_transparency_data:
    return image
  if image.mode.startswith('I'):
    return _grey16(np.asarray(image)).convert('RGB')
  if image.mode == 'F':
    raise ValueError('floating-point pixels, which have no fixed range')
  if image.has_transparency_data:
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  return image.convert('RGB')


def _grey16(pixels: np.ndarray) -> Image.Image:
  # Pillow's own conversion clips at 255 and so turns nearly all of a 16-bit picture white.
  if pixels.min() < 0 or pixels.max() > 65535:
    raise ValueError('32-bit pixels, which have no fixed range')
  return Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
  try:
    orientation = image.getexif().get(_ORIENTATION)
  except Exception:
    return pixels  # broken metadata around a sound picture
  if orientation not in _UPRIGHT:
    return pixels
  return np.ascontiguousarray(_UPRIGHT[orientation](pixels))
