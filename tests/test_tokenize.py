"""A data set to tokens by the function and the command, broken off, shared out, and back."""

import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import numpy as np
import pytest
from data.pictures import picture, png, write
from golden_data import CHECKPOINTS, checkpoint

import vqjax
from vqjax import commands, pretrained
from vqjax import tokenize as command
from vqjax.data import Tokens, Views, default_data, eval_batches, make_source, tokens
from vqjax.data.decode import UnreadableImage
from vqjax.errors import UserError
from vqjax.runs.lock import locked
from vqjax.tokenize import tokenize

ROOT = pathlib.Path(__file__).parent.parent
NAME = next(name for name in CHECKPOINTS if name.startswith('vitvq'))
SETTINGS = {'batch_size': 8, 'shard_size': 3}
UNREADABLE = 4

pytestmark = pytest.mark.xdist_group('tokenize')


@pytest.fixture(scope='module')
def tok():
  return vqjax.load(checkpoint(NAME)[0])


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Eleven pictures in two classes, one of which cannot be read, and one held out."""
  path = tmp_path_factory.mktemp('images')
  for i in range(11):
    content = b'nothing' if i == UNREADABLE else png(picture(i, 16 + i, 20))
    write(path / f'train/{"ab"[i >= 6]}/{i:02d}.png', content)
  write(path / 'val/a/0.png', png(picture(20, 16, 16)))
  data = ml_collections.ConfigDict({**default_data(), 'path': str(path), 'image_size': 16})
  data.train.crop, data.train.flip = 'random', True
  return data


@pytest.fixture(scope='module')
def whole(tok, data, tmp_path_factory):
  """What an unbroken run leaves: (folder, index)."""
  out = tmp_path_factory.mktemp('tokens') / 'whole'
  return out, tokenize(tok, data, out, **SETTINGS)


def contents(folder):
  """By name; without locks, which say who wrote it."""
  files = [path for path in folder.iterdir() if not path.name.startswith('.lock-')]
  return {path.name: path.read_bytes() for path in files}


def test_the_index_says_what_is_there(whole, tok, data):
  out, index = whole
  assert json.loads((out / 'index.json').read_text()) == index
  assert index['token_shape'] == [2, 2]
  assert (index['num_codes'], index['bits_per_token'], index['dtype']) == (64, 6, 'uint16')
  assert (index['num_images'], index['num_records'], index['image_size']) == (11, 10, 16)
  assert [shard['records'] for shard in index['shards']] == [3, 2, 3, 2]
  assert sorted(contents(out)) == ['index.json', *(shard['name'] for shard in index['shards'])]
  assert index['assignment'].startswith('Nearest(')
  assert index['batch_size'] is None  # tokens do not depend on it
  assert index['source'] == str(checkpoint(NAME)[0])
  assert index['step'] is None
  assert index['vqjax'] == vqjax.__version__
  assert index['images'].startswith('11 images in ')
  assert index['config']['data']['eval']['crop'] == 'center'
  assert 'train' not in index['config']['data']
  assert len(index['config_sha256']) == len(index['weights_sha256']) == 64


def test_tokens_give_the_images_that_reconstruct_gives(whole, tok, data):
  found = Tokens(whole[0])
  readable = [i for i in range(11) if i != UNREADABLE]
  assert [int(record['index']) for record in found] == readable
  assert [int(record['label']) for record in found] == [int(i >= 6) for i in readable]
  # Cut as for evaluation, though the split is the training one.
  with contextlib.closing(eval_batches(make_source(data, 'train'), data, batch_size=11)) as batches:
    images = next(batches)['image'][readable]
  records = np.stack([record['tokens'] for record in found])
  np.testing.assert_array_equal(tok.decode(records), tok.reconstruct(images))
  assert len(np.unique(records, axis=0)) == 10


def test_the_other_split_and_a_part_of_it(tok, data, tmp_path, whole):
  index = tokenize(tok, data, tmp_path / 'eval', split='eval', **SETTINGS)
  assert (index['num_records'], index['split']) == (1, 'eval')
  tokenize(tok, data, tmp_path / 'part', num_images=4, batch_size=8)
  part, all_of_them = Tokens(tmp_path / 'part'), Tokens(whole[0])
  assert len(part) == 4
  for i in range(4):
    np.testing.assert_array_equal(part[i]['tokens'], all_of_them[i]['tokens'])


def test_views_have_records_of_their_own(tok, data, tmp_path, whole, caplog):
  index = tokenize(tok, data, tmp_path / 'out', augment='flip', **SETTINGS)
  assert (index['augment'], index['views'], index['num_records']) == ('flip', 2, 20)
  assert 'augment' not in whole[1]
  assert '1 of 11 images could not be read and have no tokens' in caplog.text
  found, plain = Tokens(tmp_path / 'out'), Tokens(whole[0])
  assert (found.views, plain.views) == (2, 1)
  for i, record in enumerate(plain):
    for name in ('tokens', 'label', 'index'):
      np.testing.assert_array_equal(found[2 * i][name], record[name])
    assert found[2 * i + 1]['index'] == record['index']
  # The tokens of mirrored pixels, not mirrored tokens.
  images = next(iter(tok.batched(make_source(data, 'train'), data, batch_size=8))).images
  mirrored = tok.encode(images[:, :, ::-1])
  np.testing.assert_array_equal(mirrored, np.stack([found[2 * i + 1]['tokens'] for i in range(7)]))
  with pytest.raises(UserError, match=r"other tokens \(augment: 'flip' there, None now; "):
    tokenize(tok, data, tmp_path / 'out', **SETTINGS)


def test_an_image_has_all_its_views_or_none(tok, data, tmp_path, monkeypatch, caplog):
  view = Views.__getitem__

  def some(self, index):
    if index == 17:  # of image 1, whose views are of two batches
      raise UnreadableImage('x', 'gone')
    return view(self, index)

  monkeypatch.setattr(Views, '__getitem__', some)
  tokenize(tok, data, tmp_path / 'out', augment='ten_crop', num_images=3, batch_size=8)
  found = Tokens(tmp_path / 'out')
  assert [int(record['index']) for record in found] == [0] * 10 + [2] * 10
  assert '1 of 3 images could not be read and have no tokens' in caplog.text


@pytest.mark.parametrize('shard', [0, 2])
def test_broken_off_and_gone_on_with_it_is_the_same(shard, whole, tok, data, tmp_path, monkeypatch):
  written = []

  def write_shard(path, records):
    if len(written) == shard:
      whole_shard(path, one_of(records))
    written.append(path.name)
    return whole_shard(path, records)

  def one_of(records):
    yield next(records)
    raise KeyboardInterrupt

  whole_shard = tokens.write_shard
  monkeypatch.setattr(tokens, 'write_shard', write_shard)
  with pytest.raises(KeyboardInterrupt):
    tokenize(tok, data, tmp_path / 'out', **SETTINGS)
  assert [name for name in contents(tmp_path / 'out') if name.startswith('partial-')]
  with pytest.raises(UserError, match='is not finished'):
    Tokens(tmp_path / 'out')
  monkeypatch.undo()
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').glob('tokens-*')}
  assert len(before) == shard
  assert tokenize(tok, data, tmp_path / 'out', **SETTINGS) == whole[1]
  assert contents(tmp_path / 'out') == contents(whole[0])
  assert {path: path.stat().st_mtime_ns for path in before} == before


def test_processes_share_the_shards(whole, tok, data, tmp_path, caplog):
  share = lambda i: tokenize(
    tok, data, tmp_path / 'out', process_index=i, process_count=3, **SETTINGS
  )
  with caplog.at_level('INFO', 'vqjax'):
    for i in (2, 0):
      assert 'shards' not in share(i)
  assert '1 of 4 shards are still to come from other processes' in caplog.text
  assert sorted(path.name[7:12] for path in (tmp_path / 'out').glob('tokens-*')) == [
    '00000',
    '00002',
    '00003',
  ]
  assert share(1) == whole[1]
  assert contents(tmp_path / 'out') == contents(whole[0])
  assert share(0) == whole[1]


def test_a_finished_folder_says_so_and_a_lost_shard_is_written_again(whole, tok, data, caplog):
  out, index = whole
  before = contents(out)
  with caplog.at_level('INFO', 'vqjax'):
    assert tokenize(tok, data, out, **SETTINGS) == index
  assert caplog.messages == [f'{out} is finished: 10 records in 4 shards']
  lost = sorted(out.glob('tokens-*'))[1]
  lost.unlink()
  data = ml_collections.ConfigDict(data.to_dict())
  data.threads = 1  # what does not make other tokens may change
  with caplog.at_level('INFO', 'vqjax'):
    tokenize(tok, data, out, batch_size=16, shard_size=3)
  assert '1 of 4 shards are to be written' in caplog.text
  assert 'skipped unreadable image a/04.png' in caplog.text
  assert '1 of 11 images could not be read and have no tokens' in caplog.text
  assert contents(out) == before


def test_a_folder_from_before_class_names_is_gone_on_with(whole, tok, data, tmp_path):
  out = tmp_path / 'old'
  shutil.copytree(whole[0], out)
  index = json.loads((out / 'index.json').read_text())
  assert index.pop('class_names') == ['a', 'b']
  (out / 'index.json').write_text(json.dumps(index))
  next(out.glob('tokens-*')).unlink()
  assert tokenize(tok, data, out, **SETTINGS) == index


def test_a_folder_of_something_else_is_refused(whole, tok, data, tmp_path):
  out = whole[0]
  with pytest.raises(
    UserError, match=r'other tokens \(num_images: 11 there, 5 now; shard_size: 3 there, 2 now\)'
  ):
    tokenize(tok, data, out, num_images=5, batch_size=8, shard_size=2)
  other = ml_collections.ConfigDict(data.to_dict())
  other.eval.filter, other.eval.antialias = 'bicubic', True
  with pytest.raises(UserError, match=r"eval.filter: 'bilinear' there, 'bicubic' now\); choose"):
    tokenize(tok, other, out, **SETTINGS)
  variables = jax.tree.map(lambda x: 2 * x, tok.variables)
  trained = pretrained.Pretrained(tok.model, variables, tok.config, 'run', 5)
  with pytest.raises(UserError, match=r"step: None there, 5 now; weights_sha256: '\w+' there, '"):
    tokenize(trained, data, out, **SETTINGS)
  write(tmp_path / 'mine/notes.txt', b'')
  with pytest.raises(UserError, match=r'/mine holds notes.txt but no index.json; choose another'):
    tokenize(tok, data, tmp_path / 'mine', **SETTINGS)
  with pytest.raises(UserError, match=r'cannot write .*notes.txt: File exists; choose another'):
    tokenize(tok, data, tmp_path / 'mine/notes.txt', **SETTINGS)


def test_a_folder_that_another_process_is_writing_is_refused(whole, tok, data, tmp_path):
  with locked(tmp_path / 'out', '--out', '.lock-0'):
    with pytest.raises(UserError, match=r'out is in use by process \d+ on .*--out='):
      tokenize(tok, data, tmp_path / 'out', **SETTINGS)
    # Another share of it is another process's.
    tokenize(tok, data, tmp_path / 'out', process_index=1, process_count=2, **SETTINGS)
  assert tokenize(tok, data, tmp_path / 'out', process_count=2, **SETTINGS) == whole[1]


def test_a_damaged_shard_is_not_counted_as_done(tok, data, tmp_path):
  tokenize(tok, data, tmp_path / 'out', num_images=3, batch_size=8, shard_size=2)
  first, second = sorted((tmp_path / 'out').glob('tokens-*'))
  first.write_bytes(b'cut')
  second.unlink()
  with pytest.raises(UserError, match=r'00000-of-00002.array_record is damaged .*; remove'):
    tokenize(tok, data, tmp_path / 'out', num_images=3, batch_size=8, shard_size=2)


def test_sinkhorn_tokens_are_marked_as_those_of_a_batch(tok, data, tmp_path, caplog):
  theirs = vqjax.load(checkpoint(NAME)[0], eval_assign='sinkhorn')
  index = tokenize(theirs, data, tmp_path / 'out', **SETTINGS)
  assert index['assignment'].startswith('Sinkhorn(')
  assert index['batch_size'] == 8
  assert [m for m in caplog.messages if 'looks at the whole batch' in m] == [
    f'{index["assignment"]} looks at the whole batch: tokens depend on --batch_size=8'
  ]
  with pytest.raises(UserError, match=r'other tokens \(batch_size: 8 there, 16 now\)'):
    tokenize(theirs, data, tmp_path / 'out', batch_size=16, shard_size=3)


def test_what_cannot_be_tokenized(tok, data, tmp_path):
  out = tmp_path / 'out'
  with pytest.raises(UserError, match=r'--batch_size is 3; legal: a multiple of 8 devices'):
    tokenize(tok, data, out, batch_size=3)
  with pytest.raises(UserError, match=r'--num_images is 0; legal: 1 or more'):
    tokenize(tok, data, out, batch_size=8, num_images=0)
  other = ml_collections.ConfigDict(data.to_dict())
  other.image_size = 18
  with pytest.raises(UserError, match=r'images are 18x18 pixels; legal: .* multiples of 8'):
    tokenize(tok, other, out, batch_size=8)
  assert not out.exists()
  write(tmp_path / 'images/train/0.png', b'nothing')
  write(tmp_path / 'images/val/0.png', b'nothing')
  other.path, other.image_size = str(tmp_path / 'images'), 16
  with pytest.raises(UserError, match=r'none of 1 images .* could be read; .* remove .*/out, and'):
    tokenize(tok, other, out, batch_size=8)


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (
      [],
      r'error: .* required: SOURCE, --out; for example: python -m vqjax.tokenize runs/',
    ),
    (['x'], r'error: .* required: --out; for example: .* --out=tokens \(--help lists all\)\.'),
    (['/no/run', '--out=x'], r'error: /no/run does not exist; legal: a run folder'),
    (['--config.data.source=web'], r"error: data.source is 'web'; it can be one of 'photos'"),
    (['--config.data.path=/no/data'], r'error: data.path=/no/data does not exist'),
    (['--config.data.size=8'], r"error: --config has no field 'size' here; legal: --config.data"),
    (['--config.model.dtype=x'], r"error: --config has no field 'model' here; legal: --config.d"),
    (['--config.data.image_size=many'], r'error: flag --config.data.image_size=many: invalid'),
    (['--config.data.path'], r'error: Missing value for flag --config.data.path'),
    (['--bach_size=8'], r'error: unrecognized arguments: --bach_size=8; for example: python -m'),
    (['--batch=8'], r'error: unrecognized arguments: --batch=8'),  # no abbreviations
    (['--batch_size=x'], r"error: argument --batch_size: invalid int value: 'x'; for example"),
    (['8'], r'error: unrecognized arguments: 8'),
  ],
  ids=lambda part: ' '.join(part) if isinstance(part, list) else '',
)
def test_a_mistake_gets_one_sentence(args, message, tmp_path, tok, monkeypatch):
  if args and args[0].startswith(('--', '8')):
    args = ['run', f'--out={tmp_path / "out"}', *args]
    monkeypatch.setattr(pretrained, 'load', lambda source, step: tok)
  with pytest.raises(SystemExit, match=message) as error:
    commands.run(command.COMMAND, args)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('named', [['--workdir=run'], ['--workdir', 'run'], ['run']], ids=' '.join)
def test_the_source_may_still_be_named_workdir(named, tmp_path, monkeypatch, capsys):
  def load(source, step):
    assert (source, step) == ('run', 3)
    raise UserError('enough.')

  monkeypatch.setattr(pretrained, 'load', load)
  with pytest.raises(SystemExit, match='error: enough'):
    commands.run(command.COMMAND, ['--step=3', *named, f'--out={tmp_path}'])
  said = '--workdir=SOURCE is deprecated; write SOURCE alone, as in: python -m vqjax.tokenize runs/'
  assert said * (named != ['run']) in capsys.readouterr().out


def test_fields_of_the_data_are_set():
  data = ml_collections.ConfigDict(default_data())
  commands.set_data(data, ['--config.data.image_size=64', '--config.data.eval.crop=random'])
  assert (data.image_size, data.eval.crop, data.train.crop) == (64, 'random', 'random')
  assert data.source == 'folder'


def test_the_command_killed_and_run_again(whole, tok, data, tmp_path):
  out = tmp_path / 'out'
  args = [
    *(sys.executable, '-m', 'vqjax.tokenize', str(checkpoint(NAME)[0]), f'--out={out}'),
    *('--batch_size=8', '--shard_size=3', f'--config.data.path={data.path}'),
    '--config.data.image_size=16',
  ]
  process = subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  while process.poll() is None and not list(out.glob('tokens-*')):
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert list(out.glob('tokens-*'))
  tokenize(tok, data, out, **SETTINGS)
  assert contents(out) == contents(whole[0])
