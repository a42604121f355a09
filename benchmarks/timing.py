"""How the benchmarks take a time and keep what they found."""

import json
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def median_seconds(run: Callable[[], Any], rounds: int, warm_up: int = 2) -> float:
  """Median seconds of a call over `rounds`; `run` returns when its work is done."""
  times = []
  for i in range(warm_up + rounds):
    start = time.perf_counter()
    run()
    if i >= warm_up:
      times.append(time.perf_counter() - start)
  return statistics.median(times)


def images_per_second(batches: Iterator[Any], batch_size: int, count: int) -> float:
  """The rate at which `count` batches come, after a quarter as many that were read ahead."""
  for _ in range(count // 4):
    next(batches)
  start = time.perf_counter()
  for _ in range(count):
    next(batches)
  return count * batch_size / (time.perf_counter() - start)


def peak_memory_mb(of_device: int | None) -> float:
  """The peak in MB that a device counts in bytes; without one, that of this process."""
  if of_device is not None:
    return of_device / 1e6
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts KiB


def keep_each(measurements: Iterable[Callable[[], dict[str, Any]]], out: str | None) -> None:
  """Keeps what each finds; one that fails prints its error, and the status is 1 in the end."""
  failed = False
  for measure in measurements:
    try:
      keep(measure(), out)
    except Exception:
      failed = True
      traceback.print_exc()
  if failed:
    raise SystemExit(1)


def keep(record: dict[str, Any], out: str | None) -> None:
  """Prints a record, and appends it to the file `out`, a JSON object a line."""
  shown = (f'{k} {v:.4g}' if isinstance(v, float) else f'{k} {v}' for k, v in record.items())
  print('  ' + ', '.join(shown), flush=True)
  if out:
    with open(out, 'a') as file:
      print(json.dumps(record), file=file)
