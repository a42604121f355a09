"""What a run tells the world: messages, metrics, pictures. The door to tensorboardX and clu."""

import collections
import contextlib
import datetime
import errno
import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from clu import parameter_overview as clu_overview
from numpy.typing import ArrayLike
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vqjax.whole_files import REFUSALS, replacing, writing


class _Stdout(logging.StreamHandler):
  """Is silent when nobody reads any more, as behind `| head`, or the disk it goes to is full."""

  def handleError(self, record):
    error = sys.exception()
    if not (isinstance(error, OSError) and error.errno in (errno.EPIPE, *REFUSALS)):
      super().handleError(record)


def setup(verbose: bool = True) -> None:
  """Sends the messages of `vqjax` to stdout, as they are, and quiets the libraries below.

  Calling it again changes `verbose` and nothing else. Pass `jax.process_index() == 0`: without
  `verbose` only warnings come through.
  """
  handler = _Stdout(sys.stdout)
  handler.setFormatter(logging.Formatter('%(message)s'))
  logger = logging.getLogger('vqjax')
  logger.handlers = [handler]
  logger.setLevel(logging.INFO if verbose else logging.WARNING)
  # Under absl's main the root logger prints too.
  logger.propagate = False
  for name in ('absl', 'jax', 'orbax'):
    logging.getLogger(name).setLevel(logging.WARNING)


def parameter_summary(params: Mapping[str, Any]) -> str:
  """Returns `1,046,369 parameters: encoder 500,000, decoder 500,000, ...`, the largest part first.

  Parts are the names at the top; those that differ in a number behind them alone are one.
  """
  parts = collections.Counter[str]()
  for name, tree in params.items():
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)]
    parts[re.sub(r'_\d+$', '', name)] += sum(sizes)
  words = ', '.join(f'{name} {count:,}' for name, count in parts.most_common())
  return f'{parts.total():,} parameters: {words}'


