"""Checkpoints of a run: atomic, asynchronous, checked before they are used. The door to Orbax.

A checkpoint is one folder `<directory>/<step>` with two items: `state`, the arrays, and `record`,
JSON with what the caller wants to remember beside them, the metrics that rank the checkpoint, and
the path, dtype and shape of every array; and digests of all files, which a restore compares.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
import tensorstore
from jax.experimental import multihost_utils

from vqjax.errors import UserError
from vqjax.runs import digests
from vqjax.runs.folder import saved_steps
from vqjax.runs.quiet import quiet
from vqjax.whole_files import free, reason

_log = logging.getLogger('vqjax')


class Checkpoints:
  """Saves and restores the train state of one run in `directory`.

  Every process of a run makes one and calls `save` and `restore` with the same arguments.
  Kept are the newest `keep` checkpoints and the one with the largest `best_metric`.
  An unfinished checkpoint, of a run that was killed while it saved, is reported and deleted.
  `read_only` touches nothing: in a run that still trains it is the one being written.

  Raises:
    UserError: `keep` is less than 1.
  """

  def __init__(
    self,
    directory: str | Path,
    *,
    keep: int = 3,
    best_metric: str = 'psnr',
    read_only: bool = False,
  ) -> None:
    if keep < 1:
      raise UserError(f'The number of checkpoints to keep is {keep}; legal: at least 1.')
    self._directory = Path(directory).absolute()
    self._read_only = read_only
    self._policy = _NewestAndBest(keep, best_metric)
    for step in saved_steps(self._directory):
      with contextlib.suppress(OSError, ValueError):  # Damaged: `restore` reports it.
        self._policy.score(step, _read(self._directory / str(step))['metrics'])
    if not read_only:
      quiet()
      self._report_unfinished()
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._policy,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        # Threads would wait ten minutes for folders that another could not make.
        async_options=ocp.AsyncOptions(
          post_finalization_callback=self._seal, create_directories_asynchronously=False
        ),
      ),
      item_names=('state', 'record'),
    )

  def save(
    self,
    step: int,
    state: Any,
    record: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Starts to save `state` with the JSON-able `record`, and returns while it is being written.

    The state's buffers may be donated as soon as this returns. A step that is there already is
    skipped. `metrics` are means of an evaluation; without `best_metric` among them, or with a
    value that is not finite, the checkpoint is no candidate for the best.

    Raises:
      UserError: the disk refused, in this save or in an earlier one in the background.
    """
    if step in self.steps():
      return
    metrics = {name: float(value) for name, value in (metrics or {}).items()}
    content = {'record': record, 'metrics': metrics, 'arrays': _arrays(state), 'digests': True}
    content = json.loads(json.dumps(content))  # The caller may go on to change its record.
    self._policy.score(step, metrics)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(content))
    with _disk_errors(self._directory):
      self._manager.save(step, args=args, force=True)  # When to save is the caller's decision.

  def require_room(self, abstract_state: Any, count: int) -> None:
    """Sees that `count` more checkpoints find room; what compression saves is not counted on.

    Raises:
      UserError: there is less.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_state))
    needed, there = count * size / 1e6, free(self._directory) / 1e6
    if there < needed:
      kind = f'checkpoint{"s" * (count > 1)} of {size / 1e6:,.1f} MB'
      raise UserError(
        f'{self._directory} has {there:,.1f} MB free, but {count} {kind} need {needed:,.1f} MB; '
        'make room, or choose a folder on another disk.'
      )

  def restore(
    self, abstract_state: Any, step: int | None = None, *, part: bool = False
  ) -> tuple[Any, dict[str, Any]] | None:
    """Returns (state, record) of the newest whole checkpoint, or None if the folder has none.

    The record is what it was saved with, and its `step`.

    `abstract_state` has a `jax.ShapeDtypeStruct` for every array; its shardings are where the
    arrays go, whatever they were when saved. All files of a checkpoint are read once to see that
    they are what was written, and only then restored from. A damaged checkpoint is passed over with
    a warning and moved aside, to `damaged_checkpoints` beside the folder, so that its step can be
    saved again. With `step`, only that checkpoint will do. With `part`, `abstract_state` may be a
    tree of dicts with some of the arrays, and gets only those.

    Raises:
      UserError: the arrays in the checkpoint are not those of `abstract_state`; there are
        checkpoints and all are damaged; `step` is not there.
    """
    self.wait()
    steps = self.steps()
    if step is not None:
      _require(step, steps, self._directory)
      steps = [step]
    damaged = {}
    for step in reversed(steps):
      folder = self._directory / str(step)
      try:
        content = _read(folder)
        # Either may be what is damaged.
        if content.get('digests') or (folder / digests.NAME).exists():
          digests.check(folder)
        else:  # written before 0.2
          _read_through(folder)
      except (OSError, ValueError) as error:
        damaged[step] = _brief(error)
        continue
      _compare(folder, content['arrays'], _arrays(abstract_state), part)
      if damaged:
        self._set_aside(damaged, step)
      if part:
        return _restore_part(folder / 'state', abstract_state), content['record']
      args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
      return self._manager.restore(step, args=args).state, content['record']
    if damaged:
      reasons = '\n'.join(f'  step {step}: {reason}' for step, reason in damaged.items())
      raise UserError(
        f'No whole checkpoint in {self._directory}:\n{reasons}\n'
        'Put a sound copy in its place, or move that folder away to start from step 0.'
      )
    return None

  def steps(self) -> list[int]:
    """The steps that are saved or being saved, ascending."""
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """The step with the best metric, or None if no checkpoint has it."""
    return self._policy.best(self.steps())

  def wait(self) -> None:
    """Waits for the save in the background, and raises what went wrong with it."""
    with _disk_errors(self._directory):
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits like `wait`, then frees the threads."""
    with _disk_errors(self._directory):
      try:
        self._manager.wait_until_finished()
      finally:
        self._manager.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _seal(self):
    """Adds digests. Orbax calls it when all files are written and the folder has no name yet."""
    if jax.process_index() == 0:
      folders = self._directory.glob('*.orbax-checkpoint-tmp*')
      # One save at a time: the newest is its own, and others are of saves that failed.
      digests.write(max(folders, key=lambda path: path.stat().st_mtime_ns))

  def _report_unfinished(self):
    unfinished = self._directory.glob('*.orbax-checkpoint-tmp*')
    names = ', '.join(sorted(path.name.split('.')[0] for path in unfinished))
    if names and jax.process_index() == 0:
      steps = saved_steps(self._directory)
      then = f'using step {steps[-1]}' if steps else 'there is no other'
      _log.warning('found an unfinished checkpoint of step %s; %s', names, then)

  def _set_aside(self, damaged, whole):
    multihost_utils.sync_global_devices('vqjax: checkpoints checked')
    if jax.process_index() == 0:
      for step, reason in damaged.items():
        moved = ''
        if not self._read_only:
          place = self._directory.parent / 'damaged_checkpoints'
          names = itertools.chain([str(step)], (f'{step}.{n}' for n in itertools.count(1)))
          target = next(place / name for name in names if not (place / name).exists())
          place.mkdir(exist_ok=True)
          (self._directory / str(step)).rename(target)
          moved = f', moved to {target}'
        _log.warning(
          'the checkpoint of step %d is damaged (%s)%s; using step %d', step, reason, moved, whole
        )
    multihost_utils.sync_global_devices('vqjax: damaged checkpoints moved')
    self._manager.reload()


