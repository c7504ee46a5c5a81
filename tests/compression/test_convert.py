"""Conversion of models of every architecture, finalization, sharing, and every refusal."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from compression_models import ARCHITECTURES, tiny_config, tiny_encoder, token_batch
from torch import nn

from leanmatch.compression import (
    CompressionSpec,
    DenseSparseSpec,
    FactoredEmbedding,
    FactoredLinear,
    LowRankLinear,
    LowRankSpec,
    MixedRoundingSpec,
    PruningSpec,
    QuantizedEmbedding,
    RoundingSpec,
    Rule,
    Stack,
    compressed_layers,
    default_spec,
    factorize,
    finalize,
    model_cost,
    reopen,
)
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.planner.candidates import dense_layers, groups_of
from leanmatch.compression.planner.plan import planned_layers
from leanmatch.errors import ModelError, UsageError
from leanmatch.factorization import DenseSparse, QuantizedDenseSparse

SMALL = DenseSparseSpec(block=8, atoms=16, nonzeros=3)
EMBEDDINGS = DenseSparseSpec(block=8, atoms=32, nonzeros=3, value_bits=4)
POSITIONS = RoundingSpec(bits=8)
SPECS = {
    "dense-sparse": SMALL,
    "floats": DenseSparseSpec(block=8, atoms=16, nonzeros=3, value_bits=None),
    "nm": PruningSpec(block=8, nonzeros=3),
    "low-rank": LowRankSpec(rank=6),
    "low-rank floats": LowRankSpec(ratio=2.0, value_bits=None),
    "int": RoundingSpec(bits=4, group=8),
    "int3": RoundingSpec(bits=3),
    "int2": RoundingSpec(bits=2, group=4),
}


def output(model, batch=None):
    with torch.no_grad():
        return model.eval()(**(batch or token_batch()))[0]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_converts_trains_finalizes_and_keeps_what_it_learned(kind):
    model = tiny_encoder(kind)
    before = output(model)
    conversion = factorize(
        model, default_spec(model, SMALL, embeddings=EMBEDDINGS, positions=POSITIONS), iterations=2
    )
    layers = compressed_layers(model)
    linear = [layer for layer in layers.values() if isinstance(layer, FactoredLinear)]
    gated = kind in ("t5, gated", "gte", "nomic_bert", "eurobert")
    assert len(linear) == {"albert": 6, "modernbert": 8}.get(kind, 14 if gated else 12)
    assert len({id(layer.factors.atoms) for layer in linear}) == (4 if kind == "albert" else 8)
    assert sum(isinstance(layer, FactoredEmbedding) for layer in layers.values()) == 1
    dense = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "pooler" not in n]
    assert dense in ([], ["encoder.embedding_hidden_mapping_in"]), "a layer was left dense"
    assert 0 < conversion.mean_error < 0.6
    after = output(model)
    assert not torch.equal(after, before)
    assert torch.isfinite(after).all()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    model(**token_batch())[0].square().mean().backward()
    assert all(layer.factors.values.grad.abs().max() > 0 for layer in linear)
    optimizer.step()
    trained = output(model)
    assert not torch.equal(trained, after)
    finalize(model)
    assert all(layer.factors.quantized for layer in layers.values() if isinstance(layer, FactoredLinear))
    assert not [n for n, _ in model.named_parameters() if "factors" in n]
    torch.testing.assert_close(output(model), trained, atol=1e-5, rtol=1e-5)


def test_linear_layers_that_stay_dense_are_named():
    stay = {}
    for kind in ("modernbert", "t5, gated", "albert", "bert"):
        model = tiny_encoder(kind)
        stay[kind] = dense_layers(model, groups_of(model, planned_layers(model), "post"))
    assert stay == {
        "modernbert": [], "t5, gated": [], "albert": ["encoder.embedding_hidden_mapping_in"], "bert": []
    }  # fmt: skip
    model.encoder.adapter = nn.Linear(32, 8)
    groups = groups_of(model, planned_layers(model), "post")
    assert dense_layers(model, groups) == ["encoder.adapter"]


@pytest.mark.parametrize("method", SPECS)
def test_every_method_round_trips_through_its_factors(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16))
    factorize(model, CompressionSpec((Rule("*", SPECS[method]),)), iterations=2)
    x = torch.randn(5, 16)
    trained = model(x)
    kind = type(model[0])
    for layer in (model[0], model[2]):
        factors = layer.to_factors()
        assert factors.shape == (layer.out_features, layer.in_features)
        rebuilt = kind.from_factors(factors, layer.bias)
        z = torch.randn(3, layer.in_features)
        torch.testing.assert_close(rebuilt(z), layer(z), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            torch.from_numpy(factors.dense()), layer.factors.weight(), atol=1e-5, rtol=0
        )
    finalize(model)
    torch.testing.assert_close(model(x), trained, atol=1e-5, rtol=1e-5)
    quantized = getattr(SPECS[method], "value_bits", 8) is not None
    assert bool([n for n, _ in model.named_parameters() if "factors" in n]) is not quantized
    twin = copy.deepcopy(model)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), trained, atol=1e-5, rtol=1e-5)
    nn.init.zeros_(twin[0].bias)
    assert model[0].bias.abs().max() > 0


@pytest.mark.parametrize("method", SPECS)
def test_a_final_model_that_is_reopened_has_the_same_codes_and_can_be_trained(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16))
    factorize(model, CompressionSpec((Rule("*", SPECS[method]),)), iterations=2)
    before = {name: value.clone() for name, value in finalize(model).state_dict().items()}
    x = torch.randn(5, 16)
    wanted = model(x).detach()
    reopen(model)
    torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)
    again = finalize(copy.deepcopy(model)).state_dict()
    assert again.keys() == before.keys()
    for name, value in again.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, before[name], atol=0, rtol=1e-6)
        else:
            assert torch.equal(value, before[name]), name
    factors = [value for name, value in model.named_parameters() if ".factors." in name]
    optimizer = torch.optim.SGD(factors, lr=2.0)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        assert factors and all(value.grad.abs().max() > 0 for value in factors)
        optimizer.step()
    assert model(x).square().mean() < wanted.square().mean()


def test_a_table_of_mixed_bits_is_reopened():
    model = tiny_encoder("bert")
    spec = CompressionSpec((Rule("*word_embeddings", MixedRoundingSpec(average_bits=3.0)),))
    factorize(model, spec, token_counts=np.arange(50))
    before = finalize(model).state_dict()
    kept = {name: value.clone() for name, value in before.items()}
    table = reopen(model).embeddings.word_embeddings
    table.factors.full.sum().backward()
    assert table.factors.full.grad is not None
    again = finalize(model).state_dict()
    assert all(torch.equal(again[name], value) for name, value in kept.items())


def test_reopened_stacks_share_their_atoms(texts, matcher):
    with pytest.raises(ModelError, match="no compressed layer"):
        reopen(matcher)
    factorize(matcher, default_spec(matcher, SMALL), calibration_texts=texts, iterations=1)
    reopen(finalize(matcher))
    stacked = [
        layer.factors
        for name, layer in compressed_layers(matcher).items()
        if "layer.0.attention.self" in name
    ]
    assert len(stacked) == 3 and len({id(factors.atoms) for factors in stacked}) == 1
    assert len({id(layer.factors.atoms) for layer in compressed_layers(matcher).values()}) == 8


def test_integer_layers_are_what_quantize_gives():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24))
    factorize(model, CompressionSpec((Rule("*", SMALL),)))
    floats = DenseSparse(
        model[0].factors.atoms.detach().numpy(),
        model[0].factors.indices.numpy(),
        model[0].factors.values.detach().numpy(),
    )
    wanted, found = floats.quantize(8), model[0].to_factors()
    assert isinstance(found, QuantizedDenseSparse)
    for name in ("atoms_q", "atoms_scale", "indices", "values_q", "values_scale"):
        assert np.array_equal(getattr(wanted, name), getattr(found, name)), name


def test_state_dicts_of_trained_and_final_models_load_into_models_of_the_same_spec():
    def build(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 16))
        factorize(model, CompressionSpec((Rule("0", SMALL), Rule("1", SPECS["nm"]))), iterations=1)
        return model

    for final in (False, True):
        first, second = build(0), build(1)
        if final:
            finalize(first), finalize(second)
        x = torch.randn(3, 16)
        with torch.no_grad():
            assert not torch.allclose(first(x), second(x))
            second.load_state_dict(first.state_dict())
            assert torch.equal(first(x), second(x))


def test_a_kept_decoded_weight_is_forgotten_when_a_state_dict_comes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24))
    factorize(model, CompressionSpec((Rule("*", SMALL),)))
    finalize(model)
    x = torch.randn(3, 16)
    with torch.no_grad():
        before = model(x)
        assert "_decoded" in model[0].__dict__
        state = {n: t * 2 if "values_scale" in n else t for n, t in model.state_dict().items()}
        model.load_state_dict(state)
        after = model(x)
    assert (after - before).abs().max() > 0.1


def test_tied_embeddings_stay_one_module():
    model = tiny_encoder("t5")
    factorize(model, default_spec(model, SMALL, embeddings=EMBEDDINGS), iterations=1)
    assert model.shared is model.encoder.embed_tokens
    assert isinstance(model.shared, FactoredEmbedding)
    names = [n for n in compressed_layers(model) if "shared" in n or "embed" in n]
    assert names == ["shared"]


def test_padding_takes_no_gradient():
    torch.manual_seed(0)
    table = nn.Embedding(10, 8, padding_idx=0)
    nn.init.normal_(table.weight)
    model = nn.Sequential(table)
    factorize(model, CompressionSpec((Rule("*", RoundingSpec()),)))
    assert isinstance(model[0], QuantizedEmbedding)
    model(torch.tensor([[0, 3, 3]])).square().sum().backward()
    used = model[0].factors.full.grad.abs().sum(1) > 0
    assert used.nonzero().flatten().tolist() == [3]
    assert model(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, 8)


def test_stacked_layers_share_atoms_before_and_after(texts, matcher):
    factorize(matcher, default_spec(matcher, SMALL), calibration_texts=texts, iterations=1)
    names = [n for n in compressed_layers(matcher) if n.endswith(("query", "key", "value"))]
    first = {n.rsplit(".", 1)[1]: m.factors for n, m in compressed_layers(matcher).items() if n in names[:3]}
    assert first["query"].atoms is first["key"].atoms is first["value"].atoms
    assert first["query"].stack is not None
    cost = model_cost(matcher)
    finalize(matcher)
    final = [compressed_layers(matcher)[n].factors for n in names[:3]]
    assert final[0].atoms_q is final[1].atoms_q is final[2].atoms_q
    assert model_cost(matcher).layers == cost.layers
    stacked = next(layer for layer in cost.layers if "query" in layer.name)
    # n r + m k n / b with m = 3 h
    assert stacked.macs == 32 * 16 + 96 * 3 * 32 // 8
    assert stacked.dense_bytes == 96 * 32 * 4
    values, scales = 96 * 4 * 3 * (8 + 4), (96 + 4 * 16) * 16
    assert stacked.bytes * 8 == values + scales + 32 * 16 * 8
    loose = tiny_encoder("bert")
    factorize(loose, default_spec(loose, SMALL, stack=False), iterations=1)
    assert len({id(layer.factors.atoms) for layer in compressed_layers(loose).values()}) == 12


def test_calibration_lowers_the_error_of_embeddings(texts, matcher):
    dense = copy.deepcopy(matcher)
    target = dense.encode(texts, convert_to_tensor=True)
    errors = {}
    for weighting in ("none", "activation"):
        model = copy.deepcopy(dense)
        spec = default_spec(model, DenseSparseSpec(block=8, atoms=16, nonzeros=2, weighting=weighting))
        given = texts if weighting == "activation" else None
        conversion = factorize(model, spec, calibration_texts=given)
        assert (conversion.layers[0].output_error is None) is (given is None)
        errors[weighting] = float((model.encode(texts, convert_to_tensor=True) - target).square().sum())
    assert errors["activation"] < 0.9 * errors["none"]


def test_blocks_make_up_for_one_another(texts, matcher):
    errors = {}
    for compensate in (False, True):
        model = copy.deepcopy(matcher)
        layer = DenseSparseSpec(block=8, atoms=16, nonzeros=2, compensate=compensate)
        conversion = factorize(model, default_spec(model, layer), calibration_texts=texts)
        linear = [report.output_error for report in conversion.layers if report.output_error is not None]
        assert linear
        errors[compensate] = sum(linear) / len(linear)
    assert errors[True] < 0.9 * errors[False]


def test_fisher_weighting_runs_and_differs(texts, matcher):
    made = {}
    for weighting in ("none", "fisher"):
        model = copy.deepcopy(matcher)
        spec = default_spec(model, LowRankSpec(rank=4, value_bits=None, weighting=weighting))
        conversion = factorize(model, spec, calibration_texts=texts[:32])
        made[weighting] = next(iter(compressed_layers(model).values())).factors.weight()
        assert all(not p.grad for p in matcher.parameters() if p.grad is not None)
    assert conversion.calibration.fisher
    assert isinstance(next(iter(compressed_layers(model).values())), LowRankLinear)
    assert (made["none"] - made["fisher"]).abs().max() > 1e-4


def test_classifiers_and_question_answering_keep_their_heads():
    import transformers as t

    for kind in (t.AutoModelForSequenceClassification, t.AutoModelForQuestionAnswering):
        torch.manual_seed(0)
        model = kind.from_config(tiny_config("bert"))
        factorize(model, default_spec(model, SMALL, embeddings=EMBEDDINGS), iterations=1)
        heads = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        assert any(n in ("classifier", "qa_outputs") for n in heads)
        assert torch.isfinite(output(model)).all()


def test_autocast_and_half_precision_models_run():
    model = tiny_encoder("bert")
    factorize(model, default_spec(model, SMALL, embeddings=EMBEDDINGS), iterations=1)
    plain = output(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = output(model)
    assert (mixed.float() - plain).abs().max() < 0.2
    linear = nn.Sequential(nn.Linear(16, 8)).to(torch.bfloat16)
    factorize(linear, CompressionSpec((Rule("*", SPECS["low-rank floats"]),)))
    assert linear(torch.randn(2, 16).to(torch.bfloat16)).dtype == torch.bfloat16


def model_of(*layers):
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("model", "spec", "kind", "message"),
    [
        (
            model_of(nn.Linear(16, 8)),
            CompressionSpec((Rule("encoder.*", SMALL),)),
            UsageError,
            "no linear or",
        ),
        (model_of(nn.Linear(12, 8)), CompressionSpec((Rule("*", SMALL),)), ModelError, "do not divide"),
        (
            model_of(nn.Linear(16, 8)),
            CompressionSpec((Rule("*", LowRankSpec(rank=9)),)),
            ModelError,
            "rank cannot be 9",
        ),
        (
            model_of(nn.Embedding(9, 8)),
            CompressionSpec((Rule("*", LowRankSpec(rank=2)),)),
            UsageError,
            "not for embeddings",
        ),
        (
            model_of(nn.Linear(16, 8)),
            CompressionSpec((Rule("*", DenseSparseSpec(block=8, atoms=16, weighting="activation")),)),
            UsageError,
            "needs calibration texts",
        ),
        (
            nn.ModuleDict({"a": nn.Linear(16, 8), "b": nn.Linear(16, 8)}),
            CompressionSpec((Rule("a", SMALL),), (Stack("", ("a", "b")),)),
            UsageError,
            "one layer spec for all",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(model, spec, kind, message):
    with pytest.raises(kind, match=message):
        factorize(model, spec)


def test_a_weight_that_another_kind_of_module_shares_is_refused():
    embedding, head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
    head.weight = embedding.weight
    with pytest.raises(ModelError, match="shares its weight"):
        factorize(model_of(embedding, head), CompressionSpec((Rule("0", RoundingSpec()),)))


def test_other_refusals(texts):
    with pytest.raises(ModelError, match="no compressed layer"):
        finalize(model_of(nn.Linear(2, 2)))
    with pytest.raises(ModelError, match="no Hugging Face encoder"):
        default_spec(model_of(nn.Linear(2, 2)))
    model = tiny_encoder("bert")
    model.config.model_type = "gpt9"
    with pytest.raises(ModelError, match="no default patterns for the architecture 'gpt9'"):
        default_spec(model)
    model.config.model_type = "bert"
    with pytest.raises(UsageError, match="need its tokenizer"):
        factorize(model, default_spec(model, SMALL), calibration_texts=texts)
    ones = np.ones((1, 2, 2), np.float32)
    factors = DenseSparse(ones, np.zeros((3, 1, 1), np.uint8), np.ones((3, 1, 1), np.float32))
    with pytest.raises(ModelError, match=r"the bias must have the shape \(3,\)"):
        FactoredLinear(FactoredMatrix(factors), torch.zeros(4))


def test_a_calibration_text_that_is_no_string_is_refused(matcher, texts):
    before = {name: value.clone() for name, value in matcher.state_dict().items()}
    with pytest.raises(UsageError, match=r"calibration_texts\[1\] is \('a', 'b'\), not a string"):
        factorize(matcher, default_spec(matcher, SMALL), calibration_texts=[texts[0], ("a", "b")])
    assert all(torch.equal(before[name], value) for name, value in matcher.state_dict().items())


def test_no_calibration_text_is_refused(matcher):
    with pytest.raises(UsageError, match="no calibration text"):
        factorize(matcher, default_spec(matcher, SMALL), calibration_texts=[])
