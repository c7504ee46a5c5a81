"""A tiny random cross-encoder, saved as sentence-transformers saves it."""

from __future__ import annotations


def pair_tokenizer(words):
    """A tokenizer of whole words that tells the two texts of a pair apart."""
    from tiny_bert import fast_tokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return fast_tokenizer(made, model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def saved_reranker(folder, tokenizer, kind="Bert", labels=1, activation=None, **config):
    """Its folder and the CrossEncoder; the weights are large enough for scores that differ."""
    import torch
    import transformers
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40}
    if kind == "DistilBert":
        sizes = {"n_layers": 2, "n_heads": 2, "dim": 32, "hidden_dim": 64, "max_position_embeddings": 40}
    else:
        sizes |= {"hidden_size": 32, "intermediate_size": 64}
    if kind == "Roberta":
        sizes |= {"pad_token_id": 0, "type_vocab_size": 2}
    made = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), num_labels=labels, **sizes, **config
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower():
                parameter.mul_(20 if "embeddings" in name or "classifier" in name else 6)
    model.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    encoder = CrossEncoder(str(folder / "plain"), max_length=24, activation_fn=activation, device="cpu")
    encoder.save_pretrained(str(folder / "model"))
    return folder / "model", encoder
