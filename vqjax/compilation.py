"""Compiled programs: kept on this machine for the next command, and how hard XLA is to try.

JAX keeps them; here is where, how much, and what becomes of a folder that is not fit for it.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import platform
import re
import warnings
from collections.abc import Callable
from typing import Any

import filelock
import jax

from vqjax.cache_folder import cache_folder
from vqjax.whole_files import reason

log = logging.getLogger('vqjax')

_SETTINGS = {
  'jax_compilation_cache_max_size': 2**30,  # bytes; those that were used longest ago go
  'jax_persistent_cache_min_compile_time_secs': 0.2,  # what takes less is compiled again
  'jax_persistent_cache_enable_xla_caches': 'none',  # another folder within, without a bound
}
_HALVES = ('-cache', '-atime')  # of an entry: the program, and when it was used
_FAILED = re.compile(r"Error (\w+) persistent compilation cache entry for '([^']*)': (.*)", re.S)
_OF_THE_DISK = ('Timeout', 'OSError', 'PermissionError', 'FileNotFoundError')  # not of the entry
# Of /proc/cpuinfo, on x86 and on Arm.
_CPU = ('vendor_id', 'model name', 'flags', 'Features', 'CPU implementer', 'CPU part')


def keep_programs() -> None:
  """Lets this process keep what it compiles, and find what others did, below `cache_folder()`.

  At most 1 GB for each kind of CPU: JAX's keys do not say for which instructions a program was
  compiled. JAX_COMPILATION_CACHE_DIR names another folder, which is left to JAX, and
  JAX_ENABLE_COMPILATION_CACHE=0 switches it off. Where programs cannot be kept, a line of the log
  says so, and they are compiled.
  """
  config: Any = jax.config  # JAX adds its options to the class while it is imported
  if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
    return
  folder = pathlib.Path('compiled', _cpu())
  try:
    folder = cache_folder() / folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Whoever may write there decides what this process executes.
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
      _tell(folder, "somebody else's, or others may write there")
      return
    _sweep(folder)
  except OSError as error:  # a lock that does not come, too
    _tell(folder, reason(error, folder))
    return
  except (RuntimeError, NotImplementedError) as error:  # no home; no locks on this disk
    _tell(folder, error)
    return
  config.update('jax_compilation_cache_dir', str(folder))
  for name, value in _SETTINGS.items():
    if name.upper() not in os.environ:
      config.update(name, value)
  warnings.showwarning = _Failures(folder, warnings.showwarning)


def run_once() -> dict[str, Any]:
  """Compiler options of a program that runs once, and draws all parameters.

  XLA has a kernel for each of them. At level 1 it takes a third of the time, and on a CPU the
  numbers are the same to the bit. A level in XLA_FLAGS stands.
  """
  level = 'xla_backend_optimization_level'
  return {} if level in os.environ.get('XLA_FLAGS', '') else {level: 1}


@dataclasses.dataclass
class _Failures:
  """In the place of `warnings.showwarning`: one line of the log for all failures of the folder."""

  folder: pathlib.Path
  otherwise: Callable[..., None]
  told: bool = False

  def __call__(self, message, *args, **kwargs):
    found = _FAILED.match(str(message))
    if not found:
      self.otherwise(message, *args, **kwargs)
      return
    what, name, error = found.groups()
    with contextlib.suppress(OSError):
      # JAX writes nothing in the place of what is there, so that it would fail in every command.
      damaged = what == 'reading' and not error.startswith(_OF_THE_DISK)
      for path in self.folder.glob(f'{name}-*-cache') if damaged else ():
        path.unlink()
      _sweep(self.folder)
    if not self.told:
      _tell(self.folder, ' '.join(error.split()))
      self.told = True


def _sweep(folder):
  """Removes entries of which a half is missing: JAX writes them last, and stops at one without."""
  with filelock.FileLock(folder / '.lockfile', timeout=10):  # the one that JAX takes
    halves = [{p.name.removesuffix(half) for p in folder.glob(f'*{half}')} for half in _HALVES]
    for key in halves[0] ^ halves[1]:
      for half in _HALVES:
        (folder / f'{key}{half}').unlink(missing_ok=True)


def _tell(folder, error):
  log.warning(
    'compiled programs are not kept in %s: %s; JAX_COMPILATION_CACHE_DIR names another folder',
    *(folder, error),
  )


def _cpu():
  """A name for this machine's kind of CPU."""
  kind = platform.processor()
  with contextlib.suppress(OSError):
    first = pathlib.Path('/proc/cpuinfo').read_text().partition('\n\n')[0]
    kind = '\n'.join(line for line in first.splitlines() if line.split('\t')[0] in _CPU)
  return f'{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}'
