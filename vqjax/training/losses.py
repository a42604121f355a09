"""Terms of the objective: what a reconstruction is compared by, the GAN, and their balance."""

import jax
import jax.numpy as jnp


def _per_image(values):
  """Mean over all but the first axis: [B ...] -> [B]."""
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def l1(x, y):
  """Mean absolute difference of each image: [B ...], [B ...] -> [B]."""
  return _per_image(jnp.abs(x - y))


def l2(x, y):
  """Mean squared difference of each image: [B ...], [B ...] -> [B]."""
  return _per_image(jnp.square(x - y))


def cross_entropy(labels, logits):
  """`-log softmax(logits)[label]`: int32 [B], [B L] -> [B] in nats; NaN for a label outside 0..L-1.

  NaN and not an error: labels are known only while the step runs. It stops the training loop.
  """
  outside = (labels < 0) | (labels >= logits.shape[-1])
  picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1, mode='clip')
  return jnp.where(outside, jnp.nan, -picked[:, 0])


def accuracy(labels, logits):
  """1 where the largest logit is the label's, else 0: int32 [B], [B L] -> [B]."""
  return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def hinge_discriminator(real, fake):
  """`(mean relu(1 - D(x)) + mean relu(1 + D(y))) / 2` on logits of any shape.

  Lim and Ye, Geometric GAN (2017); the half as in taming-transformers.
  """
  return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2


def softplus_discriminator(real, fake):
  """`(mean softplus(-D(x)) + mean softplus(D(y))) / 2`: binary cross entropy, "vanilla".

  Goodfellow et al., Generative Adversarial Nets (NeurIPS 2014), equation 1. MaskGIT's
  "non-saturating" loss is the same without the half: `gan.discriminator_weight` 2.
  """
  return (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2


def least_squares_discriminator(real, fake):
  """`(mean (1 - D(x))^2 + mean (1 + D(y))^2) / 2`.

  Mao et al., Least Squares Generative Adversarial Networks (ICCV 2017), equation 8.
  """
  return (jnp.mean(jnp.square(1 - real)) + jnp.mean(jnp.square(1 + fake))) / 2


def linear_generator(fake):
  """`-mean D(y)`: the generator's side of the hinge loss.

  taming-transformers, and after it latent-diffusion and OptVQ, use it beside the softplus
  discriminator too.
  """
  return -jnp.mean(fake)


def softplus_generator(fake):
  """`mean softplus(-D(y))`: the non-saturating loss (Goodfellow et al. 2014, section 3).

  enhancing-transformers' and MaskGIT's. What LlamaGen calls non-saturating is not: it swaps the
  arguments of the cross entropy, so its discriminator learns nothing from reconstructions.
  """
  return jnp.mean(jax.nn.softplus(-fake))


def least_squares_generator(fake):
  """`mean D(y)^2`: twice that of Mao et al. 2017, equation 8, as in enhancing-transformers."""
  return jnp.mean(jnp.square(fake))


def r1(slopes):
  """`mean_B sum (d sum D / dx)^2` of the slopes [B H W C] of all logits for real images.

  Mescheder et al., Which Training Methods for GANs do actually Converge? (ICML 2018), equation 9,
  without its gamma / 2.
  """
  return jnp.mean(jnp.sum(jnp.square(slopes), axis=(1, 2, 3)))


def lecam(real, fake, average_real, average_fake):
  """`mean relu(D(x) - a_fake)^2 + mean relu(a_real - D(y))^2`, a the moving averages of logits.

  Tseng et al., Regularizing Generative Adversarial Networks under Limited Data (CVPR 2021), R_LC;
  one-sided as in their code, where the paper has plain squares.
  """
  above = jax.nn.relu(real - average_fake)
  below = jax.nn.relu(average_real - fake)
  return jnp.mean(jnp.square(above)) + jnp.mean(jnp.square(below))


# Of what the decoder puts out: (target, output) -> [B].
RECONSTRUCTION = {'l1': l1, 'l2': l2, 'cross_entropy': cross_entropy}
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


def adaptive_weight(reconstruction_gradient, gan_gradient, cap=1e4):
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
