"""The runner of studies: what it calls, what it calls again, and what it makes of failures.

train.py and eval.py are stood in for by programs of a few lines, but for one run.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_study
from PIL import Image

from studies import run
from studies.making import Made
from vqjax import commands
from vqjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]

# How ml_collections reads a configuration file.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

TRAIN = """
import json, pathlib, sys, time
arguments = dict(arg.removeprefix('--').split('=', 1) for arg in sys.argv[1:])
with open('said', 'a') as file:
  print('train', arguments['workdir'], file=file)
if pathlib.Path('slow').exists() and 'width=4' in arguments['config']:
  pathlib.Path('sleeping').touch()
  time.sleep(300)
if pathlib.Path('together').exists():  # none ends before as many have begun
  width = arguments['config'].split('width=')[1].split(',')[0]
  pathlib.Path('begun' + width).touch()
  deadline = time.monotonic() + 60
  while len(list(pathlib.Path().glob('begun*'))) < 2:
    if time.monotonic() > deadline:
      sys.exit('error: alone')
    time.sleep(0.05)
if pathlib.Path('unlucky').exists() and 'width=4' in arguments['config']:
  print('Traceback | or so')
  sys.exit('error: no luck; try later.')
lines = [{'step': 2, 'usage': 0.25}, {'step': 4, 'usage': 0.5, 'loss': None}]
lines = ''.join(json.dumps(line) + '\\n' for line in lines)
pathlib.Path(arguments['workdir'], 'metrics.jsonl').write_text(lines)
"""
EVAL = """
import json, pathlib, sys
workdir, step, quick = (arg.split('=')[-1] for arg in sys.argv[1:])
with open('said', 'a') as file:
  print('eval', workdir, file=file)
width, seed = workdir.split('/')[-2:]
numbers = {'psnr': 20 + int(width) + int(seed.removeprefix('seed')) ** 2, 'lpips': None}
numbers['step'] = int(step)
numbers['baselines'] = {'jpeg': {'bits_per_pixel': 1.0, 'psnr': 19.5, 'setting': 'quality 1'}}
protocol = {'data': 'three images', 'images': '16 x 16', 'computed on': 'an abacus'}
pathlib.Path(workdir, 'eval').mkdir(exist_ok=True)
numbers = json.dumps({**numbers, 'protocol': protocol})
pathlib.Path(workdir, 'eval', 'metrics.json').write_text(numbers)
"""


@pytest.fixture
def images(tmp_path):
  """Six images to train on and three held out."""
  rng = np.random.default_rng(0)
  for split, count in (('train', 6), ('val', 3)):
    (tmp_path / 'images' / split).mkdir(parents=True)
    for i in range(count):
      pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'images' / split / f'{i}.png')
  return tmp_path / 'images'


@pytest.fixture
def stage(images, tmp_path, monkeypatch):
  """A folder with stand-ins for the two programs, in which the study is made."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'train.py').write_text(TRAIN)
  (tmp_path / 'eval.py').write_text(EVAL)
  (tmp_path / 'tests').mkdir()
  shutil.copy(ROOT / 'tests' / 'toy_study.py', 'tests')
  return tmp_path


def make(seeds=2, study=toy_study.STUDY, **options):
  run.run_study(study, 'small', pathlib.Path('images'), pathlib.Path('out'), seeds, **options)


def said():
  """What was called so far, and forgets it."""
  lines = pathlib.Path('said').read_text().splitlines() if pathlib.Path('said').exists() else []
  pathlib.Path('said').unlink(missing_ok=True)
  return lines


def rows():
  return json.loads(pathlib.Path('out/table.json').read_text())['rows']


