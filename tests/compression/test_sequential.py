"""First factors in order: each step against a slow reference, that each step counts, and resuming."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from compression_models import ARCHITECTURES, tiny_encoder, token_batch
from torch import nn

from leanmatch.compression import (
    CompressionSpec,
    DenseSparseSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
    Rule,
    compressed_layers,
    default_spec,
    factorize,
)
from leanmatch.compression.convert import _groups, plan_layers
from leanmatch.compression.fitting.fit import Effort, fit_layers
from leanmatch.compression.sequential import replay as replay_module
from leanmatch.compression.sequential import solve
from leanmatch.compression.sequential.order import encoder_layers
from leanmatch.compression.sequential.replay import Replay
from leanmatch.compression.sequential.solve import token_batches
from leanmatch.errors import DataError, FormatError, UsageError
from leanmatch.factorization import ErrorMetric
from leanmatch.factorization.outputs import Centered, OutputMoments, wanted_weight

LOSSY = DenseSparseSpec(block=8, atoms=16, nonzeros=1)
ORDERED = [kind for kind in ARCHITECTURES if kind != "albert"]


def moments_in_chunks(x, y, sizes, **options):
    moments = OutputMoments(**options)
    begin = 0
    for size in sizes:
        moments.add(x[begin : begin + size].astype(np.float32), y[begin : begin + size].astype(np.float32))
        begin += size
    assert begin == len(x)
    return moments.finish()


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(("tokens", "n", "m"), [(101, 7, 5), (13, 24, 9), (50, 1, 3)])
def test_the_wanted_weight_is_that_of_ridge_least_squares(tokens, n, m, centered):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(tokens, n)) * rng.uniform(0.2, 3, n) + 5 * rng.normal(size=n)
    weight = rng.normal(size=(m, n))
    y = x @ (weight + 0.3 * rng.normal(size=(m, n))).T + rng.normal(size=(tokens, m)) + 2
    outputs = moments_in_chunks(x, y, (tokens - 11, 0, 11), centered=centered)
    # slow: an ordinary least-squares problem with a row for each token and one for each pull
    u, v = (x - x.mean(0), y - y.mean(0)) if centered else (x, y)
    level = 0.1 * np.mean(np.square(u))
    rows = np.vstack([u / np.sqrt(tokens), np.sqrt(level) * np.eye(n)])
    wanted = np.vstack([v / np.sqrt(tokens), np.sqrt(level) * weight.T])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    found = wanted_weight(weight, outputs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    assert np.abs(expected - weight).max() > 0.05
    error = np.square(v - u @ expected.T).sum() / np.square(v).sum()
    assert outputs.error(expected) == pytest.approx(error, rel=1e-3, abs=1e-4)
    if centered:
        np.testing.assert_allclose(outputs.bias(expected), (y - x @ expected.T).mean(0), atol=1e-3)
    else:
        assert not outputs.bias(expected).any()


def test_moments_keep_their_digits_beside_large_constant_inputs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 6)), rng.normal(size=(300, 4))
    x[:, 2] += 3000
    exact = np.cov(x.T, bias=True)
    found = moments_in_chunks(x, y, (100, 200))
    np.testing.assert_allclose(found.moments, exact, atol=2e-3)
    assert moments_in_chunks(x, y, (300,)).rows(slice(1, 3)).cross.shape == (2, 6)


def test_moments_without_tokens_or_with_nan_are_refused():
    with pytest.raises(DataError, match="no calibration text"):
        OutputMoments().finish()
    for value in (np.nan, np.inf):
        x = np.ones((3, 2), np.float32)
        x[1, 1] = value
        with pytest.raises(DataError, match="NaN or infinite"):
            OutputMoments().add(x, np.ones((3, 1), np.float32))
        with pytest.raises(DataError, match="NaN or infinite"):
            OutputMoments().add(np.ones((3, 2), np.float32), x)


def test_inputs_of_zeros_leave_the_weight():
    zeros = Centered(np.zeros((3, 3)), np.zeros((2, 3)), np.zeros(2), np.zeros(3), np.zeros(2))
    weight = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(wanted_weight(weight, zeros), weight)


NORMS_AFTER = {  # modules whose input is a sum of an output and the residual stream, by architecture
    "t5": {"layer.0.SelfAttention.o": "layer.1.layer_norm"},
    "t5, gated": {"layer.0.SelfAttention.o": "layer.1.layer_norm"},
    "modernbert": {"attn.Wo": "mlp_norm"},
    "eurobert": {"self_attn.o_proj": "post_attention_layernorm"},
    "gte": {"self_attn.o_proj": "post_attention_layernorm", "mlp.down_proj": "post_mlp_layernorm"},
    "nomic_bert": {"self_attn.o_proj": "post_attention_layernorm", "mlp.down_proj": "post_mlp_layernorm"},
    "jina_embeddings_v3": {"self_attn.o_proj": "post_attention_layernorm", "mlp.fc2": "post_mlp_layernorm"},
    "distilbert": {"attention.out_lin": "sa_layer_norm", "ffn.lin2": "output_layer_norm"},
    "mpnet": {"attention.attn.o": "attention.LayerNorm", "output.dense": "output.LayerNorm"},
    "": {"attention.output.dense": "attention.output.LayerNorm", "output.dense": "output.LayerNorm"},
}


def record_calls(model, batch):
    """Input and output of every module in one real pass."""
    met = {}

    def listen(name):
        def hook(_, inputs, output):
            met.setdefault(name, (inputs[0] if inputs else None, output))

        return hook

    handles = [part.register_forward_hook(listen(name)) for name, part in model.named_modules() if name]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return met


def stand_ins_of(model, spec):
    """Groups of a spec and quick stand-ins of all their layers; a copy of the model that has them."""
    planned = plan_layers(model, spec)
    groups = _groups(planned, spec)
    made = {}
    for group in groups:
        modules = [planned[name][0] for name in group.names]
        fitted = fit_layers(modules, group.spec, ErrorMetric(), Effort(1), stack=group.stack)
        made |= zip(group.names, fitted, strict=True)
    lean = copy.deepcopy(model)
    for name, layer in made.items():
        parent, _, child = name.rpartition(".")
        setattr(lean.get_submodule(parent), child, layer)
    if hasattr(lean, "shared"):
        lean.encoder.embed_tokens = lean.shared
    return groups, made, lean


@pytest.mark.parametrize("kind", ORDERED)
def test_a_replay_sees_what_the_real_models_see(kind, monkeypatch):
    """Inputs of the compressed model's layers; outputs of the dense one's, and both sums with the stream."""
    monkeypatch.setattr(replay_module, "_arithmetic", lambda module: nullcontext())
    model = tiny_encoder(kind)
    groups, made, lean = stand_ins_of(
        model, default_spec(model, LOSSY, embeddings=RoundingSpec(bits=4, group=16))
    )
    layers = encoder_layers(model, groups)
    assert [len(layer.stages) for layer in layers] == [4, 4]
    inside = {name for layer in layers for stage in layer.stages for name in stage.names}
    outside = {name: layer for name, layer in made.items() if name not in inside}
    assert len(outside) == 1
    batches = [token_batch(), token_batch(3, 6, seed=1)]
    masks = [batch["attention_mask"].bool() for batch in batches]
    dense_calls = [record_calls(model, batch) for batch in batches]
    lean_calls = [record_calls(lean, batch) for batch in batches]
    replay = Replay(model, layers, batches, outside)
    norms = NORMS_AFTER.get(kind, NORMS_AFTER[""])
    sums = 0
    for number, layer in enumerate(layers):
        replay.enter(number)
        for stage in layer.stages:
            name = stage.names[0]
            for row, mask in enumerate(masks):
                x, wanted = replay.reach(stage, row)
                torch.testing.assert_close(x, lean_calls[row][name][0][mask], atol=2e-5, rtol=1e-4)
                assert (x - dense_calls[row][name][0][mask]).abs().max() > 1e-3
                if stage.stream is None:
                    outputs = torch.cat([dense_calls[row][member][1] for member in stage.names], dim=-1)
                    torch.testing.assert_close(wanted, outputs[mask], atol=2e-5, rtol=1e-4)
                elif name.removeprefix(layer.name + ".") in norms:
                    total = dense_calls[row][f"{layer.name}.{norms[name.removeprefix(layer.name + '.')]}"][0]
                    own = lean_calls[row][stage.stream][0]
                    torch.testing.assert_close(wanted, (total - own)[mask], atol=2e-5, rtol=1e-4)
                    sums += 1
            replay.settle(stage, {member: made[member] for member in stage.names})
        replay.leave()
    assert sums == len(layers) * len(batches) * len(norms)
    assert not [module for module in model.modules() if "forward" in vars(module)]


def teacher_distance(model, dense, texts):
    with torch.no_grad():
        lean, target = (m.encode(texts, convert_to_tensor=True) for m in (model, dense))
    return float((lean - target).square().sum(1).mean())


@pytest.fixture
def deep(tmp_path):
    """A matcher with weights far from 0, so that errors pile up."""
    import training_models

    fast = training_models.fast_tokenizer(training_models.tiny_tokenizer())
    return training_models.tiny_bert(tmp_path / "deep", fast, length=32, seed=3, initializer_range=0.25)


def test_each_step_of_the_recipe_counts(deep, texts, monkeypatch):
    """Without the compressed model's inputs, the dense outputs or mending, embeddings are further off."""
    from leanmatch.compression.calibration import calibrate, text_batches

    spec = default_spec(deep, LOSSY)
    linear = {n: m for n, m in deep.named_modules() if isinstance(m, nn.Linear) and ".layer." in n}
    statistics = calibrate(deep, linear, text_batches(deep, texts))

    def distance(**options):
        model = copy.deepcopy(deep)
        factorize(model, spec, **(options or {"calibration_texts": texts}))
        return teacher_distance(model, deep, texts)

    distances = {"whole": distance(), "alone": distance(calibration=statistics)}
    with monkeypatch.context() as patch:
        patch.setattr(solve, "wanted_weight", lambda weight, outputs: weight)
        distances["dense weights"] = distance()
    with monkeypatch.context() as patch:
        reach = Replay.reach

        def without_stream(self, stage, row):
            return reach(self, type(stage)(stage.groups, None), row)

        patch.setattr(Replay, "reach", without_stream)
        distances["no mending"] = distance()
    with monkeypatch.context() as patch:
        leave = Replay.leave

        def leave_as_dense(self):
            leave(self)
            rows = range(len(self.masks))
            self._hidden |= {("lean", row): self._hidden["dense", row] for row in rows}

        patch.setattr(Replay, "leave", leave_as_dense)
        distances["dense inputs"] = distance()
    print(distances)
    for step, found in distances.items():
        if step != "whole":
            assert distances["whole"] < 0.97 * found, distances


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


