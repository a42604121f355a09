"""Encoders, decoders and discriminators as linen modules, NHWC throughout.

What an encoder and a decoder must have is in `contracts.py`; every pair in `NETWORKS` has it.
"""

from collections.abc import Callable, Mapping

from vqjax.networks.cnn import CNNDecoder, CNNEncoder
from vqjax.networks.contracts import Decoder, Encoder, ImageDecoder
from vqjax.networks.discriminators import PatchGAN
from vqjax.networks.edsr import EdsrDecoder, EdsrEncoder
from vqjax.networks.inception import Inception
from vqjax.networks.lpips import LPIPS
from vqjax.networks.maskgit import MaskGITDecoder, MaskGITEncoder
from vqjax.networks.optvq_small import OptVQSmallDecoder, OptVQSmallEncoder
from vqjax.networks.stylegan import MaskGITDiscriminator, StyleGAN2Discriminator
from vqjax.networks.vit import ViTDecoder, ViTEncoder
from vqjax.networks.vqtorch import VQTorchClassifier, VQTorchDecoder, VQTorchEncoder

# (encoder, decoder) by what a config calls the network.
NETWORKS: Mapping[str, tuple[Callable[..., Encoder], Callable[..., Decoder]]] = {
  'cnn': (CNNEncoder, CNNDecoder),
  'maskgit': (MaskGITEncoder, MaskGITDecoder),
  'edsr': (EdsrEncoder, EdsrDecoder),
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
  'Decoder',
  'EdsrDecoder',
  'EdsrEncoder',
  'Encoder',
  'ImageDecoder',
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