def test_every_point_is_trained_and_evaluated_with_every_seed(stage):
  make()
  order = [f'out/runs/{width}/seed{seed}' for seed in (0, 1) for width in (2, 4)]
  assert said() == [f'{program} {folder}' for folder in order for program in ('train', 'eval')]
  psnr = [row['numbers']['psnr'] for row in rows()]
  assert [number['mean'] for number in psnr] == [22.5, 24.5]
  assert [number['seeds'] for number in psnr] == [2, 2]
  assert rows()[0]['numbers']['train/usage']['mean'] == 0.5
  assert rows()[0]['numbers']['baselines/jpeg/psnr']['mean'] == 19.5
  assert 'lpips' not in rows()[0]['numbers']
  lines = pathlib.Path('out/commands.sh').read_text().splitlines()
  assert lines[:3] == [
    '# 2 seed 0',
    'python train.py --config=tests/toy_study.py:width=2,size=small --config.seed=0 '
    '--config.data.source=folder --config.data.path=images --workdir=out/runs/2/seed0',
    'python eval.py --workdir=out/runs/2/seed0 --step=4 --quick',
  ]
  assert len(lines) == 12
  with Image.open('out/figure.png') as picture:
    assert picture.size[0] > 400


def test_what_is_done_is_not_done_again(stage):
  make(seeds=1)
  said()
  make()
  assert [line.split('/')[-1] for line in said()] == ['seed1'] * 4
  # Another evaluation than that of the last step, and one that was cut while it was written.
  metrics = pathlib.Path('out/runs/2/seed0/eval/metrics.json')
  whole = metrics.read_text()
  for left in (whole.replace('"step": 4', '"step": 2'), whole[:-5]):
    metrics.write_text(left)
    make()
    assert said() == ['train out/runs/2/seed0', 'eval out/runs/2/seed0']
    assert metrics.read_text() == whole


def test_a_failure_is_in_the_table_and_is_tried_again(stage):
  pathlib.Path('unlucky').touch()
  with pytest.raises(UserError, match=r'2 of 4 runs failed, see out/table\.md; '):
    make()
  assert [line for line in said() if 'eval' in line] == [f'eval out/runs/2/seed{i}' for i in (0, 1)]
  reason = 'train.py: no luck; try later.'
  assert rows()[1] == {
    'point': {'width': 4},
    'seeds': 0,
    'numbers': {},
    'failed': {'0': reason, '1': reason},
  }
  table = pathlib.Path('out/table.md').read_text()
  assert f'| seed 0: {reason}; seed 1: {reason} |' in table
  pathlib.Path('unlucky').unlink()
  make()
  assert len(said()) == 4
  assert [row['seeds'] for row in rows()] == [2, 2]
  assert not any(row['failed'] for row in rows())
  assert 'failed' not in pathlib.Path('out/table.md').read_text()


def test_two_at_a_time_say_what_one_after_another_say(stage):
  make()
  expected = pathlib.Path('out/table.json').read_bytes(), pathlib.Path('out/table.md').read_bytes()
  lines = sorted(said())
  shutil.rmtree('out')
  pathlib.Path('together').touch()
  make(jobs=2)
  assert sorted(said()) == lines
  assert pathlib.Path('out/table.json').read_bytes() == expected[0]
  assert pathlib.Path('out/table.md').read_bytes() == expected[1]
  make(jobs=2)
  assert not said()


def test_of_two_at_a_time_one_may_fail(stage):
  pathlib.Path('together').touch()
  pathlib.Path('unlucky').touch()
  with pytest.raises(UserError, match=r'1 of 2 runs failed'):
    make(seeds=1, jobs=2)
  assert [row['seeds'] for row in rows()] == [1, 0]
  assert rows()[1]['failed'] == {'0': 'train.py: no luck; try later.'}


def test_what_is_left_is_what_the_runs_took_over_the_jobs(stage, monkeypatch, caplog):
  @contextlib.contextmanager
  def making(runs, jobs, lock, environment):
    for one in runs:
      one.folder.mkdir(parents=True)
    yield (Made(one, 'why', 60 * (i + 1)) for i, one in enumerate(runs))

  monkeypatch.setattr(run, 'making', making)
  with caplog.at_level('INFO', 'vqjax'), pytest.raises(UserError, match='4 of 4 runs failed'):
    make(jobs=2)
  left = [line.rsplit(' | ')[-1] for line in caplog.messages if line.endswith(' left')]
  assert left == ['0:01:30 left', '0:01:30 left', '0:01:00 left', '0:00:00 left']


