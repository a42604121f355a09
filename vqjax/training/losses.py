"""The GAN's losses and regularisers, and the weight that balances them with the reconstruction."""

import jax
import jax.numpy as jnp


def hinge_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """`(mean relu(1 - D(x)) + mean relu(1 + D(y))) / 2` on logits of any shape.

  Lim and Ye, Geometric GAN (2017); the half as in taming-transformers.
  """
  return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2


def softplus_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """`(mean softplus(-D(x)) + mean softplus(D(y))) / 2`: binary cross entropy, "vanilla".

  Goodfellow et al., Generative Adversarial Nets (NeurIPS 2014), equation 1. MaskGIT's
  "non-saturating" loss is the same without the half: `gan.discriminator_weight` 2.
  """
  return (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2


def least_squares_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """`(mean (1 - D(x))^2 + mean (1 + D(y))^2) / 2`.

  Mao et al., Least Squares Generative Adversarial Networks (ICCV 2017), equation 8.
  """
  return (jnp.mean(jnp.square(1 - real)) + jnp.mean(jnp.square(1 + fake))) / 2


def linear_generator(fake: jax.Array) -> jax.Array:
  """`-mean D(y)`: the generator's side of the hinge loss.

  taming-transformers, and after it latent-diffusion and OptVQ, use it beside the softplus
  discriminator too.
  """
  return -jnp.mean(fake)


def softplus_generator(fake: jax.Array) -> jax.Array:
  """`mean softplus(-D(y))`: the non-saturating loss (Goodfellow et al. 2014, section 3).

  enhancing-transformers' and MaskGIT's. What LlamaGen calls non-saturating is not: it swaps the
  arguments of the cross entropy, so its discriminator learns nothing from reconstructions.
  """
  return jnp.mean(jax.nn.softplus(-fake))


def least_squares_generator(fake: jax.Array) -> jax.Array:
  """`mean D(y)^2`: twice that of Mao et al. 2017, equation 8, as in enhancing-transformers."""
  return jnp.mean(jnp.square(fake))


def r1(slopes: jax.Array) -> jax.Array:
  """`mean_B sum (d sum D / dx)^2` of the slopes [B H W C] of all logits for real images.

  Mescheder et al., Which Training Methods for GANs do actually Converge? (ICML 2018), equation 9,
  without its gamma / 2.
  """
  return jnp.mean(jnp.sum(jnp.square(slopes), axis=(1, 2, 3)))


def lecam(
  real: jax.Array, fake: jax.Array, average_real: jax.Array, average_fake: jax.Array
) -> jax.Array:
  """`mean relu(D(x) - a_fake)^2 + mean relu(a_real - D(y))^2`, a the moving averages of logits.

  Tseng et al., Regularizing Generative Adversarial Networks under Limited Data (CVPR 2021), R_LC;
  one-sided as in their code, where the paper has plain squares.
  """
  above = jax.nn.relu(real - average_fake)
  below = jax.nn.relu(average_real - fake)
  return jnp.mean(jnp.square(above)) + jnp.mean(jnp.square(below))


DISCRIMINATOR = {
  'hinge': hinge_discriminator,
  'softplus': softplus_discriminator,
  'least_squares': least_squares_discriminator,
}
GENERATOR = {
  'linear': linear_generator,
  'softplus': softplus_generator,
  'least_squares': least_squares_generator,
}


def adaptive_weight(
  reconstruction_gradient: jax.Array, gan_gradient: jax.Array, cap: float = 1e4
) -> jax.Array:
  """Balances the GAN term: `min(|d rec / dW| / (|d gan / dW| + 1e-4), cap)`, W the last kernel.

  Frobenius norms; no gradient flows through the weight. Esser et al. (CVPR 2021), equation 7, with
  the constants of their code. Finite for finite gradients (shorter than 1e19), so there is nothing
  to guard; OptVQ's 0 in place of NaN would hide a run that has broken.

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
