"""How close reconstructions are to their originals: the numbers of a batch of pairs."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vqjax import weights
from vqjax.evaluation import metrics
from vqjax.evaluation.table import METRICS
from vqjax.networks import LPIPS, Inception
from vqjax.networks.lpips import SMALLEST
from vqjax.tokenizer import to_uint8

# Per image, mean over images.
PIXELS = {name: metric.of_pixels for name, metric in METRICS.items() if metric.of_pixels}
LPIPS_NETS = {  # by the name of the number
  name: metric.network.removeprefix('lpips_')
  for name, metric in METRICS.items()
  if metric.network.startswith('lpips_')
}


NO_CLASSES = (
  'needs the classes of Inception-v3, which the weights fetched do not have: '
  'python -m vqjax.weights inception --file=pt_inception-2015-12-05-6726825d.pth'
)


class Rounding(NamedTuple):
  """How reconstructions are rounded before they are compared."""

  round: Callable[[jax.Array], jax.Array]
  meaning: str


# Reconstructions in [0, 1], or a little beyond, to the pixels that are compared.
ROUNDINGS = {
  'uint8': Rounding(to_uint8, 'clipped to [0, 1], rounded to 8 bits'),
  'none': Rounding(
    lambda y: jnp.clip(y, 0, 1), "clipped to [0, 1], not rounded, as in OptVQ's evaluation"
  ),
  'wrap': Rounding(
    lambda y: jnp.trunc(255 * y).astype(jnp.int32).astype(jnp.uint8),
    "255 y cut to an integer, modulo 256 without clipping, as in the rotation trick's evaluation "
    'of VQ-VAEs',
  ),
}


def load_network_params() -> dict[str, Any]:
  """Parameters of the pretrained networks that are on this machine, by their name in `weights`.

  Raises:
    UserError: a file is damaged.
  """
  names = {metric.network: None for metric in METRICS.values() if metric.network}
  return {name: weights.load(name) for name in names if weights.available(name)}


def definitions(network_params: Mapping[str, Any]) -> dict[str, str]:
  """The meaning of every number, with the provenance of the weights behind it."""
  # Once each: it reads the file, to see that it is whole.
  origins = {network: weights.provenance(network) for network in network_params}
  return {
    name: metric.meaning
    + (f'; weights: {origins[metric.network]}' if metric.network in network_params else '')
    for name, metric in METRICS.items()
    if metric.meaning
  }


def missing(network_params: Mapping[str, Any], size: tuple[int, int]) -> dict[str, str]:
  """Numbers that cannot be computed on images of `size`, (height, width), and what they need."""
  found: dict[str, str] = {}
  if min(size) < metrics.SSIM_WINDOW:
    found |= dict.fromkeys(('ssim', 'ssim_luma'), _larger(metrics.SSIM_WINDOW))
  for name, metric in METRICS.items():
    if metric.network and metric.network not in network_params:
      network = metric.network
      command = f'python -m vqjax.weights {weights.group_of(network)}'
      found[name] = f'needs the weights {network}: {command}'
  for name, net in LPIPS_NETS.items():
    if name not in found and min(size) < SMALLEST[net]:
      found[name] = _larger(SMALLEST[net])
  if 'inception_score' not in found and 'fc' not in network_params['inception']:
    found['inception_score'] = NO_CLASSES
  return found


def mean_color(images: metrics.Images) -> jax.Array:
  """Images of one colour each, the mean of the image's own: uint8 [B H W 3] -> the same."""
  means = jnp.mean(images.astype(jnp.float32) / 255, axis=(1, 2), keepdims=True)
  return jnp.broadcast_to(to_uint8(means), images.shape)


def score(
  network_params: Mapping[str, Any],
  x: jax.Array,
  y: jax.Array,
  numbers: Collection[str] = tuple(METRICS),
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """Compares originals, uint8 [B H W 3], with reconstructions, uint8 or float in [0, 1].

  Args:
    network_params: what `load_network_params` gives, or a part of it.
    x: originals.
    y: what they are compared with.
    numbers: names of those to compute, where they can be; the others are left out.

  Returns:
    (values, seen). Values are float32 [B], by name; `seen` has, with Inception, `features`,
    float32 [2 B 2048], of originals and reconstructions, and with its classes `probabilities`,
    float32 [B 1008], of reconstructions.
  """
  absent = missing(network_params, (x.shape[1], x.shape[2]))
  wanted = [name for name in METRICS if name in numbers and name not in absent]
  values: dict[str, Any] = {name: of(x, y) for name, of in PIXELS.items() if name in wanted}
  seen: dict[str, Any] = {}
  with jax.default_matmul_precision('highest'):
    for name, net in LPIPS_NETS.items():
      if name in wanted:
        params = {'params': network_params[METRICS[name].network]}
        values[name] = LPIPS(net).apply(params, _beside(_signed(x), _signed(y)), method=_distance)
    if 'rfid' in wanted:
      params = {'params': network_params['inception']}
      features: Any = Inception().apply(params, _beside(_positive(x), _positive(y)))
      seen['features'] = jnp.swapaxes(_apart(features), 0, 1)
      if 'inception_score' in wanted:
        probabilities = Inception().apply(params, seen['features'][1], method='probabilities')
        seen['probabilities'] = probabilities
  return values, seen


def see(network_params: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
  """What Inception says of generated images, uint8 [B H W 3], by the ADM evaluator's protocol.

  Returns:
    `pool`, float32 [B 2048], `spatial`, float32 [B 2023], and with classes in the weights
    `probabilities`, float32 [B 1008].
  """
  net, params = Inception('adm'), {'params': network_params['inception']}
  found: Any = net.apply(params, images, method='pooled_and_spatial')
  seen = dict(zip(('pool', 'spatial'), found, strict=True))
  if 'fc' in network_params['inception']:
    found = net.apply(params, seen['pool'], method='probabilities')
    seen['probabilities'] = found
  return seen


# One pass over originals and reconstructions is half the program of two. They alternate, so that a
# batch that is split over devices stays where it is.
def _beside(x, y):
  """Two [B ...] -> [2B ...]."""
  return jnp.stack([x, y], axis=1).reshape(-1, *x.shape[1:])


def _apart(rows):
  """[2B ...] -> [B 2 ...]."""
  return rows.reshape(-1, 2, *rows.shape[1:])


def _distance(lpips, images):
  taps = [_apart(tap) for tap in lpips.features(images)]
  return lpips.distances([tap[:, 0] for tap in taps], [tap[:, 1] for tap in taps]).sum(-1)


def _signed(images):
  """[0, 255] or [0, 1] -> [-1, 1]."""
  return images.astype(jnp.float32) / (127.5 if images.dtype == jnp.uint8 else 0.5) - 1


def _positive(images):
  """[0, 255] or [0, 1] -> [0, 1]."""
  return images.astype(jnp.float32) / (255 if images.dtype == jnp.uint8 else 1)


def _larger(side):
  return f'needs images of {side} x {side} pixels or more'
