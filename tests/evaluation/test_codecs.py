"""What JPEG and WebP make of images, against Pillow itself."""

import io

import numpy as np
import pytest
from PIL import Image

from vqjax.data.photos import Photos
from vqjax.evaluation import codecs


@pytest.fixture(scope='module')
def images():
  """Crops of photographs, uint8 [3 40 56 3]: sides that are no multiple of a JPEG block pair."""
  photos = Photos('eval')
  return np.stack([photos[i]['image'][: 40 * 2 : 2, : 56 * 2 : 2] for i in (0, 20, 40)])


def written(image, name, **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, name, **options)
  return file.getvalue()


@pytest.mark.parametrize('quality', [1, 40, 95])
def test_jpeg(images, quality):
  files = [written(x, 'JPEG', quality=quality, subsampling='4:2:0') for x in images]
  bits, pixels = codecs.coded(codecs.JPEG, images, quality)
  for file, decoded in zip(files, pixels, strict=True):
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(file))))
  # A header of three components: marker, length of 12, their tables. Then the scan, and a marker.
  scans = [len(file) - file.index(b'\xff\xda\x00\x0c') - 2 - 12 - 2 for file in files]
  assert bits == pytest.approx(8 * np.mean(scans) / (40 * 56))
  # What is not counted is alike in all of them.
  heads = {file[: len(file) - scan - 2] for file, scan in zip(files, scans, strict=True)}
  assert len(heads) == 1
  assert all(file.endswith(b'\xff\xd9') for file in files)


@pytest.mark.parametrize('quality', [0, 40, 100])
def test_webp(images, quality):
  files = [written(x, 'WEBP', quality=quality, method=6) for x in images]
  bits, pixels = codecs.coded(codecs.WEBP, images, quality)
  for file, decoded in zip(files, pixels, strict=True):
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(file)).convert('RGB')))
  # RIFF, length, WEBP, VP8, length: 20 bytes, and one to make the length even.
  assert bits == pytest.approx(
    8 * np.mean([len(file) - 20 for file in files]) / (40 * 56), abs=4e-3
  )
  with pytest.raises(ValueError, match=r"the first chunk is b'VP8L'; legal: VP8"):
    codecs.vp8_bytes(written(images[0], 'WEBP', lossless=True))
