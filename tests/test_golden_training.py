"""Eight GAN steps of the reference implementation, followed term by term."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from golden_data import GOLDEN, load
from torch_weights import LDM, PATCHGAN, convert

from vqjax import losses, networks, state, steps
from vqjax.quantizers import VectorQuantizer, straight_through, tangent_rotation
from vqjax.recipe import Gan, Recipe
from vqjax.tokenizer import Projection, Tokenizer


def reference(name):
  hp = json.loads((GOLDEN / f'training/{name}.json').read_text())
  net = {
    'channels': hp['ch'],
    'channel_mult': tuple(hp['ch_mult']),
    'num_res_blocks': hp['num_res_blocks'],
    'attn_resolutions': tuple(hp['attn_resolutions']),
    'resolution': hp['resolution'],
  }
  model = Tokenizer(
    encoder=networks.Encoder(**net, z_channels=hp['z_channels']),
    quantizer=VectorQuantizer(
      hp['num_codes'],
      estimator=tangent_rotation if hp['rotation'] else straight_through,
      commitment_weight=1.0,
      codebook_weight=hp['beta'],
    ),
    decoder=networks.Decoder(**net),
    pre_quant=Projection(hp['embed_dim']),
    post_quant=Projection(hp['z_channels']),
  )
  disc = hp['disc']
  gan = Gan(
    discriminator=networks.PatchGAN(disc['ndf'], disc['n_layers']),
    discriminator_loss=losses.hinge_discriminator,
    generator_loss=losses.linear_generator,
    weight=disc['weight'],
    adaptive=True,
    cap=1e4,
    start=disc['start'],
    fresh_reconstructions=True,
  )
  recipe = Recipe(
    tokenizer=model,
    optimizer=optax.adam(hp['lr'], *hp['betas'], eps=hp['eps']),
    schedule=lambda step: hp['lr'],
    pixel_weights={'l1': 1.0},
    quantizer_weight=hp['codebook_weight'],
    gan=gan,
    accumulate=1,
    sum_gradients=False,
    ema_decay=0.0,
  )
  return recipe, hp


def test_training_follows_the_reference():
  name = 'vqgan_rotation'
  recipe, hp = reference(name)
  data = load(f'training/{name}')
  images = jnp.asarray(data['images'])
  now = jax.jit(lambda key: state.create(recipe, key, images.shape[1:]))(jax.random.key(0))
  part = lambda prefix: {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}

  def load_weights(network, prefix, names):
    params = convert(part(prefix), network.params, names)
    return network.replace(params=params, opt_state=recipe.optimizer.init(params))

  now = now.replace(
    generator=load_weights(now.generator, 'model/', LDM),
    discriminator=load_weights(now.discriminator, 'disc/', PATCHGAN),
  )
  step = jax.jit(
    lambda now, images, adversarial: steps.train_step(recipe, now, images, adversarial=adversarial),
    static_argnums=2,
  )
  for t in range(hp['steps']):
    started = t >= hp['disc']['start']
    now, got = step(now, images[t], started)
    names = ('l1', 'quantizer', 'generator', 'gan_weight', 'loss', 'discriminator')
    for column, key in enumerate(names):
      if started or key in ('l1', 'quantizer', 'loss'):  # ours are 0 before the start
        np.testing.assert_allclose(
          got[key], data['losses'][t, column], rtol=5e-4, err_msg=f'{t} {key}'
        )

  x = recipe.tokenizer.normalize(images[0])
  variables = {'params': now.generator.params, **now.generator.variables}
  y, quantized = recipe.tokenizer.apply(variables, x)
  assert (quantized.indices == data['final_indices']).mean() > 0.99
  np.testing.assert_allclose(y, data['final_reconstruction'], atol=2e-3)
  codebook = now.generator.params['quantizer']['codebook']
  np.testing.assert_allclose(codebook, data['final_codebook'], atol=2e-5)
