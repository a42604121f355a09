"""3x3 convolutions of stride 1, and their gradients, as a CPU computes them fastest.

XLA's gradient of a kernel runs on a CPU at a third of the rate of a matrix product, and a wide 3x3
convolution needs 2.25 times fewer multiplications than its definition has. On accelerators, and
for dtypes other than float32, all of this is XLA's own convolution.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Where the sums of Winograd's form cost less than the products that they save: channels at least,
# and numbers at most in one image, which should stay in the cache. Not in a batch: an image has the
# same tokens in every one.
WIDE = 256
SMALL = 2**19

_Function = Callable[..., Any]  # (x, kernel) -> y, its pull-back, the pull-back's, and so on
_Padding = tuple[tuple[int, int], tuple[int, int]]
_SAME: _Padding = ((1, 1), (1, 1))


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Cross-correlation padded by one row and column of zeros: [B H W C] [3 3 C O] -> [B H W O].

  Differentiable in reverse mode, any number of times; not in forward mode (`jax.jvp`).
  """
  return _either(_conv3x3_on_cpu, _same, x, kernel)


def upsampled_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`conv3x3` of the image of twice the size, each pixel repeated: [B h w C] -> [B 2h 2w O].

  Differentiable as that is.
  """
  return _either(_four_phases, _repeated, x, kernel)


def _plain(x: jax.Array, kernel: jax.Array, padding: _Padding) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _same(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _plain(x, kernel, _SAME)


def _repeated(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _same(x.repeat(2, axis=1).repeat(2, axis=2), kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _either(on_cpu: _Function, default: _Function, *args: Any) -> Any:
  """One of two equal functions, by platform; so is its gradient, of which each has its own."""
  if jax.tree.leaves(args)[0].dtype != jnp.float32:
    return default(*args)
  return jax.lax.platform_dependent(*args, cpu=on_cpu, default=default)


def _either_forward(on_cpu, default, *args):
  return _either(on_cpu, default, *args), args


def _either_backward(on_cpu, default, args, dy):
  pull = lambda f: lambda dy, *args: jax.vjp(f, *args)[1](dy)
  return _either(pull(on_cpu), pull(default), dy, *args)


_either.defvjp(_either_forward, _either_backward)


def _conv3x3_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
  height, width, channels = x.shape[1:]
  wide = min(channels, kernel.shape[-1]) >= WIDE
  small = height * width * max(channels, kernel.shape[-1]) <= SMALL
  if wide and small and height % 2 == width % 2 == 0:
    return _winograd(x, kernel)
  return _conv(x, kernel, _SAME)


def _four_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Pixels of equal parity see repeated pixels at equal places: four convolutions of 2x2."""
  batch, height, width, _ = x.shape
  halves = lambda k: (jnp.stack([k[0], k[1] + k[2]]), jnp.stack([k[0] + k[1], k[2]]))
  transposed = lambda k: k.swapaxes(0, 1)
  pads = ((1, 0), (0, 1))
  rows = []
  for row, row_pad in zip(halves(kernel), pads, strict=True):
    phases = zip(halves(transposed(row)), pads, strict=True)
    rows.append(jnp.stack([_conv(x, transposed(k), (row_pad, pad)) for k, pad in phases], axis=3))
  return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def _over_positions(x: jax.Array, y: jax.Array) -> jax.Array:
  """`sum_p x[p] y[p]'`: [B h w C] [B h w O] -> [C O]."""
  x, y = (a.reshape(-1, a.shape[-1]) for a in (x, y))  # three axes to sum over are slower than one
  return jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())))


def _flipped(kernel: jax.Array) -> jax.Array:
  """The kernel of the gradient for the input."""
  return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, padding: _Padding) -> jax.Array:
  """XLA's convolution of stride 1, of any size, with the kernel's gradient as matrix products."""
  return _plain(x, kernel, padding)


def _conv_forward(x, kernel, padding):
  return _plain(x, kernel, padding), (x, kernel)


