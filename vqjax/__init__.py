"""Vector-quantized image tokenizers in JAX and Flax."""

__version__ = '0.1.0'
__all__ = ['load']


def __getattr__(name):
  """Reaches `load` when it is first asked for: `import vqjax` alone imports nothing."""
  if name == 'load':
    from vqjax.pretrained import load

    return load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
