"""Encoders, decoders and discriminators as linen modules, NHWC throughout.

An encoder has `width_out`, the width of its latents, and `downsample`, its pixels per token side. A
decoder has `width_in`, the width that it takes (None: any), `last_kernel`, the path of its last
kernel, `classifies`, whether it puts out logits, and, where it puts out images, `downsample` and
`out_channels`. Both are called with `(x, train)`.
"""

from vqjax.networks.cnn import CNNDecoder, CNNEncoder
from vqjax.networks.discriminators import PatchGAN
from vqjax.networks.inception import Inception
from vqjax.networks.lpips import LPIPS
from vqjax.networks.maskgit import MaskGITDecoder, MaskGITEncoder
from vqjax.networks.optvq_small import OptVQSmallDecoder, OptVQSmallEncoder
from vqjax.networks.stylegan import MaskGITDiscriminator, StyleGAN2Discriminator
from vqjax.networks.vit import ViTDecoder, ViTEncoder
from vqjax.networks.vqtorch import VQTorchClassifier, VQTorchDecoder, VQTorchEncoder

# (encoder, decoder) by what a config calls the network.
NETWORKS = {
  'cnn': (CNNEncoder, CNNDecoder),
  'maskgit': (MaskGITEncoder, MaskGITDecoder),
  'vit': (ViTEncoder, ViTDecoder),
  'optvq_small': (OptVQSmallEncoder, OptVQSmallDecoder),
  'vqtorch': (VQTorchEncoder, VQTorchDecoder),
  'vqtorch_classifier': (VQTorchEncoder, VQTorchClassifier),
}

__all__ = [
  'LPIPS',
  'NETWORKS',
  'CNNDecoder',
  'CNNEncoder',
  'Inception',
  'MaskGITDecoder',
  'MaskGITDiscriminator',
  'MaskGITEncoder',
  'OptVQSmallDecoder',
  'OptVQSmallEncoder',
  'PatchGAN',
  'StyleGAN2Discriminator',
  'VQTorchClassifier',
  'VQTorchDecoder',
  'VQTorchEncoder',
  'ViTDecoder',
  'ViTEncoder',
]
