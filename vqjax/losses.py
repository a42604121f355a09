"""Terms of the objective: pixels, GAN, and the adaptive weight between them."""

import jax
import jax.numpy as jnp


def l1(x, y):
  """Mean absolute difference over all elements."""
  return jnp.mean(jnp.abs(x - y))


def l2(x, y):
  """Mean squared difference over all elements."""
  return jnp.mean(jnp.square(x - y))


def hinge_discriminator(real, fake):
  """`(mean relu(1 - D(x)) + mean relu(1 + D(y))) / 2` on logits of any shape (Lim & Ye 2017)."""
  return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2


def softplus_discriminator(real, fake):
  """`(mean softplus(-D(x)) + mean softplus(D(y))) / 2` (Goodfellow et al. 2014)."""
  return (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2


def linear_generator(fake):
  """`-mean D(y)`: the generator's side of the hinge loss.

  taming-transformers uses it beside the softplus discriminator too.
  """
  return -jnp.mean(fake)


def softplus_generator(fake):
  """`mean softplus(-D(y))`: the non-saturating loss (Goodfellow et al. 2014)."""
  return jnp.mean(jax.nn.softplus(-fake))


PIXELS = {'l1': l1, 'l2': l2}
DISCRIMINATOR = {'hinge': hinge_discriminator, 'softplus': softplus_discriminator}
GENERATOR = {'linear': linear_generator, 'softplus': softplus_generator}


def adaptive_weight(reconstruction_gradient, gan_gradient, cap=1e4):
  """Balances the GAN term: `min(|d rec / dW| / (|d gan / dW| + 1e-4), cap)`, W the last kernel.

  Frobenius norms; no gradient flows through the weight. Esser et al. (CVPR 2021), equation 7, with
  the constants of their code.

  Args:
    reconstruction_gradient: gradient of pixel and perceptual terms for the kernel of the last
      layer; the quantizer's loss is not part of it.
    gan_gradient: gradient of the generator's GAN loss for the same kernel.
    cap: largest weight.

  Returns:
    float32 [] in [0, cap].
  """
  length = lambda x: jnp.sqrt(jnp.sum(jnp.square(x)))
  weight = length(reconstruction_gradient) / (length(gan_gradient) + 1e-4)
  return jax.lax.stop_gradient(jnp.clip(weight, 0, cap))