MIXED = {  # a spec for each method, in the encoder's four places
    "*.query": DenseSparseSpec(block=8, atoms=16, nonzeros=2, value_bits=None),
    "*.key": PruningSpec(block=8, nonzeros=2),
    "*.value": RoundingSpec(),
    "*.attention.output.dense": LowRankSpec(rank=4),
    "*.intermediate.dense": LOSSY,
    "*layer.*.output.dense": LowRankSpec(rank=4, value_bits=None, weighting="none"),
}


class KilledError(Exception):
    pass


@pytest.mark.parametrize("mixed", [False, True])
def test_a_killed_run_goes_on_to_the_same_bits(matcher, texts, tmp_path, monkeypatch, mixed):
    rules = tuple(Rule(pattern, layer) for pattern, layer in MIXED.items())
    spec = CompressionSpec(rules) if mixed else default_spec(matcher, LOSSY)
    unbroken = copy.deepcopy(matcher)
    conversion = factorize(unbroken, spec, calibration_texts=texts)
    alone = [report.name.partition(".layer.")[2] for report in conversion.layers if not report.in_order]
    assert alone == (["0.output.dense", "1.output.dense"] if mixed else [])
    solved = []

    def counted(*arguments):
        solved.append(arguments)
        if len(solved) == 4:
            raise KilledError
        return solve_group(*arguments)

    solve_group = solve.solve_group
    monkeypatch.setattr(solve, "solve_group", counted)
    folder = tmp_path / "factors"
    broken = copy.deepcopy(matcher)
    before = state_of(broken)
    with pytest.raises(KilledError):
        factorize(broken, spec, calibration_texts=texts, folder=folder)
    assert same(state_of(broken), before)
    kept = len(list(folder.iterdir()))
    assert kept >= 2
    monkeypatch.setattr(solve, "solve_group", lambda *a: solved.append(a) or solve_group(*a))
    solved.clear()
    factorize(broken, spec, calibration_texts=texts, folder=folder)
    groups = sum(report.in_order for report in conversion.layers) if mixed else 8
    assert len(solved) == groups - kept
    assert same(state_of(broken), state_of(unbroken))
    solved.clear()
    monkeypatch.setattr(solve.Replay, "enter", lambda *_: pytest.fail("the texts pass the models again"))
    again = copy.deepcopy(matcher)
    reports = factorize(again, spec, calibration_texts=texts, folder=folder).layers
    assert solved == [] and same(state_of(again), state_of(unbroken))
    assert [report.output_error for report in reports] == [r.output_error for r in conversion.layers]
    names = compressed_layers(unbroken)
    assert names.keys() == compressed_layers(broken).keys()
    metrics = [(names[n].factors, layer.factors) for n, layer in compressed_layers(broken).items()]
    assert all(torch.equal(a.metric, b.metric) for a, b in metrics if hasattr(a, "metric"))


