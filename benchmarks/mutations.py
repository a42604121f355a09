"""Damages checkpoints in every way that is cheap to think of, and looks at what the readers say.

python -m benchmarks.mutations FILE[.xz] ... [--count=N] [--seed=N]

Every mutation follows from the file and its seed alone. Whatever it is, a reader ends in a
UserError or in arrays, in less than `SECONDS` and with at most four times the file's size and a
constant in memory. Memory is what was resident at the peak, which the kernel counts for this
process, libraries in other languages among them: address space (RLIMIT_AS) would count what nobody
touches and turn the violation into a MemoryError, which the readers refuse in good order, and
tracemalloc sees only what Python allocates. Prints a table, and every violation with its seed.
"""

import argparse
import collections
import io
import lzma
import pathlib
import random
import struct
import sys
import tempfile
import time
import zipfile
from typing import NamedTuple

from vqjax import convert, tensor_files
from vqjax.errors import UserError
from vqjax.evaluation import statistics

SECONDS = 20
CONSTANT = 2**27  # bytes: the budget's constant, and as much for what a process does anyway
_NUMBERS = (0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


class Outcome(NamedTuple):
  """What became of reading a file."""

  kind: str  # 'arrays', 'UserError', or the name of another exception
  message: str
  seconds: float  # of the processor: others may be busy too
  memory: int  # bytes beyond what was there before


def mutated(content: bytes, seed: int) -> bytes:
  """The bytes with one to three mutations; of an archive at times within a member, made whole."""
  random_ = random.Random(seed)
  if content[:4] == b'PK\3\4' and random_.random() < 0.5:
    return _repacked(content, random_)
  return _changed(content, random_)


def outcome(path: pathlib.Path) -> Outcome:
  """Reads a file as its users would, and measures."""
  before, start, kind, message = _resident(), time.process_time(), '', ''
  try:
    if path.suffix == '.npz':
      statistics.load(path)
    else:
      content = tensor_files.read(path)
      kind = 'arrays'  # though they may be none of a tokenizer
      convert.take_apart(content, path)
    kind = 'arrays'
  except UserError as error:
    kind, message = kind or 'UserError', str(error)
  except Exception as error:  # what must not be
    kind, message = type(error).__name__, repr(error)
  return Outcome(kind, message, time.process_time() - start, _peak() - before)


def wrong(found: Outcome, size: int) -> str:
  """What of an outcome must not be, of a file of `size` bytes; or ''."""
  if found.kind not in ('arrays', 'UserError'):
    return found.message
  if len(found.message) > 2000 or not found.message.isprintable():
    return f'not one sentence: {found.message[:100]!r}'
  if found.seconds > SECONDS:
    return f'{found.seconds:.0f} s'
  if found.memory > 4 * size + CONSTANT:
    return f'{found.memory / 2**20:.0f} MiB for {size / 2**20:.1f}'
  return ''


def _changed(content, random_):
  data = bytearray(content)
  for _ in range(random_.randint(1, 3)):
    if data:
      random_.choice(_MUTATIONS)(data, _position(data, random_), random_)
  return bytes(data)


def _position(data, random_):
  """Near either end as often as near the middle: most of a file is weights, which say nothing."""
  distance = min(int(2 ** random_.uniform(0, len(data).bit_length())) - 1, len(data) - 1)
  return random_.choice((distance, len(data) - 1 - distance, random_.randrange(len(data))))


def _flip(data, at, random_):
  data[at] ^= 1 << random_.randrange(8)


def _overwrite(data, at, random_):
  part = random_.randbytes(random_.randint(1, 16))
  data[at : at + len(part)] = part


def _fill(data, at, random_):
  end = min(at + random_.randint(1, 4096), len(data))
  data[at:end] = bytes([random_.choice((0, 255, 32))]) * (end - at)


def _cut_off(data, at, random_):
  del data[at:]


def _remove(data, at, random_):
  del data[at : at + random_.choice((1, 2, 16, 1000))]


def _repeat(data, at, random_):
  part = data[at : at + random_.choice((1, 8, 64, 4096))]
  data[at:at] = part * random_.choice((1, 1, 2, 50))


def _splice(data, at, random_):
  start, length = _position(data, random_), random_.choice((1, 8, 64, 4096))
  data[at : at + length] = data[start : start + length]


def _length(data, at, random_):
  """Another number in the place of 1, 2, 4 or 8 bytes: one that is extreme, or one off."""
  form = random_.choice(('<B', '<H', '<I', '<Q', '>H', '>I', '>Q'))
  size = struct.calcsize(form)
  if at + size <= len(data):
    (old,) = struct.unpack_from(form, data, at)
    new = random_.choice((*_NUMBERS, old + 1, old - 1, 2 * old, len(data)))
    struct.pack_into(form, data, at, new % 2 ** (8 * size))


_MUTATIONS = (_flip, _overwrite, _fill, _cut_off, _remove, _repeat, _splice, _length, _length)


def _repacked(content, random_):
  """A member changed, and its size and checksum as of what is there now."""
  target = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, 'w') as new:
    names = old.namelist()
    of_structure = [name for name in names if name.endswith(('data.pkl', '.npy'))]
    changed = random_.choice(of_structure or names)
    for name in names:
      data = old.read(name)
      new.writestr(name, _changed(data, random_) if name == changed else data)
  return target.getvalue()


def _resident():
  """Bytes resident now, from where the peak is counted anew."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  return _status('VmRSS')


def _peak():
  return _status('VmHWM')


def _status(name):
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return 1024 * int(next(line for line in lines if line.startswith(f'{name}:')).split()[1])


def run(path: pathlib.Path, seeds: range) -> tuple[collections.Counter[str], list[str], Outcome]:
  """Reads mutations of a file: (how often what, every violation, the worst time and memory)."""
  content, counts, violations = path.read_bytes(), collections.Counter[str](), []
  if path.suffix == '.xz':
    content, path = lzma.decompress(content), path.with_suffix('')
  seconds, memory = 0.0, 0
  with tempfile.TemporaryDirectory() as folder:
    target = pathlib.Path(folder) / f'mutated{path.suffix}'
    for seed in seeds:
      data = mutated(content, seed)
      target.write_bytes(data)
      found = outcome(target)
      counts[found.kind] += 1
      seconds, memory = max(seconds, found.seconds), max(memory, found.memory)
      if what := wrong(found, len(data)):
        violations.append(f'{path.name}, seed {seed}: {what}')
  return counts, violations, Outcome('', '', seconds, memory)


def main() -> None:
  """Prints the table; exit status 1 if anything was violated."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('files', nargs='+', type=pathlib.Path)
  parser.add_argument('--count', type=int, default=3000, help='mutations of all files together')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  each, failed = args.count // len(args.files), False
  print('| file | MB | mutations | arrays | UserError | other | longest, s | most memory, MiB |')
  print('| --- | --: | --: | --: | --: | --: | --: | --: |')
  for path in args.files:
    counts, violations, worst = run(path, range(args.seed, args.seed + each))
    other = each - counts['arrays'] - counts['UserError']
    print(
      f'| {path.name} | {path.stat().st_size / 1e6:.2f} | {each} | {counts["arrays"]} | '
      f'{counts["UserError"]} | {other} | {worst.seconds:.2f} | {worst.memory / 2**20:.0f} |',
      *violations,
      sep='\n',
      flush=True,
    )
    failed |= bool(violations)
  sys.exit(int(failed))


if __name__ == '__main__':
  main()
