"""Commands as a user types them, and what they make of mistakes."""

import importlib
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import tomllib

import jax
import pytest

from vqjax import commands
from vqjax.__main__ import MODULES
from vqjax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent


def command(*args, stdin=None):
  flags = os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=1')
  env = {**os.environ, 'XLA_FLAGS': flags, 'VQJAX_CACHE': '/dev/null/cache'}
  return subprocess.run(
    [sys.executable, *args],
    cwd=ROOT,
    env=env,
    input=stdin,
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_commands_from_training_to_report(tmp_path):
  workdir = tmp_path / 'run'
  fields = {
    'total_steps': 2,
    'eval_images': 8,
    'batch_size': 4,
    'data.image_size': 16,
    'model.channels': 4,
    'model.num_blocks': 1,
    'gan.weight': 0.0,
  }
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  args = ['train.py', '--config=configs/rot_vqgan.py:demo', f'--workdir={workdir}', *flags]
  done = command(*args)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0].startswith('backend cpu, 1 device(s)')
  assert any(line.startswith('step 2/2 | loss') and 'usage' in line for line in lines)
  (summary,) = [line for line in lines if ' parameters: ' in line]
  total = summary.split()[0]
  assert {'encoder', 'decoder', 'quantizer'} <= set(summary.split())
  assert f'Total: {total} --' in (workdir / 'parameters.txt').read_text()
  assert lines[-1] == f'next: python eval.py --workdir={workdir}'
  assert 'Traceback' not in done.stderr

  done = command(*lines[-1].split()[2:], '--nobaselines')
  assert done.returncode == 0, done.stderr
  assert 'dB, RGB, mean over images' in done.stdout
  assert 'JPEG' not in done.stdout
  assert (workdir / 'eval' / 'report.html').exists()


VQGAN = '--config=configs/rot_vqgan.py'


MISTAKES = [
  (['train.py'], '--config is missing'),
  (['train.py', '--config=configs/rot_vqgam.py'], 'configs/rot_vqgam.py'),
  (
    ['train.py', f'{VQGAN}:dem'],
    "config argument 'dem' is unknown; legal, joined by commas: demo",
  ),
  (['train.py', f'{VQGAN}:demo', '--config.batchsize=4'], 'batchsize'),
  (['train.py', f'{VQGAN}:demo', '--config.batch_size=many'], 'batch_size'),
  (['train.py', f'{VQGAN}:demo', '--wrokdir=x'], 'wrokdir'),
  (['train.py', VQGAN, '--config.data.path=/no/such/folder'], '/no/such/folder'),
  (['train.py', f'{VQGAN}:demo', '--config.require_backend=gpu'], "JAX found 'cpu'"),
  (['train.py', f'{VQGAN}:demo', '--config.loss.perceptual=1'], 'python -m vqjax.weights lpips'),
  (
    ['train.py', f'{VQGAN}:demo', '--config.quantizer.estimator=rotate'],
    'legal: straight_through',
  ),
  (['train.py', f'{VQGAN}:demo', '--workdir=/dev/null/run'], 'cannot write /dev/null/run: '),
  (['eval.py'], '--workdir is missing'),
  (['eval.py', '--workdir=/no/such/run'], '/no/such/run/config.json does not exist'),
  (
    ['eval.py', '--originals=a', '--reconstructions=b', '--out=c', '--rounding=wrap'],
    'without --workdir, --step, --data_path, --eval_assign, --rounding, --baselines',
  ),
  (
    ['eval.py', '--samples=a', '--out=c'],
    'generated images are judged by --samples, --reference and --out together, without --workdir',
  ),
  (
    ['eval.py', '--samples=a', '--reference=b', '--out=c', '--quick'],
    '--rounding, --baselines, --originals, --reconstructions, --quick',
  ),
]
# Importing takes most of the time that a mistake takes: one process imports, the others are forks
# of it, each a command like any other but for that.
FORKS = """
import json, os, runpy, sys, tempfile
import eval, train

for args in json.load(sys.stdin):
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    if (child := os.fork()) == 0:
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      sys.argv = args
      runpy.run_path(args[0], run_name='__main__')
      os._exit(0)  # no mistake
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [file.seek(0) or file.read() for file in (out, err)]
  print(json.dumps([status, *texts]))
"""


