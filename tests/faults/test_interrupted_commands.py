"""Ctrl-C and SIGTERM where they hurt most: a file is written and has no name yet."""

import os
import signal
import sys

import numpy as np
import pytest
from data.pictures import picture, png, write
from golden_data import CHECKPOINTS, checkpoint

import eval as evaluate_command
import vqjax
from vqjax import commands, export, reconstruct, tokenize
from vqjax.convert.__main__ import COMMAND as CONVERT
from vqjax.data import Tokens
from vqjax.runs.checkpoint import Checkpoints

NAME = next(name for name in CHECKPOINTS if name.startswith('vitvq'))
ENDS = pytest.mark.parametrize(
  ('number', 'status', 'said'),
  [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'ended by SIGTERM')],
  ids=['SIGINT', 'SIGTERM'],
)


@pytest.fixture(autouse=True)
def _handlers():
  before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
  signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored, behind a script
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.fixture
def pictures(tmp_path):
  for i in range(8):
    for split in ('train', 'val'):
      write(tmp_path / 'pictures' / split / f'{i}.png', png(picture(i, 64, 64)))
  return tmp_path / 'pictures'


@pytest.fixture
def ended(capfd, monkeypatch):
  """Runs a command that gets a signal when a file is to get its name, or a checkpoint is saved."""

  def ended(number, name, command, *argv):
    def replace(old, new):
      if os.path.basename(new) == name:
        os.kill(os.getpid(), number)
      os.rename(old, new)

    def save(self, step, state, record, metrics=None):
      os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
      patch.setattr(commands.app, 'run', lambda main, argv, flags_parser: main(argv))
      patch.setattr(os, 'replace', replace)
      patch.setattr(os, '_exit', sys.exit)
      if name == 'a checkpoint':
        patch.setattr(Checkpoints, 'save', save)
      with pytest.raises(SystemExit) as exit:
        commands.run(command, [str(arg) for arg in argv])
    return exit.value.code, capfd.readouterr().err

  return ended


def files(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


@ENDS
@pytest.mark.parametrize('name', ['config.json', 'a checkpoint'])
def test_convert_can_be_repeated(name, number, status, said, ended, tmp_path):
  argv = checkpoint(NAME)[0], f'--out={tmp_path / "run"}'
  message = f'error: {said}; run the same command again.\n'
  assert ended(number, name, CONVERT, *argv) == (status, message)
  assert files(tmp_path / 'run') == [*['config.json'] * (name != 'config.json'), 'lock']
  commands.run(CONVERT, [str(arg) for arg in argv])
  assert vqjax.load(tmp_path / 'run').step == 0


@ENDS
def test_export_leaves_nothing(number, status, said, ended, tmp_path):
  argv = checkpoint(NAME)[0], f'--out={tmp_path / "x.safetensors"}'
  message = f'error: {said}; run the same command again.\n'
  assert ended(number, 'x.safetensors', export.COMMAND, *argv) == (status, message)
  assert files(tmp_path) == []


@ENDS
def test_reconstruct_leaves_whole_pictures(number, status, said, ended, pictures, tmp_path):
  argv = checkpoint(NAME)[0], f'--input={pictures / "val"}', f'--out={tmp_path / "out"}'
  message = f'error: {said}; run the same command again, with another --out.\n'
  assert ended(number, '2.png', reconstruct.COMMAND, *argv) == (status, message)
  assert files(tmp_path / 'out') == ['0.png', '1.png']


@ENDS
def test_tokenize_goes_on(number, status, said, ended, pictures, tmp_path):
  argv = [
    *(checkpoint(NAME)[0], f'--out={tmp_path / "out"}', '--batch_size=8', '--shard_size=3'),
    *(f'--config.data.path={pictures}', '--config.data.image_size=64'),
  ]
  message = f'error: {said}; run the same command again to go on.\n'
  second = 'tokens-00001-of-00003.array_record'
  assert ended(number, second, tokenize.COMMAND, *argv) == (status, message)
  assert [path.name for path in (tmp_path / 'out').glob('tokens-*')] == [
    second.replace('1', '0', 1)
  ]
  commands.run(tokenize.COMMAND, [str(arg) for arg in argv])
  assert len(Tokens(tmp_path / 'out')) == 8
  assert not list((tmp_path / 'out').glob('partial-*'))


@ENDS
@pytest.mark.parametrize('name', ['metrics.json', 'report.html'])
def test_eval_leaves_the_report_that_was_there(
  name, number, status, said, ended, pictures, tmp_path
):
  """Each of its files is the old or the new one, and whole."""
  folders = pictures / 'train', pictures / 'val'
  out = tmp_path / 'out'
  evaluate = lambda: evaluate_command.compare_folders(*folders, out, batch_size=8, quick=True)
  evaluate()
  before = {path.name: path.read_bytes() for path in out.iterdir()}
  write(folders[1] / '0.png', png(np.zeros((64, 64, 3), np.uint8)))
  program = commands.Program(evaluate, interrupted='run the same command again')
  message = f'error: {said}; run the same command again.\n'
  assert ended(number, name, program) == (status, message)
  after = {path.name: path.read_bytes() for path in out.iterdir()}
  assert after.keys() == before.keys()
  assert after[name] == before[name]
