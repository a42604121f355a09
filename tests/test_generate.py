"""Images by the function and the command, broken off, shared out, and in every form."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_generator
from golden_data import CHECKPOINTS, checkpoint
from PIL import Image

import vqjax
from vqjax import commands, generate, generated, generator_sources
from vqjax.errors import UserError
from vqjax.report import pictures
from vqjax.runs.lock import locked

ROOT = pathlib.Path(__file__).parent.parent
TOKENIZER = checkpoint(next(name for name in CHECKPOINTS if name.startswith('vitvq')))[0]
COUNT = 20  # two batches and a half

pytestmark = pytest.mark.xdist_group('generate')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  config = tiny_generator.config_of(vqjax.load(TOKENIZER))
  config.class_names = ['ape', 'bee', 'cat']
  return tiny_generator.write_run(tmp_path_factory.mktemp('runs') / 'run', config)


@pytest.fixture(scope='module')
def gen(run):
  return vqjax.load_generator(run)


@pytest.fixture(scope='module')
def whole(gen, tmp_path_factory):
  """What an unbroken call leaves: (folder, record)."""
  out = tmp_path_factory.mktemp('generated') / 'whole'
  return out, generate.generate(gen, out, COUNT, batch_size=8, npz=True)


def contents(folder):
  """By name; without locks, which say who wrote it."""
  files = [path for path in folder.rglob('*') if path.is_file() and '.lock-' not in path.name]
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pixels(folder):
  return np.stack([np.asarray(Image.open(p)) for p in sorted((folder / 'images').iterdir())])


def test_a_folder_says_what_is_in_it(whole, gen, run):
  out, record = whole
  assert json.loads((out / 'generate.json').read_text()) == record
  assert record['sampler']['name'] == 'HaltonSampler'
  assert (record['sampler']['steps'], record['sampler']['guidance']) == (4, 2)
  assert (record['num_images'], record['image_size'], record['finished']) == (COUNT, [16, 16], True)
  assert (record['source'], record['step'], record['seed']) == (str(run), 0, 0)
  assert record['weights_sha256'] == gen.weights_sha256
  assert record['tokenizer_sha256'] == gen.tokenizer.weights_sha256
  names = [f'images/{n:06d}_{n % 3}.png' for n in range(COUNT)]
  assert sorted(contents(out)) == ['generate.json', *names, 'samples.npz', 'sheet.png']


def test_image_n_is_what_sample_gives_for_n(whole, gen):
  labels = np.arange(COUNT) % 3
  np.testing.assert_array_equal(pixels(whole[0]), gen.sample(labels, key=0))


def test_all_images_in_one_array_as_the_adm_evaluator_reads_it(whole):
  with np.load(whole[0] / 'samples.npz') as arrays:
    assert arrays.files == ['arr_0', 'arr_1']
    np.testing.assert_array_equal(arrays['arr_1'], np.arange(COUNT) % 3)
    assert arrays['arr_0'].dtype == np.uint8
    np.testing.assert_array_equal(arrays['arr_0'], pixels(whole[0]))


def test_the_sheet_has_a_row_of_each_class(whole):
  sheet = np.asarray(Image.open(whole[0] / 'sheet.png'))
  assert sheet.shape == (3 * 50 - 2, 7 * 50 - 2, 3)  # images of 16 pixels, three times as large
  images = pixels(whole[0])
  third = images[7].repeat(3, axis=0).repeat(3, axis=1)  # of class 1
  np.testing.assert_array_equal(sheet[50:98, 100:148], third)
  assert (sheet[100:, -48:] == 255).all()  # class 2 has one image less


@pytest.mark.parametrize('classes', [1, 3, 17, 40], ids='{} classes'.format)
def test_the_sheet_has_the_first_images_where_rows_of_classes_show_few(classes, tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), np.uint8)
  files = [tmp_path / f'{n}.png' for n in range(40)]
  for file, image in zip(files, images, strict=True):
    generated.write_png(file, image)
  labels = np.arange(40, dtype=np.int32) % classes
  if classes == 3:  # of which there are as many images
    files, labels = files[:3], labels[:3]
  sheet = generated.sheet(files, labels)
  np.testing.assert_array_equal(sheet, pictures.grid(images[: len(files)], 8))


@pytest.mark.parametrize('done', [0, 9])
def test_broken_off_and_gone_on_with_it_is_the_same(done, whole, gen, tmp_path, monkeypatch):
  out, written, write = tmp_path / 'out', [], generated.write_png

  def some(path, image):
    if len(written) >= done:
      raise KeyboardInterrupt
    written.append(path)
    write(path, image)

  monkeypatch.setattr(generated, 'write_png', some)
  with pytest.raises(KeyboardInterrupt):
    generate.generate(gen, out, COUNT, batch_size=8, npz=True)
  monkeypatch.undo()
  assert json.loads((out / 'generate.json').read_text())['finished'] is False
  assert not (out / 'sheet.png').exists()
  kept = {path: path.stat().st_mtime_ns for path in written[:8]}
  assert generate.generate(gen, out, COUNT, batch_size=8, npz=True) == whole[1]
  assert contents(out) == contents(whole[0])
  assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize('batch_size', [16, 24])
def test_the_batch_size_changes_nothing(batch_size, whole, gen, tmp_path):
  generate.generate(gen, tmp_path / 'out', COUNT, batch_size=batch_size, npz=True)
  assert contents(tmp_path / 'out') == contents(whole[0])


def test_processes_share_the_images(whole, gen, tmp_path, caplog):
  share = lambda i: generate.generate(
    gen, tmp_path / 'out', COUNT, batch_size=8, npz=True, process_index=i, process_count=2
  )
  with caplog.at_level('INFO', 'vqjax'):
    assert share(1)['finished'] is False
  assert '12 of 20 images are still to come from other processes' in caplog.text
  assert [p.name[:6] for p in sorted((tmp_path / 'out/images').iterdir())] == [
    f'{n:06d}' for n in range(8, 16)
  ]
  assert share(0) == whole[1]
  assert contents(tmp_path / 'out') == contents(whole[0])


def test_one_process_completes_the_folder(whole, gen, tmp_path, caplog):
  out = tmp_path / 'out'
  make = lambda: generate.generate(gen, out, COUNT, batch_size=8, npz=True)
  with locked(out, '--out', '.lock-finish'):
    (out / '.samples.npz.host.1').write_text('what its holder is writing')
    with caplog.at_level('INFO', 'vqjax'):
      assert make()['finished'] is False
    assert caplog.messages[-1] == f'all 20 images are there; another process completes {out}'
    assert not (out / 'sheet.png').exists()
    assert (out / '.samples.npz.host.1').exists()
  assert make() == whole[1]
  assert contents(out) == contents(whole[0])


def test_a_finished_folder_stays_and_gets_what_it_lacks(whole, gen, caplog):
  out, record = whole
  before = contents(out)
  with caplog.at_level('INFO', 'vqjax'):
    assert generate.generate(gen, out, COUNT, batch_size=8) == record
  assert caplog.messages[0].startswith('0 of 20 images are to be made here')
  (out / 'samples.npz').unlink()
  sorted((out / 'images').iterdir())[11].unlink()
  generate.generate(gen, out, COUNT, batch_size=8, npz=True)
  assert contents(out) == before


def test_a_folder_of_something_else_is_refused(whole, gen, tmp_path):
  out = whole[0]
  with pytest.raises(
    UserError,
    match=r'holds other images \(sampler.guidance: 2.0 there, 3.0 now; seed: 0 there, 1 now\); cho',
  ):
    generate.generate(gen, out, COUNT, batch_size=8, seed=1, guidance=3.0)
  with pytest.raises(
    UserError, match=r'\(classes: None there, \[1\] now; num_images: 20 there, 2 n'
  ):
    generate.generate(gen, out, 2, batch_size=8, classes=[1])
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(
    UserError, match=r'holds notes.txt but no generate.json; choose another --out'
  ):
    generate.generate(gen, tmp_path, 2, batch_size=8)
  with (
    locked(tmp_path / 'out', '--out', '.lock-0'),
    pytest.raises(UserError, match=r'out is in use by process \d+ on .*--out='),
  ):
    generate.generate(gen, tmp_path / 'out', 2, batch_size=8)
  (tmp_path / 'out/generate.json').write_text('{"format": 9}')
  with pytest.raises(
    UserError, match=r'generate.json cannot be read \(it is of format 9, legal her'
  ):
    generate.generate(gen, tmp_path / 'out', 2, batch_size=8)


def test_labels(gen):
  of = lambda *args: generate.labels_of(gen, *args).tolist()
  assert of(7) == [0, 1, 2, 0, 1, 2, 0]
  assert of(5, [2, 0]) == [2, 0, 2, 0, 2]
  drawn = of(300, None, 'random', 4)
  assert drawn[:100] == of(
    100, None, 'random', 4
  )  # image n's does not depend on how many there are
  assert drawn != of(300, None, 'random', 5)
  assert min(np.bincount(drawn, minlength=3)) > 70
  assert set(of(50, [0, 2], 'random')) == {0, 2}


def test_without_classes_names_have_none(tmp_path):
  config = tiny_generator.config_of(vqjax.load(TOKENIZER), num_classes=0)
  gen = vqjax.load_generator(tiny_generator.write_run(tmp_path / 'run', config))
  record = generate.generate(gen, tmp_path / 'out', 3, batch_size=8, guidance=1.0)
  assert sorted(contents(tmp_path / 'out')) == [
    'generate.json',
    *(f'images/00000{n}.png' for n in range(3)),
    'sheet.png',
  ]
  assert record['labels'] is None
  assert np.asarray(Image.open(tmp_path / 'out/sheet.png')).shape == (48, 3 * 50 - 2, 3)
  with pytest.raises(UserError, match=r'--classes is given, but the generator knows no classes'):
    generate.generate(gen, tmp_path / 'other', 3, batch_size=8, classes=[0])


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    ([], r'error: .* required: SOURCE, --out; for example: python -m vqjax.generate runs/'),
    (['/no/run', '--out=x'], r'error: /no/run does not exist'),
    (['--num_images=0'], r'error: --num_images is 0; legal: 1 or more'),
    (['--batch_size=3'], r'error: --batch_size is 3; legal: a multiple of 8 devices'),
    (['--classes=1,dog'], r"error: class 'dog' is unknown .*; legal: 0 to 2, or ape, bee, cat\."),
    (['--classes=3'], r"error: class '3' is unknown to the generator; legal: 0 to 2, or ape"),
    (['--labels=all'], r"error: argument --labels: invalid choice: 'all'"),
    (['--seed=-1'], r'error: --seed is -1; legal: 0 to 4294967295'),
    (['--seed=4294967296'], r'error: --seed is 4294967296; legal: 0 to 4294967295'),
    (['--steps=5'], r'error: steps is 5; legal: 1..4, as an image has 4 symbols'),
    (['--guidance=0.5'], r'error: guidance is 0.5; legal: 0 or 1'),
    (['--top_p=0.5'], r'error: config.sampler.top_p is unknown to HaltonSampler; legal: steps'),
  ],
  ids=lambda part: ' '.join(part) if isinstance(part, list) else '',
)
def test_a_mistake_gets_one_sentence(args, message, tmp_path, gen, monkeypatch):
  if args and args[0].startswith('--'):
    args = ['run', f'--out={tmp_path / "out"}', *args]
    monkeypatch.setattr(generator_sources, 'load_generator', lambda source, **_: gen)
  with pytest.raises(SystemExit, match=message) as error:
    commands.run(generate.COMMAND, args)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_the_command_killed_and_run_again(whole, gen, run, tmp_path):
  out = tmp_path / 'out'
  args = [
    *(sys.executable, '-m', 'vqjax', 'generate', str(run), f'--out={out}'),
    *(f'--num_images={COUNT}', '--batch_size=8', '--npz'),
  ]
  process = subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  while process.poll() is None and not list(out.glob('images/*.png')):
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert list(out.glob('images/*.png'))
  generate.generate(gen, out, COUNT, batch_size=8, npz=True)
  assert contents(out) == contents(whole[0])
