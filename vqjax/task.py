"""What the decoder's output is compared with, and by which losses: images, or labels of classes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vqjax.tokenizer import Tokenizer

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (target [B ...], output [B ...]) -> [B]


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean absolute difference of each image: [B ...], [B ...] -> [B]."""
  return _per_image(jnp.abs(x - y))


def l2(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean squared difference of each image: [B ...], [B ...] -> [B]."""
  return _per_image(jnp.square(x - y))


def cross_entropy(labels: jax.Array, logits: jax.Array) -> jax.Array:
  """`-log softmax(logits)[label]`: int32 [B], [B L] -> [B] in nats; NaN for a label outside 0..L-1.

  NaN and not an error: labels are known only while the step runs. It stops the training loop.
  """
  outside = (labels < 0) | (labels >= logits.shape[-1])
  picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1, mode='clip')
  return jnp.where(outside, jnp.nan, -picked[:, 0])


def accuracy(labels: jax.Array, logits: jax.Array) -> jax.Array:
  """1 where the largest logit is the label's, else 0: int32 [B], [B L] -> [B]."""
  return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def _per_image(values):
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))


@dataclasses.dataclass(frozen=True)
class Task:
  """What the output of a tokenizer's decoder is for.

  Attributes:
    makes_images: whether the output is images, which can be looked at, judged by a discriminator
      and compared by LPIPS.
    target: (tokenizer, batch) -> what the output is compared with. A batch is {'image': uint8
      [B H W 3], 'label': int32 [B]}.
    losses: by name, those that an objective may have.
    watched: by name, what is computed beside them and trained on by nobody.
    best_metric: the held-out number that ranks checkpoints; the larger, the better.
  """

  makes_images: bool
  target: Callable[[Tokenizer, Mapping[str, Any]], jax.Array]
  losses: Mapping[str, Loss]
  watched: Mapping[str, Loss]
  best_metric: str

  def weights(self, loss: Mapping[str, Any]) -> dict[str, float]:
    """The weights above 0 of the losses of this task, of the `loss` part of a config."""
    return {name: loss[name] for name in self.losses if loss.get(name)}

  def compare(
    self, weights: Mapping[str, float], target: jax.Array, output: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """Losses without their weights and their weighted sum, of each of B: ({name: [B]}, [B]).

    Args:
      weights: of the losses that count, by name.
      target: images in the model's range [B H W C], or labels int32 [B].
      output: images likewise, or logits [B L].
    """
    terms = {name: self.losses[name](target, output) for name in weights}
    total = sum(weights[name] * term for name, term in terms.items())
    watched = {name: of(target, output) for name, of in self.watched.items()}
    # Of no losses the sum is a plain 0.
    return terms | watched, total + jnp.zeros(output.shape[0])


RECONSTRUCTION = Task(
  makes_images=True,
  target=lambda model, batch: model.normalize(batch['image']),
  losses={'l1': l1, 'l2': l2},
  watched={},
  best_metric='psnr',
)
CLASSIFICATION = Task(
  makes_images=False,
  target=lambda model, batch: batch['label'],
  losses={'cross_entropy': cross_entropy},
  watched={'accuracy': accuracy},
  best_metric='accuracy',
)


def task_of(model: Tokenizer) -> Task:
  """The task of a tokenizer: classification if its decoder puts out logits."""
  return CLASSIFICATION if model.classifies else RECONSTRUCTION