def test_two_threads_give_the_same_bits_every_time(matcher, texts):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        states = []
        for _ in range(2):
            model = copy.deepcopy(matcher)
            factorize(model, default_spec(model, LOSSY), calibration_texts=texts)
            states.append(state_of(model))
    finally:
        torch.set_num_threads(threads)
    assert same(*states)
    assert not same(states[0], state_of(matcher))


def test_files_of_another_run_or_damaged_ones_are_refused(matcher, texts, tmp_path):
    spec, folder = default_spec(matcher, LOSSY), tmp_path / "factors"
    factorize(copy.deepcopy(matcher), spec, calibration_texts=texts, folder=folder, iterations=1)
    other = default_spec(matcher, DenseSparseSpec(block=8, atoms=16, nonzeros=2))
    for options in (
        {"calibration_texts": texts[:-1]},
        {"calibration_texts": texts, "seed": 1},
        {"calibration_texts": texts, "iterations": 2},
    ):
        model = copy.deepcopy(matcher)
        with pytest.raises(FormatError, match="another run"):
            factorize(model, spec, folder=folder, **{"iterations": 1, **options})
        assert not compressed_layers(model)
    with pytest.raises(FormatError, match="another run"):
        factorize(copy.deepcopy(matcher), other, calibration_texts=texts, folder=folder, iterations=1)
    file = min(folder.iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FormatError, match="is damaged"):
        factorize(copy.deepcopy(matcher), spec, calibration_texts=texts, folder=folder, iterations=1)


