"""How close reconstructions are to their originals: batches of pairs, and the names of the numbers.

What a number means stands here beside the function that computes it, so that a report can say both.
"""

import jax
import jax.numpy as jnp

from vqjax import weights
from vqjax.evaluation import metrics
from vqjax.networks import LPIPS, Inception
from vqjax.networks.lpips import SMALLEST
from vqjax.tokenizer import to_uint8

# Per image, mean over images.
PIXELS = {
  'psnr': metrics.psnr,
  'ssim': metrics.ssim,
  'psnr_luma': metrics.psnr_luma,
  'ssim_luma': metrics.ssim_luma,
  'l1': metrics.l1,
  'l2': metrics.l2,
}
LPIPS_NETS = {'lpips': 'alex', 'lpips_vgg': 'vgg'}  # by the name of the number
_GROUPS = {'lpips_alex': 'lpips', 'lpips_vgg': 'lpips', 'inception': 'inception'}

# Reconstructions in [0, 1], or a little beyond, to the pixels that are compared.
ROUNDINGS = {
  'uint8': to_uint8,
  'none': lambda y: jnp.clip(y, 0, 1),
  'wrap': lambda y: jnp.trunc(255 * y).astype(jnp.int32).astype(jnp.uint8),
}
ROUNDING_PROTOCOL = {
  'uint8': 'clipped to [0, 1], rounded to 8 bits',
  'none': "clipped to [0, 1], not rounded, as in OptVQ's evaluation",
  'wrap': "255 y cut to an integer, modulo 256 without clipping, as in the rotation trick's "
  'evaluation of VQ-VAEs',
}

PROTOCOL = {
  'accuracy': 'fraction of images whose largest logit is that of their class',
  'psnr': 'dB, RGB, mean over images',
  'ssim': 'RGB, Gaussian window (sigma 1.5, 11 taps), mean over images',
  'psnr_luma': "dB, BT.601 studio-swing luma, mean over images: OptVQ's tables",
  'ssim_luma': "luma of YIQ rounded to 8 bits, the same window, mean over images: OptVQ's tables",
  'l1': 'mean absolute error, pixels in [0, 1]',
  'l2': 'mean squared error, pixels in [0, 1]',
  'lpips': 'AlexNet, version 0.1, mean over images',
  'lpips_vgg': 'VGG16, version 0.1, mean over images',
  'rfid': 'Frechet distance of Inception-v3 pool3 features; images resized to 299 x 299, bilinear '
  'without antialiasing; covariance over N - 1',
  'inception_score': 'of the reconstructions, in one part; Inception-v3, logits without bias',
  'rec_loss': "pixel term of the objective in the model's range, before rounding; or cross entropy",
  'usage': 'fraction of codes that occur in the whole set',
  'usage_65536_tokens': 'fraction of codes that occur in 65,536 consecutive tokens, mean',
  'usage_256_images': 'fraction of codes that occur in 256 consecutive images, mean',
  'perplexity': 'exp of the entropy of the code frequencies over the whole set',
  'token_entropy': 'bits a token, of the code frequencies over the whole set',
  'bits_per_pixel': 'tokens an image times log2 of the number of codes, by pixels',
  'psnr_mean_color': "PSNR of an image of each original's own mean colour, for comparison",
}


def load_networks() -> dict:
  """Parameters of the pretrained networks that are on this machine, by their name in `weights`.

  Raises:
    UserError: a file is damaged.
  """
  return {name: weights.load(name) for name in _GROUPS if weights.available(name)}


def definitions(networks) -> dict[str, str]:
  """PROTOCOL, with the provenance of the weights behind a number."""
  found = dict(PROTOCOL)
  behind = {name: f'lpips_{net}' for name, net in LPIPS_NETS.items()}
  behind |= dict.fromkeys(('rfid', 'inception_score'), 'inception')
  # Once each: it reads the file, to see that it is whole.
  origins = {network: weights.provenance(network) for network in networks}
  for name, network in behind.items():
    if network in networks:
      found[name] += f'; weights: {origins[network]}'
  return found


def missing(networks, size) -> dict[str, str]:
  """What the numbers need that cannot be computed on images of `size`, (height, width), and how."""
  found = {}
  if min(size) < metrics.SSIM_WINDOW:
    found |= dict.fromkeys(('ssim', 'ssim_luma'), _larger(metrics.SSIM_WINDOW))
  for name, net in LPIPS_NETS.items():
    if f'lpips_{net}' not in networks:
      found[name] = _fetch(f'lpips_{net}')
    elif min(size) < SMALLEST[net]:
      found[name] = _larger(SMALLEST[net])
  if 'inception' not in networks:
    found |= dict.fromkeys(('rfid', 'inception_score'), _fetch('inception'))
  elif 'fc' not in networks['inception']:
    found['inception_score'] = (
      'needs the classes of Inception-v3, which the weights fetched do not have: '
      'python -m vqjax.weights inception --file=pt_inception-2015-12-05-6726825d.pth'
    )
  return found


def score(networks, x, y):
  """Compares originals x, uint8 [B H W 3], with y, uint8 or float in [0, 1]: (values, seen).

  `networks` is what `load_networks` gives, or a part of it. Values are float32 [B], by name; `seen`
  has, with Inception, `features`, float32 [2 B 2048], of originals and reconstructions, and with
  its classes `probabilities`, float32 [B 1008], of reconstructions.
  """
  absent = missing(networks, x.shape[1:3])
  values = {name: metric(x, y) for name, metric in PIXELS.items() if name not in absent}
  seen = {}
  with jax.default_matmul_precision('highest'):
    for name, net in LPIPS_NETS.items():
      if name not in absent:
        params = {'params': networks[f'lpips_{net}']}
        values[name] = LPIPS(net).apply(params, _signed(x), _signed(y))
    if 'rfid' not in absent:
      params = {'params': networks['inception']}
      features = [Inception().apply(params, images) for images in (x, y)]
      seen['features'] = jnp.stack(features)
      if 'inception_score' not in absent:
        seen['probabilities'] = Inception().apply(params, features[1], method='probabilities')
  return values, seen


def _signed(images):
  """[0, 255] or [0, 1] -> [-1, 1]."""
  return images.astype(jnp.float32) / (127.5 if images.dtype == jnp.uint8 else 0.5) - 1


def _larger(side):
  return f'needs images of {side} x {side} pixels or more'


def _fetch(network):
  return f'needs the weights {network}: python -m vqjax.weights {_GROUPS[network]}'
