"""Images of other programs: folders, and arrays in .npz files that are never read whole."""

import tracemalloc
import zipfile

import ml_collections
import numpy as np
import pytest
from golden_data import GOLDEN
from PIL import Image

from vqjax.data import default_data
from vqjax.data.folder import Folder
from vqjax.data.image_sets import Cut, open_images
from vqjax.errors import UserError


def pixels(count=5, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, 6, 8, 3), np.uint8)


def folder(root, images, name=lambda i: f'{i}.png'):
  for i, image in enumerate(images):
    (root / name(i)).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / name(i))
  return root


def read(images, batch_size=2, positions=None):
  batches = images.batches(batch_size, range(len(images)) if positions is None else positions)
  return np.concatenate(list(batches))


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_folder_and_array_are_the_same_images(tmp_path, save):
  x = pixels()
  save(tmp_path / 'x.npz', x)
  for images in (
    open_images(folder(tmp_path / 'x', x), 'samples'),
    open_images(tmp_path / 'x.npz', 'samples'),
  ):
    assert (len(images), images.size, images.labels) == (5, (6, 8), None)
    for batch_size in (1, 2, 5, 9):
      np.testing.assert_array_equal(read(images, batch_size), x)
    np.testing.assert_array_equal(read(images, 2, [1, 2, 4]), x[[1, 2, 4]])
    np.testing.assert_array_equal(read(images, 3, [4]), x[[4]])


def test_classes(tmp_path):
  x = pixels(4)
  images = open_images(folder(tmp_path / 'x', x, lambda i: f'{"ab"[i % 2]}/{i}.png'), 'samples')
  assert list(images.class_names) == ['a', 'b']
  np.testing.assert_array_equal(images.labels, [0, 0, 1, 1])
  np.testing.assert_array_equal(read(images), x[[0, 2, 1, 3]])
  assert open_images(folder(tmp_path / 'y', x, lambda i: f'one/{i}.png'), 'samples').labels is None
  generated = folder(tmp_path / 'g' / 'images', x, lambda i: f'{i:06}_{i % 2}.png')
  folder(tmp_path / 'g', x[:1], lambda i: 'sheet.png')
  (tmp_path / 'g' / 'generate.json').write_text('{}')
  for path in (generated, tmp_path / 'g'):
    np.testing.assert_array_equal(open_images(path, 'samples').labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(read(open_images(path, 'samples')), x)
  np.savez(tmp_path / 'x.npz', x, np.int32([3, 1, 3, 2]))
  np.testing.assert_array_equal(open_images(tmp_path / 'x.npz', 'samples').labels, [3, 1, 3, 2])


@pytest.mark.parametrize('name', ['ref', 'sample'])
def test_containers_of_adm(name):
  path = GOLDEN / f'generation/adm_npz_a_{name}.npz'
  images = open_images(path, 'reference')
  with np.load(path) as arrays:
    np.testing.assert_array_equal(read(images, 7), arrays['arr_0'])


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_an_array_is_read_batch_by_batch(tmp_path, save):
  x = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), np.uint8)
  save(tmp_path / 'x.npz', x)
  whole = x.nbytes
  del x
  tracemalloc.start()
  try:
    images = open_images(tmp_path / 'x.npz', 'samples')
    assert sum(len(batch) for batch in images.batches(4, range(200))) == 200
    assert tracemalloc.get_traced_memory()[1] < whole / 4
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'x': pixels()}, r'FILE has no images, arr_0 \(it has x\); legal: a folder of images, or an'),
    ({'arr_0': np.float32(pixels())}, r'arr_0 of float32 \[5, 6, 8, 3\]; legal: uint8 \[N H W 3\]'),
    ({'arr_0': pixels()[..., 0]}, r'arr_0 of uint8 \[5, 6, 8\]; legal: uint8'),
    ({'arr_0': pixels()[..., :2]}, r'arr_0 of uint8 \[5, 6, 8, 2\]; legal'),
    ({'arr_0': pixels(0)}, r'arr_0 of uint8 \[0, 6, 8, 3\]; legal'),
    ({'arr_0': np.asfortranarray(pixels())}, 'FILE is no .npz of images, or damaged; legal'),
    ({'arr_0': np.uint8(3)}, 'FILE is no .npz of images, or damaged; legal'),
    (
      {'arr_0': pixels(), 'arr_1': np.zeros(4, int)},
      r'arr_1 of int64 \[4\] beside 5 images; legal: classes, int \[5\], or no arr_1',
    ),
    ({'arr_0': pixels(), 'arr_1': np.zeros(5)}, r'arr_1 of float64 \[5\] beside 5 images'),
  ],
)
def test_arrays_that_are_no_images(arrays, message, tmp_path):
  path = tmp_path / 'x.npz'
  np.savez(path, **arrays)
  with pytest.raises(UserError, match=message.replace('FILE', str(path))):
    open_images(path, 'samples')


def test_what_is_damaged_or_not_there(tmp_path):
  with pytest.raises(UserError, match=r'--samples=/no/x does not exist \(looked in .*\); legal: a'):
    open_images('/no/x', 'samples')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=r'holds no image: .* choose another --samples'):
    open_images(tmp_path / 'empty', 'samples')
  path = tmp_path / 'x.npz'
  np.save(tmp_path / 'x.npy', pixels())
  with pytest.raises(UserError, match=r'x.npy is no .npz of images, or damaged'):
    open_images(tmp_path / 'x.npy', 'samples')
  # A header that says more than there is.
  np.savez(path, pixels())
  with zipfile.ZipFile(path) as archive:
    content = archive.read('arr_0.npy')
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('arr_0.npy', content[:-100])
  with pytest.raises(UserError, match=r'x.npz is no .npz of images, or damaged'):
    open_images(path, 'samples')
  # Bytes that are not those that were written.
  np.savez(path, pixels())
  damaged = bytearray(path.read_bytes())
  damaged[300] ^= 1
  path.write_bytes(damaged)
  with pytest.raises(UserError, match=r'x.npz is no .npz of images, or damaged'):
    read(open_images(path, 'samples'))


def test_images_of_several_sizes(tmp_path):
  folder(tmp_path, pixels())
  Image.new('RGB', (9, 6)).save(tmp_path / '3.png')
  with pytest.raises(UserError, match=r'3\.png has 9 x 6 pixels, and 0.png 8 x 6; all images must'):
    read(open_images(tmp_path, 'samples'))


def test_a_source_as_evaluation_cuts_it_and_whole(tmp_path):
  x = pixels(6)
  folder(tmp_path, x)
  data = ml_collections.ConfigDict({**default_data(), 'image_size': 6})
  cut = Cut(Folder(tmp_path), data)
  assert (len(cut), cut.size) == (6, (6, 6))
  np.testing.assert_array_equal(read(cut, 4), x[:, :, 1:-1])
  np.testing.assert_array_equal(read(cut, 4, [1, 4]), x[[1, 4], :, 1:-1])
  (tmp_path / '3.png').write_bytes(b'nothing')
  with pytest.raises(UserError, match=r'cannot read the image 3.png \(none of .*\); repair it, or'):
    read(cut, 4)
  np.testing.assert_array_equal(read(cut, 4, [1, 4]), x[[1, 4], :, 1:-1])
