"""STF and distillation inside SentenceTransformerTrainer, transformers.Trainer and leanmatch's own engine."""

from __future__ import annotations

import copy

import pytest
import torch
from compression_models import tiny_config, token_batch

from leanmatch.compression import (
    STF,
    DenseSparseSpec,
    DistillationStrengths,
    Distilled,
    StateCheckpoints,
    STFSchedule,
    compressed_layers,
    default_spec,
    factorize,
    finalize,
)
from leanmatch.compression.distillation import (
    embedding_loss,
    hidden_loss,
    logit_loss,
    similarity_loss,
)
from leanmatch.errors import FormatError, UsageError
from leanmatch.training import DistillationLoss

SPEC = DenseSparseSpec(block=8, atoms=16, nonzeros=2)
EMBEDDINGS = DenseSparseSpec(block=8, atoms=32, nonzeros=3, value_bits=4)
SCHEDULE = STFSchedule(every=2, freeze=0.6, share=0.2, step=0.3)


def compress(model):
    factorize(model, default_spec(model, SPEC, embeddings=EMBEDDINGS), iterations=1)
    return STF(model, SCHEDULE)


def equal_states(first, second):
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_sentence_transformer_trainer_trains_and_resumes_to_the_same_bits(matcher, texts, tmp_path):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    class Trainer(StateCheckpoints, SentenceTransformerTrainer):
        pass

    def run(resume=None):
        model = copy.deepcopy(matcher)
        stf = compress(model)
        start = copy.deepcopy(model.state_dict())
        trainer = Trainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=str(tmp_path / "run"),
                max_steps=6,
                per_device_train_batch_size=16,
                learning_rate=1e-2,
                save_strategy="steps",
                save_steps=3,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                seed=1,
            ),
            train_dataset=Dataset.from_dict({"text": texts[:96]}),
            loss=DistillationLoss(model, matcher),
            callbacks=[stf.callback()],
        )
        trainer.train(resume_from_checkpoint=resume)
        assert stf.steps == 6
        return model, stf, start

    model, stf, start = run()
    assert [record["step"] for record in stf.history] == [2, 3]
    assert stf.history[0]["swapped"] > 0
    (name,) = [n for n in start if n.endswith("layer.0.output.dense.factors.values")]
    assert not torch.equal(start[name], model.state_dict()[name])
    resumed, _, _ = run(str(tmp_path / "run" / "checkpoint-3"))
    assert equal_states(model, resumed)
    before = model.encode(texts[:8], convert_to_tensor=True)
    finalize(model)
    torch.testing.assert_close(model.encode(texts[:8], convert_to_tensor=True), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["classify", "answer"])
