"""Encoders, decoders and discriminators as linen modules, NHWC throughout."""

from vqjax.networks.cnn import Decoder, Encoder
from vqjax.networks.discriminators import PatchGAN

__all__ = ['Decoder', 'Encoder', 'PatchGAN']
