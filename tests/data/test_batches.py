"""The promises about order, restarts, processes and unreadable images."""

import contextlib
import logging
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from pictures import ListSource, data_config, picture, png

from vqjax.data import eval_batches, train_batches, train_names
from vqjax.data.decode import UnreadableImage
from vqjax.errors import UserError

# Random crops and flips, so that a wrong random stream shows in the pixels.
AUGMENTED = {'resize': 'none', 'crop': 'random', 'flip': True}


def source(count=10):
  return ListSource([png(picture(seed)) for seed in range(count)])


def config(**fields):
  return data_config(**{'image_size': 8, 'threads': 2, 'train': AUGMENTED, **fields})


def train(src, steps, data=None, batch_size=4, seed=0, **kwargs):
  data = data or config()
  with contextlib.closing(
    train_batches(src, data, batch_size=batch_size, seed=seed, **kwargs)
  ) as batches:
    return [next(batches) for _ in range(steps)]


def evaluate(src, data=None, batch_size=4, **kwargs):
  data = data or config()
  with contextlib.closing(eval_batches(src, data, batch_size=batch_size, **kwargs)) as batches:
    return list(batches)


def join(batches, key='label'):
  return np.concatenate([batch[key] for batch in batches])


def assert_same(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for key in x:
      np.testing.assert_array_equal(x[key], y[key])


def test_shapes_and_types():
  (batch,) = train(source(), 1)
  assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
    'image': ((4, 8, 8, 3), 'uint8'),
    'label': ((4,), 'int32'),
  }
  batch = evaluate(source())[0]
  assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
    'image': ((4, 8, 8, 3), 'uint8'),
    'label': ((4,), 'int32'),
    'mask': ((4,), 'bool'),
  }


def test_every_epoch_has_every_example_once_in_a_new_order():
  order = join(train(source(10), 15, batch_size=2))
  epochs = order.reshape(3, 10)
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
    assert list(epoch) != list(range(10))
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_one_seed_one_run():
  assert_same(train(source(), 6), train(source(), 6))
  assert list(join(train(source(), 6))) != list(join(train(source(), 6, seed=1)))


def test_augmentation_changes_from_epoch_to_epoch_and_with_the_seed():
  one = ListSource([picture(0)])
  images = join(train(one, 3), 'image')
  assert len({image.tobytes() for image in images}) > 6
  assert not np.array_equal(images, join(train(one, 3, seed=1), 'image'))


@pytest.mark.parametrize('fields', [{'threads': 1}, {'threads': 7, 'prefetch': 1}, {'threads': 0}])
def test_threads_do_not_matter(fields):
  assert_same(train(source(), 8), train(source(), 8, config(**fields)))


@pytest.mark.parametrize('processes', [2, 4])
def test_interleaved_processes_make_the_batch_of_one(processes):
  whole = train(source(), 8, batch_size=8)
  parts = [
    train(source(), 8, batch_size=8, process_index=p, process_count=processes)
    for p in range(processes)
  ]
  for step, batch in enumerate(whole):
    for p in range(processes):
      share = {key: value[p::processes] for key, value in batch.items()}
      assert_same([parts[p][step]], [share])


@pytest.mark.parametrize('steps', [1, 3, 7])
def test_resume_is_exact(steps):
  unbroken = train(source(), 10)
  assert_same(train(source(), 10 - steps, start=4 * steps), unbroken[steps:])


def test_resume_with_other_processes_and_batch_size():
  images = join(train(source(), 10, batch_size=8), 'image')
  resumed = train(source(), 5, batch_size=4, start=24, process_index=1, process_count=2)
  np.testing.assert_array_equal(join(resumed, 'image'), images[24:44][1::2])


def test_the_examples_of_a_step_can_be_named_afterwards():
  drawn = join(train(source(), 6))
  names = train_names(source(), range(8, 24), seed=0)  # of steps 3 to 6, over an epoch's end
  assert names == [f'{index}.png' for index in drawn[8:24]]
  assert train_names(source(), range(8, 24), seed=1) != names


def test_names_can_be_printed_and_are_those_of_unreadable_images_too():
  class Named(ListSource):
    def __getitem__(self, index):
      name = f'{index}\x1b[31m\n.png'
      if self.images[index] is None:
        raise UnreadableImage(name, 'gone')
      return {**super().__getitem__(index), 'name': name}

  named = Named([None, picture(1), picture(2)])
  names = train_names(named, range(3), seed=0)
  assert sorted(names) == [rf'{index}\x1b[31m\n.png' for index in range(3)]


def test_resume_reads_nothing_of_what_went_before():
  src = source()
  data = config(threads=1, prefetch=1)
  train(src, 1, data, batch_size=1, start=10**12)
  assert len(src.reads) <= 3