def test_jobs_leave_each_other_memory_of_a_gpu(stage, monkeypatch):
  name = 'XLA_PYTHON_CLIENT_PREALLOCATE'
  text = f'import os; print("memory", os.environ.get("{name}"), file=open("said", "a"))\n'
  pathlib.Path('train.py').write_text(text + TRAIN)
  monkeypatch.delenv(name, raising=False)
  found = []
  for jobs, mine in ((1, None), (2, None), (2, 'true')):
    if mine:
      monkeypatch.setenv(name, mine)
    make(seeds=1, jobs=jobs)
    found.append({line for line in said() if 'memory' in line})
    shutil.rmtree('out')
  assert found == [{'memory None'}, {'memory false'}, {'memory true'}]


def test_a_part_of_a_study_is_made(stage):
  make(only='[3-9]')
  assert {line.split('/')[2] for line in said()} == {'4'}
  assert [row['seeds'] for row in rows()] == [0, 2]
  assert len(pathlib.Path('out/commands.sh').read_text().splitlines()) == 12
  make(only='2', seeds=1)
  assert [row['seeds'] for row in rows()] == [1, 2]
  said()
  with pytest.raises(UserError, match=r"^--only is 'x\*', which no point matches; .* of 2, 4\.$"):
    make(only='x*')
  assert not said()


def test_an_interrupted_study_leaves_nobody_behind_and_records_no_failure(stage):
  pathlib.Path('slow').touch()
  interrupted = start(jobs=2, seeds=3, only='4')
  children = []
  try:
    while not pathlib.Path('sleeping').exists() or len(children) < 2:
      assert interrupted.poll() is None
      time.sleep(0.1)
      children = children_of(interrupted.pid)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait() != 0
    assert not any(pathlib.Path(f'/proc/{child}').exists() for child in children)
  finally:
    interrupted.kill()
    for child in children:
      with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
  assert not list(pathlib.Path('out').glob('runs/*/*/failed.txt'))
  assert not pathlib.Path('out/runs/4/seed2').exists()
  pathlib.Path('slow').unlink()
  said()
  make(seeds=3, only='4')
  assert len(said()) == 6