@pytest.fixture(scope='module')
def mistakes():
  """What each of MISTAKES came to: [exit status, stdout, stderr]."""
  done = command('-c', FORKS, stdin=json.dumps([args for args, _ in MISTAKES]))
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize('case', range(len(MISTAKES)), ids=[' '.join(a) for a, _ in MISTAKES])
def test_a_mistake_gets_one_line(case, mistakes):
  status, stdout, stderr = mistakes[case]
  assert status == 1, stdout + stderr
  assert MISTAKES[case][1] in stderr
  assert 'Traceback' not in stderr
  assert sum(line.startswith('error: ') for line in stderr.splitlines()) == 1


ENDS = pytest.mark.parametrize(
  ('error', 'message'),
  [
    (UserError('x is 1; legal: 2.'), 'x is 1; legal: 2.'),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: wanted 51 GB\nmore'),
      'out of memory (RESOURCE_EXHAUSTED: wanted 51 GB); {memory}.',
    ),
  ],
)
DOC = 'Does this.\n\npython -m this PLACE [--count=N]\n\nAnd that.'


def declared(main=lambda args: None, **more):
  def arguments(parser):
    parser.add_argument('place', metavar='PLACE')
    parser.add_argument('--count', type=int)

  return commands.Command(DOC, arguments, main, **{'example': 'this here', **more})


@ENDS
def test_what_a_user_can_mend_is_one_line(error, message):
  def main(args):
    raise error

  words = {'interrupted': 'do it again', 'memory': 'take less'}
  with pytest.raises(SystemExit) as exit:
    commands.run(declared(main, **words), ['here'])
  assert exit.value.code == 'error: ' + message.format(**words)  # to stderr, and status 1


@ENDS
def test_the_programs_with_flags_end_alike(error, message, monkeypatch):
  def main():
    raise error

  monkeypatch.setattr(commands.app, 'run', lambda main, argv, flags_parser: main(argv))
  with pytest.raises(SystemExit) as exit:
    commands.run(commands.Program(main), [])
  words = {'interrupted': 'run the same command again to go on from the last checkpoint'}
  words['memory'] = (
    'fewer images at a time need less: --config.batch_size=N or --config.model.remat'
  )
  assert exit.value.code.startswith('error: ' + message.format(**words).rstrip('.'))


def interrupt(*_):
  raise KeyboardInterrupt


def terminate(*_):
  os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
  ('main', 'status', 'said'),
  [(interrupt, 130, 'interrupted'), (terminate, 143, 'ended by SIGTERM')],
)
def test_a_signal_is_one_line_and_its_own_status(main, status, said, monkeypatch, capsys):
  monkeypatch.setattr(commands.app, 'run', lambda main, argv, flags_parser: main(argv))
  monkeypatch.setattr(os, '_exit', sys.exit)
  before = signal.getsignal(signal.SIGTERM)
  try:
    for command in (
      declared(main, interrupted='do it again'),
      commands.Program(main, 'do it again'),
    ):
      with pytest.raises(SystemExit) as exit:
        commands.run(command, ['here'] if isinstance(command, commands.Command) else [])
      assert exit.value.code == status
      assert capsys.readouterr().err == f'error: {said}; do it again.\n'
  finally:
    signal.signal(signal.SIGTERM, before)


def test_other_errors_of_the_runtime_keep_their_traceback():
  def main(args):
    raise jax.errors.JaxRuntimeError('INTERNAL: a bug')

  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL: a bug'):
    commands.run(declared(main), ['here'])


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    ([], 'the following arguments are required: PLACE'),
    (['here', '--cuont=1'], 'unrecognized arguments: --cuont=1'),
    (['here', '--coun=1'], 'unrecognized arguments: --coun=1'),
    (['here', '--count=one'], "argument --count: invalid int value: 'one'"),
    (['here', '--config.data.path=x'], 'unrecognized arguments: --config.data.path=x'),
    (['--workdir=here'], 'unrecognized arguments: --workdir=here'),
  ],
  ids=' '.join,
)
def test_arguments_that_cannot_be_understood_get_one_line_and_an_example(argv, message, capsys):
  with pytest.raises(SystemExit) as exit:
    commands.run(declared(), argv)
  if argv != ['--workdir=here']:  # that PLACE is missing comes first
    assert exit.value.code == f'error: {message}; for example: this here (--help lists all).'
  assert str(exit.value.code).startswith('error: ')
  assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize(('index', 'said'), [(0, 'hello\nmind\n'), (1, 'mind\n')])