def test_decoding_runs_ahead():
  src = source()
  everything_read = threading.Event()

  class Watched:
    description = ''

    def __len__(self):
      return len(src)

    def __getitem__(self, index):
      example = src[index]
      if len(src.reads) >= 12:
        everything_read.set()
      return example

  with contextlib.closing(
    train_batches(Watched(), config(prefetch=12), batch_size=1, seed=0)
  ) as batches:
    next(batches)
    # Nobody asks for more; the threads fetch it all the same.
    assert everything_read.wait(60)


@pytest.mark.parametrize('count', [1, 4, 5, 8])
@pytest.mark.parametrize('processes', [1, 2])
def test_eval_has_every_example_once_in_order(count, processes):
  src = source(count)
  parts = [evaluate(src, process_index=p, process_count=processes) for p in range(processes)]
  assert {len(part) for part in parts} == {-(-count // 4)}
  label, mask, image = (
    np.stack([join(part, key) for part in parts], 1).reshape(-1, *shape)
    for key, shape in (('label', ()), ('mask', ()), ('image', (8, 8, 3)))
  )
  assert len(mask) % 4 == 0
  assert mask.tolist() == [True] * count + [False] * (len(mask) - count)
  assert label[mask].tolist() == list(range(count))
  assert not image[~mask].any()
  data = config(eval={'resize': 'none'})
  image = join(evaluate(src, data), 'image')
  np.testing.assert_array_equal(image[0], picture(0)[2:10, 4:12])


def test_eval_limit():
  batches = evaluate(source(10), limit=5)
  assert join(batches)[join(batches, 'mask')].tolist() == [0, 1, 2, 3, 4]
  assert join(evaluate(source(3), limit=5), 'mask').sum() == 3
  assert evaluate(source(3), limit=0) == []


@pytest.mark.parametrize('processes', [1, 2])
def test_eval_from_the_middle_is_the_end_of_the_whole(processes):
  data = config(eval=AUGMENTED)
  whole = evaluate(source(10), data, batch_size=2)
  parts = [
    evaluate(
      source(10), data, start=4, limit=9, process_index=p, process_count=processes, batch_size=4
    )
    for p in range(processes)
  ]
  for key in ('image', 'label', 'mask'):
    joined = np.stack([join(part, key) for part in parts], 1)
    joined = joined.reshape(-1, *joined.shape[2:])
    np.testing.assert_array_equal(joined[:5], join(whole, key)[4:9])
    assert not joined[5:].any()
    assert len(joined) == 8


def test_random_eval_crops_repeat():
  data = config(eval=AUGMENTED)
  first = evaluate(source(), data)
  assert_same(first, evaluate(source(), data))
  again = join(evaluate(ListSource([picture(0)] * 8), data), 'image')
  assert len({image.tobytes() for image in again}) > 3


def test_unreadable_training_image_gives_its_place_to_the_next(caplog):
  images = [png(picture(seed)) for seed in range(6)]
  sound = train(ListSource(images), 9)
  broken = list(images)
  broken[2] = images[2][:-40]
  broken[5] = b'<html>'
  with caplog.at_level(logging.WARNING, 'vqjax'):
    got = train(ListSource(broken), 9, config(max_unreadable=0.3))
  label, want = join(got), join(sound)
  replaced = np.where(want == 2, 3, np.where(want == 5, 0, want))
  np.testing.assert_array_equal(label, replaced)
  kept = label == want
  np.testing.assert_array_equal(join(got, 'image')[kept], join(sound, 'image')[kept])
  lines = sorted(record.getMessage() for record in caplog.records)
  # Each once, in whichever order the threads met them.
  assert [line.split(';')[0] for line in lines] == [
    f'skipped unreadable image 2.png ({lines[0].split("(")[1].split(")")[0]})',
    'skipped unreadable image 5.png (none of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM)',
  ]
  assert sorted(line.split('; ')[1] for line in lines) == ['1 so far', '2 so far']


@pytest.mark.parametrize(('count', 'tries'), [(3, 3), (40, 16)])
def test_nothing_but_unreadable_images(count, tries):
  bad = ListSource([b'x'] * count)
  with (
    contextlib.closing(
      train_batches(bad, config(max_unreadable=1.0), batch_size=2, seed=0)
    ) as batches,
    pytest.raises(
      UserError, match=rf'{tries} images in a row .* a list of pictures, nor .*; the log names'
    ),
  ):
    next(batches)


def damaged(count, first, last):
  """Pictures of which a whole stretch is unreadable."""
  src = source(count)
  src.images[first:last] = [b'x'] * (last - first)
  return src


@pytest.mark.parametrize('processes', [1, 2])
def test_a_long_stretch_of_unreadable_images_gives_its_place_to_one_example(processes):
  """Whatever the threads, the processes and the restarts."""
  data = config(max_unreadable=0.5, threads=3)
  want, got = join(train(source(60), 30)), train(damaged(60, 10, 40), 30, data)
  np.testing.assert_array_equal(join(got), np.where((want >= 10) & (want < 40), 40, want))
  for p in range(processes):
    resumed = train(
      *(damaged(60, 10, 40), 20, config(max_unreadable=0.5, threads=1)),
      start=40,
      process_index=p,
      process_count=processes,
    )
    share = [{key: value[p::processes] for key, value in batch.items()} for batch in got[10:]]
    assert_same(resumed, share)


@pytest.mark.parametrize(('allowed', 'unreadable'), [(0.1, 6), (0.1, 7), (0.0, 1), (0.001, 1)])
def test_a_share_of_unreadable_images_is_borne_and_no_more(allowed, unreadable):
  """Of 60; an epoch meets them all."""
  src = damaged(60, 0, unreadable)
  data = config(max_unreadable=allowed, threads=1)
  if unreadable <= np.ceil(allowed * 60):
    train(src, 15, data)
    # None is asked for twice.
    train(src, 45, data)
    assert all(src.reads.count(i) == 2 for i in range(unreadable))
    return
  with pytest.raises(UserError, match=rf'^{unreadable} images .* data.max_unreadable={allowed} of'):
    train(src, 15, data)


def test_fields_that_are_no_shares_or_durations():
  with pytest.raises(UserError, match=r'data.max_unreadable is 1.5; give a fraction, from 0 to 1'):
    train(source(), 1, config(max_unreadable=1.5))
  with pytest.raises(UserError, match=r'data.stall_seconds is -1; give 0, which means never'):
    evaluate(source(), config(stall_seconds=-1))


def test_unreadable_held_out_image_is_masked(caplog):
  src = source(4)
  src.images[1] = b''
  (batch,) = evaluate(src)
  assert batch['mask'].tolist() == [True, False, True, True]
  assert not batch['image'][1].any()
  assert 'skipped unreadable image 1.png (empty file); 1 so far' in caplog.text


def test_error_in_a_thread_reaches_the_consumer_with_the_file():
  data = config(train={'resize': 'none', 'small': 'error'}, image_size=14)
  with pytest.raises(UserError, match=r'^0.png: an image of 12 x 16 pixels is smaller than'):
    train(source(1), 1, data)


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  [
    ({'batch_size': 6}, r'batch_size is 6; give a multiple of the number of processes, 4'),
    ({'batch_size': 0}, r'batch_size is 0; .* 1 or more'),
    ({'start': 2}, r'the number of examples already seen is 2; give a multiple .* 4'),
  ],
)
def test_wrong_numbers(kwargs, message):
  with pytest.raises(UserError, match=message):
    train(source(), 1, process_count=4, **kwargs)


def test_wrong_transform_shows_before_anything_is_read():
  src = source()
  with pytest.raises(UserError, match=r'data.train.crop'):
    train_batches(src, config(train={'crop': 'x'}), batch_size=2, seed=0)
  with pytest.raises(UserError, match=r'data.eval.crop'):
    eval_batches(src, config(eval={'crop': 'x'}), batch_size=2)
  assert src.reads == []


def test_close_stops_the_threads_and_leaves_no_file_open():
  before = set(threading.enumerate())
  files = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else None
  for _ in range(3):
    batches = train_batches(source(), config(prefetch=50), batch_size=2, seed=0)
    next(batches)
    mine = set(threading.enumerate()) - before
    assert mine
    batches.close()
    batches.close()
    for thread in mine:
      thread.join(60)
      assert not thread.is_alive()
    with pytest.raises(ValueError, match='closed'):
      next(batches)
  if files is not None:
    assert set(os.listdir('/proc/self/fd')) == files


def test_leaving_without_close_prints_nothing_and_imports_no_tensorflow():
  code = (
    'import sys\n'
    'from vqjax.data import default_data, make_source, train_batches, eval_batches\n'
    'from ml_collections import ConfigDict\n'
    'data = ConfigDict({**default_data(), "source": "photos", "image_size": 32})\n'
    'batches = train_batches(make_source(data, "train"), data, batch_size=2, seed=0)\n'
    'assert next(batches)["image"].shape == (2, 32, 32, 3)\n'
    'for name in ("tensorflow", "tensorflow_datasets", "skimage", "sklearn", "torch"):\n'
    '  assert name not in sys.modules, name\n'
  )
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert (run.returncode, run.stdout, run.stderr) == (0, '', '')
