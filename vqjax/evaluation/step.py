"""The evaluation of one batch: reconstruct, compare, and bring what was found to the host."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from vqjax import sharding
from vqjax.evaluation import metrics, scoring
from vqjax.evaluation.results import Found
from vqjax.evaluation.table import METRICS
from vqjax.task import task_of
from vqjax.tokenizer import Tokenizer

Batch = Mapping[str, Any]


def eval_step(
  model: Tokenizer, loss_weights: Mapping[str, float], params: Any, variables: Any, batch: Batch
) -> tuple[jax.Array | None, jax.Array | None, dict[str, jax.Array], jax.Array]:
  """Reconstructs {'image': uint8 [B H W 3], 'label': int32 [B], 'mask': bool [B]}.

  Args:
    model: the tokenizer.
    loss_weights: of the losses that `rec_loss` sums, by name; see `Task`.
    params: of the tokenizer.
    variables: its other collections.
    batch: what masked images get is to be ignored.

  Returns:
    (originals, reconstructions, per-image values float32 [B] by name, tokens [B T]). Originals are
    uint8, reconstructions float32, 0 for black and 1 for white and not clipped, [B H W 3] both; of
    a classifier both are None. `rec_loss` is the objective's pixel term in the model's range, or
    its cross entropy; a classifier has `accuracy` too.
  """
  task, images, mask = task_of(model), batch['image'], batch['mask']
  output: Any = model.apply(
    {'params': params, **variables}, model.normalize(images), train=False, mask=mask
  )
  y, quantized = output
  tokens = quantized.indices.reshape(images.shape[0], -1)
  terms, rec_loss = task.compare(loss_weights, task.target(model, batch), y)
  values = {'rec_loss': rec_loss} | {name: terms[name] for name in task.watched}
  if not task.makes_images:
    return None, None, values, tokens
  values['psnr_mean_color'] = metrics.psnr(images, scoring.mean_color(images))
  return images, model.denormalize(y, clip=False), values, tokens


def make_eval_step(
  model: Tokenizer,
  loss_weights: Mapping[str, float],
  mesh: jax.sharding.Mesh,
  *,
  network_params: Mapping[str, Any],
  numbers: Collection[str] = tuple(METRICS),
  rounding: str = 'uint8',
) -> Callable[[Any, Any, Batch], Found]:
  """The evaluation of a process's own batch, jitted: a function of (params, variables, batch).

  Args:
    model: the tokenizer.
    loss_weights: of the losses that `rec_loss` sums, by name.
    mesh: of the devices.
    network_params: as `scoring.load_network_params` gives them, or a part of it.
    numbers: names of those of images to compute; `psnr` must be among them.
    rounding: of reconstructions before they are compared, a name in `scoring.ROUNDINGS`.
  """

  def step(network_params, params, variables, batch):
    images, y, values, tokens = eval_step(model, loss_weights, params, variables, batch)
    found = {'mask': batch['mask'], 'values': values, 'tokens': tokens}
    if images is not None and y is not None:  # there are both or neither
      y = scoring.ROUNDINGS[rounding].round(y)
      more, seen = scoring.score(network_params, images, y, numbers)
      found |= {'images': (images, y), 'values': values | more, **seen}
    return found

  return _on(mesh, step, network_params)


def make_pair_step(
  mesh: jax.sharding.Mesh, network_params: Mapping[str, Any]
) -> Callable[[Batch], Found]:
  """The evaluation of images that are reconstructed already, jitted: a function of a batch.

  A batch is {'original': uint8 [B H W 3], 'reconstruction': uint8 [B H W 3], 'mask': bool [B]}.
  """

  def step(network_params, batch):
    images = batch['original'], batch['reconstruction']
    values, seen = scoring.score(network_params, *images)
    return {'mask': batch['mask'], 'values': values, 'images': images, **seen}

  return _on(mesh, step, network_params)


def make_sample_step(
  mesh: jax.sharding.Mesh, network_params: Mapping[str, Any]
) -> Callable[[Batch], Found]:
  """What Inception says of generated images, jitted: a function of {'image': uint8 [B H W 3]}."""
  return _on(mesh, lambda params, batch: scoring.see(params, batch['image']), network_params)


def _on(mesh, step, network_params):
  """`step` jitted for the mesh; its last argument is a process's own part of a batch.

  Results are copied to every device, so that any process has all of them.
  """
  jitted = jax.jit(step, out_shardings=sharding.replicated(mesh))
  network_params = jax.device_put(dict(network_params), sharding.replicated(mesh))

  def on_host(*args):
    *others, local = args
    return jax.device_get(jitted(network_params, *others, sharding.put_batch(mesh, local)))

  return on_host