def test_what_has_no_known_order_is_factored_alone(texts, matcher):
    groups_of = {}
    for kind in ARCHITECTURES:
        model = tiny_encoder(kind)
        groups_of[kind] = encoder_layers(model, stand_ins_of(model, default_spec(model, LOSSY))[0])
    assert [kind for kind, layers in groups_of.items() if not layers] == ["albert"]
    rounded = default_spec(matcher, RoundingSpec())
    conversion = factorize(copy.deepcopy(matcher), rounded, calibration_texts=texts)
    assert not any(report.in_order for report in conversion.layers)
    plain = nn.Sequential(nn.Linear(16, 8))
    assert encoder_layers(plain, stand_ins_of(plain, CompressionSpec((Rule("*", LOSSY),)))[0]) == []


def test_layers_without_bias_keep_none_and_biases_become_the_mean_error(matcher, texts):
    model = tiny_encoder("t5")
    tokenizer = matcher.tokenizer
    factorize(model, default_spec(model, LOSSY), calibration_texts=texts, tokenizer=tokenizer, iterations=1)
    assert all(layer.bias is None for layer in compressed_layers(model).values())
    dense = copy.deepcopy(matcher)
    factorize(matcher, default_spec(matcher, LOSSY), calibration_texts=texts, iterations=1)
    name = next(name for name in compressed_layers(matcher) if name.endswith("intermediate.dense"))
    moved = compressed_layers(matcher)[name].bias - dense.get_submodule(name).bias
    assert moved.abs().max() > 1e-3


def test_a_classifier_is_factored_in_order_too(texts, matcher):
    import transformers

    torch.manual_seed(0)
    config = copy.deepcopy(matcher[0].auto_model.config)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    spec = default_spec(model, LOSSY)
    conversion = factorize(model, spec, calibration_texts=texts, tokenizer=matcher.tokenizer, iterations=1)
    assert all(report.in_order and 0 < report.output_error < 1 for report in conversion.layers)
    assert isinstance(model.classifier, nn.Linear)


def test_tokens_are_bounded_and_no_text_is_lost_below_that(matcher, texts, monkeypatch):
    batches = token_batches(matcher, texts, 10**6)
    assert sum(len(batch["input_ids"]) for batch in batches) == len(texts)
    whole = sum(int(batch["attention_mask"].sum()) for batch in batches)
    monkeypatch.setattr(solve, "BATCH_TOKENS", 40)
    batches = token_batches(matcher, texts, whole // 2)
    used = sum(int(batch["attention_mask"].sum()) for batch in batches)
    assert whole // 2 - 40 < used <= whole // 2
    assert max(batch["input_ids"].numel() for batch in batches) <= 40
    with pytest.raises(UsageError, match="no calibration text"):
        token_batches(matcher, [], 100)
    assert sum(len(batch["input_ids"]) for batch in token_batches(matcher, texts, 1)) == 1


def test_damaged_weights_are_refused_and_nothing_is_replaced(matcher, texts):
    damaged = next(m for n, m in matcher.named_modules() if n.endswith("layer.1.intermediate.dense"))
    with torch.no_grad():
        damaged.weight[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        factorize(matcher, default_spec(matcher, LOSSY), calibration_texts=texts, iterations=1)
    assert not compressed_layers(matcher)
    assert not [module for module in matcher.modules() if "forward" in vars(module)]