@dataclasses.dataclass
class _NewestAndBest:
  """Which checkpoints stay, for Orbax to ask.

  Orbax's own policies want a metrics item of its own, and one that is damaged keeps its manager
  from opening the folder at all.
  """

  keep: int
  metric: str
  scores: dict[int, float] = dataclasses.field(default_factory=dict)

  def score(self, step, metrics):
    self.scores.pop(step, None)  # Of an attempt that failed.
    value = metrics.get(self.metric, math.nan)
    if math.isfinite(value):
      self.scores[step] = value

  def best(self, steps):
    scored = [step for step in steps if step in self.scores]
    return max(scored, key=lambda step: (self.scores[step], step), default=None)

  def should_preserve(self, checkpoints, *, context):
    steps = sorted(checkpoint.step for checkpoint in checkpoints)
    kept = {*steps[-self.keep :], self.best(steps)}
    return [checkpoint.step in kept for checkpoint in checkpoints]


@contextlib.contextmanager
def _disk_errors(directory):
  """Turns a full disk or a missing permission into a UserError."""
  try:
    yield
  except Exception as error:
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's
    refusal = OSError(int(code[1]), os.strerror(int(code[1]))) if code else error
    if isinstance(refusal, OSError):
      raise UserError(
        f'A checkpoint could not be saved to {directory} ({reason(refusal, directory)}); make room '
        'or mend the permissions, then start the same command again: it resumes from the last '
        'checkpoint.'
      ) from error
    raise