class RunWriter:
  """Writes the metrics and pictures of one run into `workdir`.

  `metrics.jsonl` gets one object a line, `samples/` the pictures, and TensorBoard events both.
  What a crash left behind the checkpoint of `resume_step`, which is about to be trained again, is
  dropped: later lines of metrics.jsonl, one that was half written, and later events.

  Make one on every process, with `enabled` on the first only: the others write nothing.

  Raises:
    OSError: here and in every method, with the path: the disk takes no more.
  """

  def __init__(self, workdir: str | Path, *, resume_step: int = 0, enabled: bool = True) -> None:
    self._enabled = enabled
    if not enabled:
      return
    self._samples = Path(workdir) / 'samples'
    self._samples.mkdir(parents=True, exist_ok=True)
    metrics = Path(workdir) / 'metrics.jsonl'
    if metrics.exists():
      _drop_lines_after(metrics, resume_step)
    self._metrics_path, self._metrics = metrics, metrics.open('a')
    self._events = _Events(Path(workdir), resume_step)

  def parameters(self, params: Mapping[str, Any]) -> None:
    """Writes parameters.txt: name, shape, dtype and size of every parameter, and their total."""
    if self._enabled:
      table = clu_overview.get_parameter_overview(params, include_stats=False)
      with replacing(self._samples.parent / 'parameters.txt') as partial:
        partial.write_text(f'{table}\n')

  def scalars(self, step: int, values: Mapping[str, ArrayLike]) -> None:
    """Writes numbers by name; in metrics.jsonl what is not finite becomes null."""
    if not self._enabled:
      return
    numbers = {name: np.asarray(value).item() for name, value in values.items()}
    line = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
    with writing(self._metrics_path):
      self._metrics.write(json.dumps({'step': int(step), **line}) + '\n')
      self._metrics.flush()
    self._events.add(step, [summary.scalar(name, x) for name, x in numbers.items()])

  def images(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a picture, uint8 [H W 3], to `samples/<name>_<step>.png` and TensorBoard.

    Raises:
      ValueError: the dtype or the shape is another one.
    """
    if not self._enabled:
      return
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
      raise ValueError(f'{name} is {image.dtype}{list(image.shape)}; legal: uint8 [H W 3].')
    with replacing(self._samples / f'{name}_{step:08d}.png') as partial:
      Image.fromarray(image).save(partial, 'png')
    self._events.add(step, [summary.image(name, image, dataformats='HWC')])

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._enabled:
      with writing(self._metrics_path), contextlib.closing(self._events):
        self._metrics.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class _Events:
  """The file that TensorBoard reads, written at once.

  A thread does it in tensorboardX's own writer: on a full disk that dies, and whoever hands it the
  next event waits for ever.
  """

  def __init__(self, workdir, resume_step):
    self._writer = EventsWriter(str(workdir / 'events'), f'.from_{resume_step}')
    self._path = workdir
    # Drops what is there of later steps.
    start = {'file_version': 'brain.Event:2'}, {'session_log': SessionLog(status=SessionLog.START)}
    self._write(Event(step=resume_step + 1, **fields) for fields in start)

  def add(self, step, summaries):
    now = time.time()
    self._write(Event(step=int(step), wall_time=now, summary=each) for each in summaries)

  def close(self):
    with writing(self._path):
      self._writer.close()

  def _write(self, events):
    with writing(self._path):
      for event in events:
        self._writer.write_event(event)
      self._writer.flush()


class Progress:
  """Measures the pace of training and words it: images/s now, time left at the mean pace.

  The pace counts from the last `start`, or from construction at step `start_step`. `clock`
  returns seconds.
  """

  def __init__(
    self,
    total_steps: int,
    batch_size: int,
    *,
    tokens_per_image: int = 0,
    start_step: int = 0,
    clock: Callable[[], float] = time.perf_counter,
  ) -> None:
    self._total_steps, self._tokens = total_steps, tokens_per_image
    self._batch_size = batch_size
    self._clock = clock
    # Between the last two calls of `line`: images a second and, where they count, tokens, by name.
    self.pace: dict[str, float] = {}
    self.start(start_step)

  def start(self, step: int) -> None:
    """Counts from now; call it when the first step is done, for compiling it took its time."""
    self._first = self._last = (step, self._clock())

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves the time of the block, an evaluation or a checkpoint, out of the pace."""
    begin = self._clock()
    yield
    paused = self._clock() - begin
    self._first, self._last = ((step, at + paused) for step, at in (self._first, self._last))

  def line(self, step: int, words: Iterable[str] = ()) -> str:
    """Returns `step 120/600 | WORDS | 38.2 images/s | 0:03:20 left`, words joined likewise.

    Where tokens count, `611 tokens/s` stands behind the images.
    """
    now = (step, self._clock())
    seconds = _seconds_per_step(self._last, now)
    self._last, self.pace = now, {}
    parts = [f'step {step}/{self._total_steps}', *words]
    if seconds:
      images = self._batch_size / seconds
      self.pace['images_per_second'] = images
      parts.append(f'{images:.1f} images/s')
      if self._tokens:
        self.pace['tokens_per_second'] = images * self._tokens
        parts.append(f'{images * self._tokens:.0f} tokens/s')
    if seconds := _seconds_per_step(self._first, now):
      left = datetime.timedelta(seconds=round((self._total_steps - step) * seconds))
      parts.append(f'{left} left')
    return ' | '.join(parts)


class ImageProgress:
  """Logs `images 120/600 | 38.2 images/s | 0:00:13 left` every ten seconds, and at the end.

  The first images count for no pace, since a program is compiled for them.
  """

  def __init__(
    self, total: int, *, seconds: float = 10, clock: Callable[[], float] = time.perf_counter
  ) -> None:
    self._done, self._total = 0, total
    self._seconds, self._clock, self._logged = seconds, clock, clock()
    self._progress = Progress(total, 1, clock=clock)

  def add(self, images: int) -> None:
    """Counts images that are done."""
    first = not self._done
    self._done += images
    if first:
      self._progress.start(self._done)
    if self._clock() - self._logged >= self._seconds or self._done == self._total:
      self._logged = self._clock()
      line = self._progress.line(self._done).removeprefix('step ')
      logging.getLogger('vqjax').info('images %s', line)


def _seconds_per_step(begin, end):
  """Mean seconds a step between two (step, time), or None if there was no step."""
  steps = end[0] - begin[0]
  return (end[1] - begin[1]) / steps if steps else None


def read_metrics(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """The lines of a metrics.jsonl, each with what it holds: `step`, and numbers or None by name.

  Leaves out a line that was half written when the run died, and one of another hand.
  """
  for line in path.read_text(errors='replace').splitlines(keepends=True):
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(row, dict) and isinstance(row.get('step'), int):
      yield line, row


def _drop_lines_after(path, step):
  kept = [line for line, row in read_metrics(path) if row['step'] <= step]
  # A crash in here must not cost the lines either.
  with replacing(path) as partial:
    partial.write_text(''.join(kept))
