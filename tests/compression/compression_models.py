"""Tiny models with random weights, one for each architecture that has default patterns."""

from __future__ import annotations

import torch

ARCHITECTURES = (
    *("bert", "distilbert", "roberta", "xlm-roberta", "albert", "mpnet", "t5", "t5, gated"),
    *("modernbert", "gte", "nomic_bert", "jina_embeddings_v3", "eurobert"),
)


def tiny_config(kind: str):
    import transformers as t

    shared = dict(vocab_size=50, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    shared |= dict(num_hidden_layers=2, max_position_embeddings=40)
    t5 = dict(vocab_size=50, d_model=32, num_layers=2, num_heads=2, d_ff=64, d_kv=16)
    ids = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
    made = {
        "bert": lambda: t.BertConfig(**shared),
        "distilbert": lambda: t.DistilBertConfig(
            vocab_size=50, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=40
        ),
        "roberta": lambda: t.RobertaConfig(**shared, pad_token_id=1),
        "xlm-roberta": lambda: t.XLMRobertaConfig(**shared, pad_token_id=1),
        "albert": lambda: t.AlbertConfig(**shared, embedding_size=16),
        "mpnet": lambda: t.MPNetConfig(**shared),
        "t5": lambda: t.T5Config(**t5),
        "t5, gated": lambda: t.T5Config(**t5, feed_forward_proj="gated-gelu"),
        "modernbert": lambda: t.ModernBertConfig(**shared, **ids, local_attention=4),
        "gte": lambda: t.GteConfig(**shared),
        "nomic_bert": lambda: t.NomicBertConfig(**shared),
        "jina_embeddings_v3": lambda: t.JinaEmbeddingsV3Config(**shared),
        "eurobert": lambda: t.EuroBertConfig(**shared, **ids, mask_token_id=4, num_key_value_heads=1),
    }
    return made[kind]()


def tiny_encoder(kind: str):
    import transformers as t

    torch.manual_seed(0)
    config = tiny_config(kind)
    return (t.T5EncoderModel(config) if kind.startswith("t5") else t.AutoModel.from_config(config)).eval()


def token_batch(rows: int = 4, tokens: int = 9, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 50, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, tokens // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}