def test_the_first_of_several_processes_talks(index, said, monkeypatch, capsys):
  def main(args):
    logging.getLogger('vqjax.any').info('hello')
    logging.getLogger('vqjax').warning('mind')

  monkeypatch.setattr(jax, 'process_index', lambda: index)
  commands.run(declared(main), ['here'])
  assert capsys.readouterr() == (said, '')
  monkeypatch.setattr(jax, 'process_index', lambda: pytest.fail('JAX is not needed'))
  commands.run(declared(main, uses_jax=False), ['here'])
  assert capsys.readouterr().out == 'hello\nmind\n'


PIPED = """
import logging
from vqjax import commands
from vqjax.__main__ import MODULES

def main(args):
  logging.getLogger('vqjax').info('hello')
  {}

commands.run(commands.Command('a.\\n\\nb', lambda parser: None, main, example='b', uses_jax=False))
"""


def printed_to(stdout, last):
  return subprocess.run(
    [sys.executable, '-c', PIPED.format(last)],
    env={**os.environ, 'PYTHONUNBUFFERED': ''},
    stdout=stdout,
    stderr=subprocess.PIPE,
    cwd=ROOT,
    check=False,
  )


@pytest.mark.parametrize('last', ['print(123)', 'pass'])
def test_nobody_reads_to_the_end(last):
  reader, writer = os.pipe()
  os.close(reader)
  process = printed_to(writer, last)
  os.close(writer)
  assert (process.returncode, process.stderr) == (1, b'')


@pytest.mark.parametrize('last', ['print(123)', 'pass'])
def test_what_is_printed_goes_to_a_full_disk(last):
  with open('/dev/full', 'wb') as full:
    process = printed_to(full, last)
  assert process.returncode == 1
  (said,) = process.stderr.decode().splitlines()
  assert said.startswith('error: cannot print ([Errno 28] No space left on device); make room or')


@pytest.mark.parametrize('name', MODULES)
def test_every_command_is_declared_alike(name, capsys):
  """Its usage has arguments that exist, and its example is understood."""
  declared = importlib.import_module(MODULES[name]).COMMAND
  program = f'python -m {MODULES[name].removesuffix(".__main__")} '
  _, usage, *_ = declared.doc.split('\n\n')
  assert usage.startswith(program)
  assert declared.example.startswith(program)
  args = declared.parse(declared.example.split()[3:])
  assert set(re.findall(r'--(\w+)=', usage)) <= vars(args).keys()
  with pytest.raises(SystemExit) as exit:
    commands.run(declared, ['--help'])
  assert exit.value.code == 0
  said = capsys.readouterr().out
  assert said.startswith(f'usage: {usage}\n\n{declared.doc.splitlines()[0]}\n')
  for metavar in re.findall(r'\b[A-Z]{2,}\b', usage.split('[')[0].split(' --')[0]):
    assert re.search(rf'^  {metavar}\b', said, re.MULTILINE), metavar


@pytest.mark.parametrize(
  ('name', 'argv', 'field'),
  [
    ('convert', ['x', '--out=~/here'], 'out'),
    ('export', ['x', '--out=~/here'], 'out'),
    ('weights', ['lpips', '--file=~/here'], 'file'),
    ('prepare', ['x', '~/here'], 'out'),
  ],
)
def test_the_home_folder_may_be_written_as_one_does(name, argv, field, monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  args = importlib.import_module(MODULES[name]).COMMAND.parse(argv)
  assert getattr(args, field) == pathlib.Path('/home/me/here')


@pytest.mark.parametrize('argv', [[], ['-h'], ['--help']], ids=str)
def test_all_commands_are_listed_without_jax(argv):
  code = 'import sys; from vqjax.__main__ import main; main(sys.argv[1:]); print(*sys.modules)'
  done = command('-c', code, *argv)
  *listed, modules = done.stdout.splitlines()
  assert re.findall(r'^  (\w+)  +[A-Z].*\.$', '\n'.join(listed), re.MULTILINE) == [*MODULES]
  assert not {'jax', 'numpy', 'vqjax.commands'} & set(modules.split())


def test_another_name_is_refused_with_those_there_are():
  done = command('-m', 'vqjax', 'train')
  assert (done.returncode, done.stdout) == (1, '')
  assert done.stderr == f"error: 'train' is no command; legal: {', '.join(MODULES)}.\n"


def test_a_command_by_its_name(tmp_path):
  done = command('-m', 'vqjax', 'compare', 'runs/none', f'--out={tmp_path}')
  assert (done.returncode, done.stdout) == (1, '')
  assert done.stderr.startswith('error: a comparison takes two runs or more, and 1 is given')
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  assert project['scripts'] == {'vqjax': 'vqjax.__main__:main'}