def test_transformers_trainer_trains_classifiers_and_question_answering(kind, tmp_path):
    import transformers as t

    torch.manual_seed(0)
    family = t.AutoModelForSequenceClassification if kind == "classify" else t.AutoModelForQuestionAnswering
    dense = family.from_config(tiny_config("bert")).eval()
    batch = token_batch(rows=32)
    labels = (
        {"labels": torch.arange(32) % 2}
        if kind == "classify"
        else {"start_positions": torch.arange(32) % 4, "end_positions": torch.arange(32) % 4}
    )
    rows = [{k: v[i] for k, v in {**batch, **labels}.items()} for i in range(32)]

    class Trainer(StateCheckpoints, t.Trainer):
        pass

    def run(resume=None):
        model = copy.deepcopy(dense)
        stf = compress(model)
        trainer = Trainer(
            model=Distilled(model, dense, DistillationStrengths(hidden=0.1)),
            args=t.TrainingArguments(
                output_dir=str(tmp_path / "run"),
                max_steps=6,
                per_device_train_batch_size=8,
                learning_rate=1e-2,
                save_strategy="steps",
                save_steps=3,
                logging_strategy="no",
                remove_unused_columns=False,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=rows,
            callbacks=[stf.callback()],
        )
        trainer.train(resume_from_checkpoint=resume)
        return model, stf

    model, stf = run()
    assert stf.steps == 6
    assert len(stf.history) == 2
    resumed, _ = run(str(tmp_path / "run" / "checkpoint-3"))
    assert equal_states(model, resumed)
    with pytest.raises(FormatError, match=r"lacks state\.safetensors"):
        (tmp_path / "run" / "checkpoint-6" / "state.safetensors").unlink()
        run(str(tmp_path / "run" / "checkpoint-6"))


def test_leanmatchs_own_engine_takes_the_callback(matcher, texts, tmp_path):
    from datasets import Dataset

    from leanmatch.training import ScheduleOptions
    from leanmatch.training.engine import train_stage

    model = copy.deepcopy(matcher)
    stf = compress(model)
    train_stage(
        model,
        DistillationLoss(model, matcher, task=0.5),
        Dataset.from_dict({"anchor": texts[:64], "positive": texts[96:160]}),
        ScheduleOptions(max_steps=4, batch_size=16, device="cpu"),
        tmp_path,
        lr=1e-2,
        callbacks=[stf.callback()],
    )
    assert stf.steps == 4


def test_a_plain_loop_with_distillation_brings_the_student_nearer(matcher, texts):
    import training_models

    model = copy.deepcopy(matcher)
    stf = compress(model)
    stf.total_steps = 30
    loss = DistillationLoss(model, matcher, hidden=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    columns = [training_models.tokenized(model, texts[:32])]
    losses = []
    for _ in range(30):
        value = loss(columns)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        stf.step(optimizer)
        losses.append(float(value.detach()))
    assert set(loss.components) == {"embedding", "similarity", "hidden"}
    assert losses[-1] < 0.5 * losses[0]
    assert loss.base.hits > 0
    assert all(layer.factors.evidence is None for layer in compressed_layers(model).values())


def test_pure_losses_are_what_they_say():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 8, generator=generator) for _ in range(2))
    cos = torch.nn.functional.cosine_similarity
    assert float(embedding_loss(a, a)) == pytest.approx(0, abs=1e-6)
    assert float(embedding_loss(a, -a)) == pytest.approx(2)
    pairs = [(float(cos(a[i], a[j], 0)) - float(cos(b[i], b[j], 0))) ** 2 for i in range(5) for j in range(5)]
    assert float(similarity_loss(a, b)) == pytest.approx(sum(pairs) / 25, rel=1e-4)
    assert float(similarity_loss(3 * a, a)) == pytest.approx(0, abs=1e-6)
    p, q = torch.softmax(b / 2, 1), torch.softmax(a / 2, 1)
    wanted = 4 * float((p * (p / q).log()).sum(1).mean())
    assert float(logit_loss(a, b, 2.0)) == pytest.approx(wanted, rel=1e-4)
    states, mask = torch.randn(2, 3, 4, generator=generator), torch.tensor([[1, 1, 0], [1, 0, 0]])
    other = states.clone()
    other[0, 2] += 5  # padding does not count
    assert float(hidden_loss(other, states, mask)) == 0
    other[0, 0] = 0
    wanted = float(states[0, 0].square().sum() / states[mask.bool()].square().sum())
    assert float(hidden_loss(other, states, mask)) == pytest.approx(wanted, rel=1e-4)


def test_refusals(matcher, texts):
    import training_models

    with pytest.raises(UsageError, match="all parts"):
        DistillationStrengths(task=0, logits=0)
    with pytest.raises(UsageError, match="temperature"):
        DistillationStrengths(temperature=0)
    with pytest.raises(UsageError, match="hidden must be"):
        DistillationStrengths(hidden=-1)
    with pytest.raises(UsageError, match="embedding must be"):
        DistillationLoss(matcher, matcher, embedding=-1)
    with pytest.raises(UsageError, match="all factors"):
        DistillationLoss(matcher, matcher, embedding=0, similarity=0)
    loss = DistillationLoss(matcher, matcher, task=1)
    with pytest.raises(UsageError, match="matching pairs"):
        loss([training_models.tokenized(matcher, texts[:4])])
    import transformers as t

    dense = t.AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    with pytest.raises(UsageError, match="needs labels"):
        Distilled(dense, dense).train()(**token_batch())