def _require(step, steps, directory):
  if step not in steps:
    raise UserError(f'{directory} has no checkpoint of step {step}; legal: {steps}.')


def _read(folder):
  """The content of a checkpoint's JSON item; its record says the step too.

  Raises OSError or ValueError if it is damaged, which may show before digests are compared.
  """
  try:
    content = json.loads((folder / 'record' / 'metadata').read_text())
    content['record']['step'] = int(folder.name)
    content['metrics'] = {name: float(value) for name, value in content['metrics'].items()}
    content['arrays'].items()
  except (KeyError, TypeError, AttributeError, RecursionError) as error:
    raise ValueError(f'{folder / "record"} is not as it was written') from error
  return content


def _read_through(folder):
  """Raises OSError or ValueError unless all that a restore will need can be read.

  Orbax would find most of it too, but only while other reads are under way, which then fail
  noisily; and its exceptions do not tell a damaged file from a wrong argument.
  """
  state = folder / 'state'
  for path in (state / '_METADATA', *state.glob('array_metadatas/*')):
    json.loads(path.read_text())
  base = {'driver': 'file', 'path': f'{state}/'}
  store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
  keys = store.list().result()
  # Where a file is gone, TensorStore finds no keys, or empty values, which are never stored.
  if not keys or not all(store.read(key).result().value for key in keys):
    raise ValueError(f'a file is missing in {state}')


def _arrays(tree):
  """Path -> dtype and shape, as text, of every array in a tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  return {name(path): f'{leaf.dtype}{list(leaf.shape)}' for path, leaf in leaves}


def _restore_part(folder, abstract):
  args = ocp.args.PyTreeRestore(
    abstract,
    restore_args=jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding), abstract),
    partial_restore=True,
  )
  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.restore(folder, args=args)


def _compare(folder, stored, expected, part):
  # Orbax has restored trees that only overlap without a word.
  lines = [f'  missing: {name} {expected[name]}' for name in expected if name not in stored]
  if not part:
    lines += [f'  unexpected: {name} {stored[name]}' for name in stored if name not in expected]
  lines += [
    f'  different: {name} is {stored[name]}, expected {expected[name]}'
    for name in expected
    if stored.get(name, expected[name]) != expected[name]
  ]
  if lines:
    raise UserError(
      f'The checkpoint {folder} does not fit this config; use the config that it was trained '
      'with, or another workdir. In the checkpoint:\n' + '\n'.join(lines)
    )


def _brief(error):
  # TensorStore's messages go on for a page: what failed comes first, why comes last.
  text = str(error).split(' [source')[0].replace('\n', ' ')
  return text if len(text) <= 400 else f'{text[:150]} ... {text[-250:]}'
