"""Vector-quantized image tokenizers in JAX and Flax, and generators on their tokens."""

__version__ = '0.1.0'
__all__ = ['load', 'load_generator']


def __getattr__(name):
  """Reaches functions when they are first asked for: `import vqjax` alone imports nothing."""
  if name == 'load':
    from vqjax.pretrained import load

    return load
  if name == 'load_generator':
    from vqjax.generator_sources import load_generator

    return load_generator
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
