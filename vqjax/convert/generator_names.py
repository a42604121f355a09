"""What the files of published generators call what our trees hold: `names`, for transformers."""

from vqjax.convert.names import Names

LLAMAGEN_GPT = Names(
  (
    (r'^layers_(\d+)/', r'layers.\1.'),
    ('^cls_embedding/embedding$', 'cls_embedding/embedding_table/weight'),
    ('/embedding$', '/weight'),
  ),
  linear='',  # every kernel
)
RAR = Names(
  (
    (r'^blocks_(\d+)/', r'blocks.\1.'),
    ('mlp_fc', 'mlp/fc'),
    ('adaLN_modulation/', 'adaLN_modulation/1/'),
    ('^adaln_before_head/', 'adaln_before_head/adaLN_modulation/1/'),
    ('/embedding$', '/weight'),
  ),
  linear='',
)
