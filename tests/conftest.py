"""Every test runs on eight virtual CPU devices, with strict promotion rules.

Programs here run once or twice and are small, so nearly all the time goes into tracing and
compiling them. XLA is told to hurry, and Python to look for garbage seldom; XLA_FLAGS from outside
stand behind and win: `XLA_FLAGS=--xla_backend_optimization_level=3`. And what a process compiled
with some effort it keeps in a folder, for the next time that somebody traces the same program: it
itself, a command that it starts, or another worker. With a bound on the folder JAX takes a lock.
"""

import atexit
import gc
import logging
import os
import pathlib
import shutil
import tempfile

from xla_flags import FUSION_IS_A_CHOICE

WORKER = os.environ.get('PYTEST_XDIST_WORKER')
# 'cuda,cpu' holds the quantizers' goldens to a GPU (benchmarks/gpu.py); the rest is for CPUs.
PLATFORM = os.environ.get('VQJAX_TEST_PLATFORM', 'cpu')
if WORKER is None:  # the process that starts the workers, or that runs the tests itself
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='vqjax_compiled_')
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
  flags = (
    '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true '
    '--xla_force_host_platform_device_count=8 '
    '--xla_cpu_parallel_codegen_split_count=1'  # the cores are busy with the other workers
  )
  if FUSION_IS_A_CHOICE:
    flags += ' --xla_cpu_use_fusion_emitters=false'  # which compile for longer
  if PLATFORM == 'cpu':
    os.environ['XLA_FLAGS'] = f'{flags} {os.environ.get("XLA_FLAGS", "")}'.strip()
os.environ['JAX_COMPILATION_CACHE_MAX_SIZE'] = str(2**32)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = os.environ.get('MINC', '0.3')
os.environ['JAX_PLATFORMS'] = PLATFORM
# On busy cores the threads of NumPy's BLAS wait for one another 30 times as long as they work.
os.environ['OPENBLAS_NUM_THREADS'] = '1'

import jax  # noqa: E402 (the environment stands first)
import pytest  # noqa: E402

gc.set_threshold(200_000, 50, 100)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


# The files that take longest. They go first: a worker that began one of them last would end alone.
LONGEST = (
  'test_train.py',
  'test_train_generator.py',
  'test_demos.py',
  'convert/test_golden_checkpoints.py',
  'test_train_generator.py',
  'evaluation/test_scoring.py',
  'test_pretrained.py',
  'test_commands.py',
  'test_eval.py',
  'training/test_golden_training.py',
  'convert/test_conversion.py',
  'quantizers/test_seeding.py',
  'test_sharding.py',
  'convert/test_generator_commands.py',
  'generation/test_masked_samplers.py',
  'training/test_golden_losses.py',
  'studies/test_study_run.py',
  'test_toy.py',
  'faults/test_nonfinite_steps.py',
  'faults/test_several_processes.py',
)


def pytest_collection_modifyitems(items):
  place = {pathlib.Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
  assert all(path.exists() for path in place), 'conftest.LONGEST names a file that is not there'
  items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture
def one_device(monkeypatch):
  """Programs see one device."""
  import devices  # ours, and so JAX, once the environment stands

  devices.see_one(monkeypatch)


@pytest.fixture(autouse=True)
def _loggers():
  """Undoes what commands do to loggers, in the fixtures of a module too: their stdout is closed."""
  libraries = {name: logging.getLogger(name).level for name in ('absl', 'jax', 'orbax')}
  _as_imported(logging.getLogger('vqjax'))
  yield
  _as_imported(logging.getLogger('vqjax'))
  for name, level in libraries.items():
    logging.getLogger(name).setLevel(level)


def _as_imported(logger):
  logger.setLevel(logging.NOTSET)
  logger.propagate, logger.handlers = True, []
