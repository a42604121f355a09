"""JPEG and lossy WebP, as Pillow writes them: what they make of images, and in how many bits.

Counted is what differs between the images of a set, as a tokenizer's weights are not counted with
its tokens. A small JPEG file is mostly headers and tables: 600 bytes, more than a bit a pixel of
64 x 64.
"""

import io
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


def scan_bytes(file: bytes) -> int:
  """Length of the entropy-coded scan of a baseline JPEG file, without the headers around it."""
  start_of_scan, place = 0xFFDA, 2  # behind the marker that begins the file
  while True:
    marker, length = struct.unpack_from('>HH', file, place)
    place += 2 + length
    if marker == start_of_scan:
      return len(file) - place - 2  # without the marker that ends it


def vp8_bytes(file: bytes) -> int:
  """Length of the VP8 chunk of a lossy WebP file, without the container around it.

  Raises:
    ValueError: a file of another kind.
  """
  name, length = struct.unpack_from('<4sI', file, 12)
  if name != b'VP8 ':
    raise ValueError(f'the first chunk is {name!r}; legal: VP8, of a plain lossy file.')
  return length


class Codec(NamedTuple):
  """A lossy format of pictures.

  Attributes:
    label: its name in tables.
    name: Pillow's.
    qualities: those that it has, the fewest bits first.
    options: of Pillow, beside the quality.
    count: bytes of a file that are counted.
    protocol: the options and the count in words.
  """

  label: str
  name: str
  qualities: range
  options: Mapping[str, Any]
  count: Callable[[bytes], int]
  protocol: str


JPEG = Codec(
  'JPEG',
  'JPEG',
  range(1, 96),
  {'subsampling': '4:2:0'},
  scan_bytes,
  'Pillow, 4:2:0, standard Huffman tables; bits of the entropy-coded scan, as headers and tables '
  'are the same in all files',
)
WEBP = Codec(
  'WebP',
  'WEBP',
  range(101),
  {'method': 6},
  vp8_bytes,
  'Pillow, lossy, method 6; bits of the VP8 chunk, without the container',
)


def coded(codec: Codec, images: Iterable[np.ndarray], quality: int) -> tuple[float, np.ndarray]:
  """Writes every image and reads it again: uint8 [N H W 3] -> (mean bits a pixel, the same)."""

  def of(image: np.ndarray) -> tuple[float, np.ndarray]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, codec.name, quality=quality, **codec.options)
    pixels = np.asarray(Image.open(file).convert('RGB'))
    return 8 * codec.count(file.getvalue()) / (pixels.shape[0] * pixels.shape[1]), pixels

  with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets other threads run meanwhile
    bits, pixels = zip(*pool.map(of, images), strict=True)
  return float(np.mean(bits)), np.stack(pixels)