def _conv_backward(padding, saved, dy):
  x, kernel = saved
  rows, columns = kernel.shape[:2]
  around: Any = tuple(
    (n - 1 - low, n - 1 - high) for n, (low, high) in zip((rows, columns), padding, strict=True)
  )
  dx = _plain(dy, _flipped(kernel), around)
  # dk[i, j] = sum_p x[p + (i, j)] dy[p]: with rows of x and columns of dy shifted, one product.
  height, width = dy.shape[1], x.shape[2] + sum(padding[1])
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  xs = jnp.concatenate([x[:, i : i + height] for i in range(rows)], axis=-1)
  shift = lambda j: jnp.pad(dy, ((0, 0), (0, 0), (j, width - dy.shape[2] - j), (0, 0)))
  dys = jnp.concatenate([shift(j) for j in range(columns)], axis=-1)
  xs, dys = jax.lax.optimization_barrier((xs, dys))  # or the copies are made within the product
  dk = _over_positions(xs, dys)
  dk = dk.reshape(rows, x.shape[-1], columns, dy.shape[-1]).swapaxes(1, 2)
  return dx, dk


_conv.defvjp(_conv_forward, _conv_backward)


@jax.custom_vjp
def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Tiles of 2x2 outputs from 4x4 inputs, `y = A' [(G k G') * (B' x B)] A`: even sizes, SAME.

  16 products of a quarter of the positions, in place of 9 of all. Lavin and Gray, Fast Algorithms
  for Convolutional Neural Networks (CVPR 2016), section 4.1, F(2x2, 3x3).
  """
  taps = _twice(_tap, kernel)
  tiles = _tiles(x)
  return _untiled([[tiles[u][v] @ taps[u][v] for v in range(4)] for u in range(4)])


def _winograd_forward(x, kernel):
  return _winograd(x, kernel), (x, kernel)


def _winograd_backward(saved, dy):
  # Or the compiler would keep the tiles of every layer from the forward pass, four times its input.
  x = jax.lax.optimization_barrier(saved[0])
  batch, height, width, _ = x.shape
  # The kernel turned by 180 degrees has the same taps, the outer ones exchanged.
  taps, turned, tiles = _twice(_tap, saved[1]), (3, 1, 2, 0), _tiles(dy)
  back = lambda tile, tap: jax.lax.dot_general(tile, tap, (((3,), (1,)), ((), ())))
  dx = _untiled(
    [[back(tiles[u][v], taps[turned[u]][turned[v]]) for v in range(4)] for u in range(4)]
  )
  parts = dy.reshape(batch, height // 2, 2, width // 2, 2, -1)
  spread = _twice(_spread, [[parts[:, :, i, :, j] for j in range(2)] for i in range(2)])
  tiles = _tiles(x)
  products = [[_over_positions(tiles[u][v], spread[u][v]) for v in range(4)] for u in range(4)]
  return dx, jnp.stack([jnp.stack(row) for row in _twice(_untap, products)])


_winograd.defvjp(_winograd_forward, _winograd_backward)


def _untiled(products):
  """`A' m A`, put together: 4 x 4 of [B H/2 W/2 O] -> [B H W O]."""
  y = jnp.stack([jnp.stack(row, axis=3) for row in _twice(_sums, products)], axis=2)
  batch, height, _, width, _, outputs = y.shape
  return y.reshape(batch, 2 * height, 2 * width, outputs)


def _tiles(x):
  """`B' d B` of the 4x4 pixels d around each 2x2: 4 x 4 of [B H/2 W/2 C]."""
  batch, height, width, channels = x.shape
  h, w = height // 2, width // 2
  x = jnp.pad(x, ((0, 0), *_SAME, (0, 0))).reshape(batch, h + 1, 2, w + 1, 2, channels)
  cut = lambda i, j: x[:, i // 2 : i // 2 + h, i % 2, j // 2 : j // 2 + w, j % 2]
  return _twice(_differences, [[cut(i, j) for j in range(4)] for i in range(4)])


def _twice(transform, square):
  """A transform of columns, then of rows."""
  columns = [transform(column) for column in zip(*square, strict=True)]
  return [transform(row) for row in zip(*columns, strict=True)]


def _differences(d: Sequence[jax.Array]) -> list[jax.Array]:
  return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _tap(k: Sequence[jax.Array]) -> list[jax.Array]:
  return [k[0], (k[0] + k[1] + k[2]) / 2, (k[0] - k[1] + k[2]) / 2, k[2]]


def _untap(k: Sequence[jax.Array]) -> list[jax.Array]:
  return [k[0] + (k[1] + k[2]) / 2, (k[1] - k[2]) / 2, (k[1] + k[2]) / 2 + k[3]]


def _sums(m: Sequence[jax.Array]) -> list[jax.Array]:
  return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _spread(y: Sequence[jax.Array]) -> list[jax.Array]:
  return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]
