"""How published generators name and lay out what our trees hold; see `names`."""

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

HALTON_MASKGIT = Names(
  (
    (r'^layer_(\d+)/mlp/', r'transformer.layers.\1.mlp.1/'),
    (r'^layer_(\d+)/', r'transformer.layers.\1.'),
    ('^last_norm/', 'last_norm.norm_final/'),
    ('^last_mlp/', 'last_norm.mlp.1/'),
    ('^(tok_emb|cls_emb)/embedding$', r'\1.weight'),
    ('^(pos_emb|reg_tokens)$', r'\1.weight'),
    ('^head_bias$', 'head.bias'),
  ),
  linear='',  # all
)

# google-research/maskgit's flax modules.
MASKGIT_TRANSFORMER = Names(
  (
    ('^(word_embeddings|embeddings_ln)/', r'Embed_0/\1/'),
    ('^position_embeddings$', 'Embed_0/position_embeddings/embedding'),
    (r'^layer_(\d+)/(query|key|value|out)/', r'TransformerLayer_\1/Attention_0/self_attention/\2/'),
    (r'^layer_(\d+)/attention_output_ln/', r'TransformerLayer_\1/Attention_0/attention_output_ln/'),
    (r'^layer_(\d+)/', r'TransformerLayer_\1/Mlp_0/'),
    ('^(mlm_dense|mlm_ln)/', r'MlmLayer_0/\1/'),
    ('^mlm_bias$', 'MlmLayer_0/mlm_bias/bias'),
    ('^', 'params/'),
  ),
  linear='',
  last=(),
  torch=False,
)