def start(**options):
  """The same as `make`, as a process."""
  code = (
    'import pathlib, signal, toy_study, studies.run\n'
    # Tests in the background of a script are started with SIGINT ignored.
    'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    'studies.run.run_study(toy_study.STUDY, "small", pathlib.Path("images"), pathlib.Path("out"),'
    f' **{options})'
  )
  path = f'{ROOT}:{ROOT / "tests"}'
  return subprocess.Popen([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path})


def children_of(process):
  files = pathlib.Path(f'/proc/{process}/task').glob('*/children')
  return [int(child) for file in files for child in file.read_text().split()]


def test_a_killed_study_goes_on_and_its_orphan_is_waited_for(stage):
  pathlib.Path('slow').touch()
  killed = start()
  orphan = None
  try:
    while not pathlib.Path('sleeping').exists():
      assert killed.poll() is None
      time.sleep(0.1)
    (orphan,) = children_of(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert said() == ['train out/runs/2/seed0', 'eval out/runs/2/seed0', 'train out/runs/4/seed0']
    pathlib.Path('slow').unlink()
    said_of_it = r'^out is in use by process \d+ on .*; wait for its end, or choose .* --out='
    with pytest.raises(UserError, match=said_of_it):
      make()
    assert not said()
  finally:
    if orphan:
      os.kill(orphan, signal.SIGKILL)
    killed.kill()
  while pathlib.Path(f'/proc/{orphan}').exists() and not _zombie(orphan):
    time.sleep(0.1)
  make(seeds=1)
  assert said() == ['train out/runs/4/seed0', 'eval out/runs/4/seed0']


def _zombie(process):
  return pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'


def test_a_folder_of_another_config_is_refused_before_anything_runs(stage):
  make()
  said()
  folder = pathlib.Path('out/runs/4/seed1')
  there = run.plan(toy_study.STUDY, 'small', pathlib.Path('images'), pathlib.Path('out'), 2)[3]
  config = there.config.to_dict()
  (folder / 'config.json').write_text(json.dumps(config))
  make()
  config['model']['code_dim'] = 3
  (folder / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match=r'seed1 belongs .*\(model\.code_dim: 3 there, 4 asked\);'):
    make()
  assert not said()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['nope', '--out=out'], "invalid choice: 'nope' .*'rotation', 'collapse', 'rate_distortion'"),
    (['rotation', '--out=out'], r'^--data is missing; .*python -m studies\.photographs runs'),
    (['rotation', '--out=out', '--data=nowhere'], r'nowhere does not exist '),
    (['rotation', '--out=out', '--data=x', '--seeds=0'], r'^--seeds is 0; legal: 1 or more'),
    (['rotation', '--out=out', '--data=x', '--jobs=0'], r'^--jobs is 0; legal: 1 or more'),
    (
      ['network', '--out=out', '--data=x', '--only=8'],
      r"^--only is '8', which no point matches; legal: a pattern of [\w-]+, [\w-]+, [\w-]+\.$",
    ),
    (['rotation', '--out=nowhere', '--tables_only'], r'^nowhere holds no study'),
    (['rotation', '--data=x'], 'required: --out'),
  ],
)
def test_mistakes_are_said_in_one_sentence(arguments, message):
  with pytest.raises(UserError, match=message):
    run.COMMAND.start(arguments)


def test_an_output_that_cannot_be_written_is_said_in_one_sentence(stage, capsys, monkeypatch):
  monkeypatch.setitem(run.STUDIES, 'rotation', toy_study.STUDY)
  pathlib.Path('out').write_text('a file')
  with pytest.raises(SystemExit) as error:
    commands.run(run.COMMAND, ['rotation', '--data=images', '--out=out'])
  assert str(error.value) == ('error: cannot write out: File exists; choose another with --out=...')


def test_a_real_run(images, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  one = os.environ['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=8', '')
  monkeypatch.setenv('XLA_FLAGS', one)
  study = dataclasses.replace(toy_study.STUDY, points=toy_study.STUDY.points[:1])
  out = tmp_path / 'out'
  run.run_study(study, 'small', images, out, 1)
  folder = out / 'runs' / '2' / 'seed0'
  evaluated = json.loads((folder / 'eval' / 'metrics.json').read_text())
  assert evaluated['step'] == 4
  assert evaluated['num_images'] == 3
  (row,) = json.loads((out / 'table.json').read_text())['rows']
  assert row['numbers']['psnr'] == {'mean': evaluated['psnr'], 'interval': None, 'seeds': 1}
  assert 0 < row['numbers']['train/usage']['mean'] <= 1
  # From the files of the runs alone.
  table, figure = (out / 'table.json').read_bytes(), (out / 'figure.png').read_bytes()
  text = (out / 'table.md').read_text()
  for name in ('table.json', 'table.md', 'figure.png', 'commands.sh'):
    (out / name).unlink()
  run.write_tables(study, out, picture=True)
  assert (out / 'table.json').read_bytes() == table
  assert (out / 'table.md').read_text() == text
  assert (out / 'figure.png').read_bytes() == figure
  # What it asks for is what the run has: nothing is refused, and nothing is run again.
  (folder / 'train.log').unlink()
  run.run_study(study, 'small', images, out, 1)
  assert not (folder / 'train.log').exists()
