import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.training import compiling
from distilrubert.common.training.update import counted, parameter_groups
from distilrubert.distill import distillation
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.batches.span_masking import SpanMasker
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.distillation import distill
from distilrubert.distill.distillation_settings import DistillationSettings
from distilrubert.distill.losses import LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import Student, build_student
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.trimming import count_needed
from distilrubert.modeling.wordpiece import train_wordpiece

NARROW = StudentArchitecture(layers=2, dim=16, heads=4, hidden_dim=32)
ALL = {"mlm": 0.5, "first_token": 0.7, "match": 2.0, "reduce_map": 1.0, "reduce": 0.1, "reduce_cosine": 0.3}


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=150, max_length=64).tokenizer


def batch_of(teacher: Teacher, student: PreTrainedTokenizerFast, texts: list[str]) -> dict[str, Tensor]:
    pairs = [text[0] for text in PairEncoder(teacher.tokenizer, student, 64).encode(texts)]
    # Random tokens would differ between the sides.
    masker = SpanMasker(MaskingSettings(replace=0.9), teacher.tokenizer, student, count_needed(student, texts), 1)
    return masker.collate(pairs, 0, range(len(pairs)))


def paired_objective(student: Student, teacher: Teacher, settings: ObjectiveSettings) -> Objective:
    return Objective(student.model, teacher.model, settings, Tokenizers(teacher.tokenizer, student.tokenizer))


def losses(objective: Objective, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return objective(batch, objective.preparation()(batch).counts)


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_over_one_vocabulary_the_losses_are_the_usual_ones(
    tiny_teacher: Teacher, sentences: list[str], positions: str
) -> None:
    """With equal tokens on both sides every span is one token, and every piece spells itself."""
    student = build_student(tiny_teacher, StudentArchitecture(layers=2))
    batch = batch_of(tiny_teacher, tiny_teacher.tokenizer, sentences[:12])
    assert torch.equal(batch["input_ids"], batch["teacher_input_ids"])
    common = {"kl_positions": positions, "layer_map": "block-mean", "vocabulary_chunk": 50}
    for one, other in (
        ("kl", "first_token"),
        ("kl", "match"),
        ("kl", "reduce_map"),
        ("hidden", "reduce"),
        ("hidden", "hidden"),
        ("cosine", "reduce_cosine"),
        ("cosine", "cosine"),
    ):
        usual = Objective(
            student.model, tiny_teacher.model, ObjectiveSettings(weights=LossWeights(**{one: 1.5, "mlm": 1}), **common)
        )
        paired = paired_objective(
            student, tiny_teacher, ObjectiveSettings(weights=LossWeights(**{other: 1.5, "mlm": 1}), **common)
        )
        found = []
        for objective in (usual, paired):
            student.model.zero_grad()
            result = losses(objective, batch)
            result["loss"].backward()
            gradient = student.model.distilbert.transformer.layer[0].attention.q_lin.weight.grad.clone()
            word = student.model.distilbert.embeddings.word_embeddings.weight.grad.clone()
            found.append([result[name] for name in result if name != "mlm"] + [result["mlm"], gradient, word])
        for expected, value in zip(*found, strict=True):
            torch.testing.assert_close(value, expected, rtol=2e-4, atol=2e-5)


def test_compiled_comparisons_compute_the_same(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    settings = ObjectiveSettings(weights=LossWeights(**ALL), layer_map="block-mean", vocabulary_chunk=50)
    found = []
    for is_compiled in (False, True):
        teacher = copy.deepcopy(tiny_teacher)
        student = build_student(teacher, StudentArchitecture(layers=2), tokenizer=small)
        torch.manual_seed(0)
        objective = paired_objective(student, teacher, settings)
        objective.set_compiled(compiled=is_compiled)
        for first in (0, 9):
            objective.zero_grad()
            result = losses(objective, batch_of(teacher, small, sentences[first : first + 7]))
            result["loss"].backward()
        found.append([result, [weight.grad for weight in objective.parameters()]])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_all_mean_compares_the_means_of_all_states(tiny_teacher: Teacher, sentences: list[str]) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=2))
    batch = batch_of(tiny_teacher, tiny_teacher.tokenizer, sentences[:5])
    settings = {"layer_map": "all-mean"}
    usual = losses(
        Objective(student.model, tiny_teacher.model, ObjectiveSettings(weights=LossWeights(hidden=1.0), **settings)),
        batch,
    )["hidden"]
    paired = losses(
        paired_objective(student, tiny_teacher, ObjectiveSettings(weights=LossWeights(reduce=1.0), **settings)), batch
    )["reduce"]
    with torch.no_grad():
        real_BL = batch["attention_mask"].bool()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        means = [
            torch.stack(model(**inputs, output_hidden_states=True).hidden_states).mean(dim=0)[real_BL]
            for model in (student.model, tiny_teacher.model)
        ]
    expected = (means[0] - means[1]).square().sum(dim=1).mean()
    torch.testing.assert_close(usual, expected)
    torch.testing.assert_close(paired, expected)


def test_two_vocabularies_train_everything(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    """Traps 1 and 12: every parameter, projections among them, is in the optimiser and gets a gradient."""
    student = build_student(tiny_teacher, NARROW, tokenizer=small)
    objective = paired_objective(student, tiny_teacher, ObjectiveSettings(weights=LossWeights(**ALL)))
    before = [parameter.clone() for parameter in tiny_teacher.model.parameters()]
    result = losses(objective.train(), batch_of(tiny_teacher, small, sentences[:12]))
    assert set(result) == {*ALL, "loss"}
    assert all(value.isfinite() and value > 0 for value in result.values())
    expected = sum(ALL[name] * result[name] for name in ALL)
    torch.testing.assert_close(result["loss"].detach(), expected)
    result["loss"].backward()
    names = dict(objective.named_parameters())
    assert {"terms.reduce.projections.0.weight", "terms.reduce_cosine.projections.1.bias"} <= set(names)
    # The bias of the keys moves all scores of a query alike, so its gradient is rounding.
    untouched = [name for name, each in names.items() if each.grad is None or not each.grad.any()]
    assert [name for name in untouched if "k_lin.bias" not in name] == []
    optimised = [parameter for group in parameter_groups(objective, 0.1) for parameter in group["params"]]
    assert sorted(map(id, optimised)) == sorted(map(id, names.values()))
    for parameter, old in zip(tiny_teacher.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


def test_padding_reaches_no_loss(tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    """Trap 11, of a loss that we do not have: its mean over tokens took padding in."""
    objective = paired_objective(
        build_student(tiny_teacher, NARROW, tokenizer=small),
        tiny_teacher,
        ObjectiveSettings(weights=LossWeights(**ALL)),
    )
    batch = batch_of(tiny_teacher, small, sentences[:6])
    # Of ids, labels and spans that stand for something elsewhere.
    padded = {
        name: tensor
        if name in ("matched", "begins_inside")
        else F.pad(tensor, (0, 7), value=0 if "mask" in name else 6)
        for name, tensor in batch.items()
    }
    prepare = objective.preparation()
    assert prepare(padded).counts == prepare(batch).counts | {"positions": padded["labels"].numel()}
    for name, value in losses(objective, batch).items():
        torch.testing.assert_close(losses(objective, padded)[name], value, rtol=1e-4, atol=1e-5)


def test_every_pair_of_layers_counts(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    """Trap 11, of a loss that we do not have: of several pairs of layers the last one alone was left."""
    student = build_student(tiny_teacher, StudentArchitecture(layers=2), tokenizer=small)
    batch = batch_of(tiny_teacher, small, sentences[:6])
    found = []
    for layer_map in ([[1, 2], [4]], [[1, 2], []], [[], [4]]):
        weights = LossWeights(reduce=1.0, reduce_cosine=1.0)
        objective = paired_objective(student, tiny_teacher, ObjectiveSettings(weights=weights, layer_map=layer_map))
        found.append(losses(objective, batch))
    for name in ("reduce", "reduce_cosine"):
        both, *alone = (result[name] for result in found)
        assert alone[0] != alone[1]
        torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_batches_add_up(tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    """Divided by the rows of both, two batches have the losses of one."""
    student = build_student(tiny_teacher, NARROW, tokenizer=small)
    objective = paired_objective(student, tiny_teacher, ObjectiveSettings(weights=LossWeights(**ALL))).eval()
    pairs = [text[0] for text in PairEncoder(tiny_teacher.tokenizer, small, 64).encode(sentences[:10])]
    masker = SpanMasker(MaskingSettings(), tiny_teacher.tokenizer, small, count_needed(small, sentences), 1)
    whole = masker.collate(pairs, 0, range(10))
    parts = [masker.collate(pairs[:3], 0, range(3)), masker.collate(pairs[3:], 0, range(3, 10))]
    counts = counted(map(objective.preparation(), parts))
    assert counts == objective.preparation()(whole).counts | {"positions": counts["positions"]}
    together = losses(objective, whole)
    for name, value in together.items():
        torch.testing.assert_close(sum(objective(part, counts)[name] for part in parts), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"kl": 1.0, "mlm": 1.0},
            r"distillation\.weights: kl compares token by token.*first_token, match, reduce_map, reduce",
        ),
        ({"mlm": 0.0}, r"distillation\.weights: all are 0"),
    ],
)
def test_losses_of_one_vocabulary_are_refused(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, weights: dict[str, float], message: str
) -> None:
    student = build_student(tiny_teacher, NARROW, tokenizer=small)
    with pytest.raises(UserError, match=message):
        paired_objective(student, tiny_teacher, ObjectiveSettings(weights=LossWeights(**weights)))


def test_losses_of_two_vocabularies_are_refused_for_one(tiny_teacher: Teacher) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=2))
    with pytest.raises(UserError, match=r"distillation\.weights: match, reduce compare two vocabularies"):
        Objective(student.model, tiny_teacher.model, ObjectiveSettings(weights=LossWeights(match=1, reduce=1)))


@pytest.fixture(scope="module")
def settings() -> DistillationSettings:
    return DistillationSettings.model_validate(
        {"weights": ALL, "epochs": 2, "batch_tokens": 256, "batches_per_update": 2, "precision": "fp32"}
    )


def corpus_settings(sentences: list[str], folder: Path) -> CorpusSettings:
    (folder / "text.txt").write_text("\n".join(sentences))
    return CorpusSettings.model_validate(
        {"sources": [{"path": str(folder / "text.txt")}], "validation": 0.1, "max_length": 32, "processes": 1}
    )


def test_a_student_with_its_own_vocabulary_is_distilled(
    tiny_teacher: Teacher,
    small: PreTrainedTokenizerFast,
    sentences: list[str],
    settings: DistillationSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = build_corpus(
        corpus_settings(sentences, tmp_path), tiny_teacher.tokenizer, tmp_path / "corpus", 0, student_tokenizer=small
    )
    caplog.set_level("INFO", "distilrubert")

    def trained(folder: str) -> Student:
        student = build_student(tiny_teacher, NARROW, tokenizer=small, token_counts=corpus.token_counts)
        report = distill(tiny_teacher, student, corpus, settings, tmp_path / folder, 0)
        assert report.details["curves"][-1]["match"] > 0
        return student

    one, other = trained("one").model.state_dict(), trained("two").model.state_dict()
    start = build_student(tiny_teacher, NARROW, tokenizer=small, token_counts=corpus.token_counts).model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["vocab_transform.weight"], start["vocab_transform.weight"])
    assert any("first_token leaves out" in message for message in caplog.messages)
    # What was masked otherwise is not resumed.
    monkeypatch.setattr(distillation, "MASKS_VERSION", 1)
    with pytest.raises(UserError, match="belongs to another run: masks was version 2 and is version 1"):
        trained("one")


def test_epochs_are_counted_in_the_tokens_of_the_student(
    tiny_teacher: Teacher, sentences: list[str], settings: DistillationSettings, tmp_path: Path
) -> None:
    """Batches go by the longer side of each example. The report did too, and made less than two of two epochs."""
    # A vocabulary of some texts: shorter than the teacher's where it has [UNK] or longer pieces, else longer.
    own = train_wordpiece(sentences[:20], size=260, max_length=64).tokenizer
    corpus = build_corpus(
        corpus_settings(sentences, tmp_path), tiny_teacher.tokenizer, tmp_path / "corpus", 0, student_tokenizer=own
    )
    assert corpus.pairs is not None
    train = corpus.pairs.train
    assert train.lengths.sum() > max(train.student.lengths.sum(), train.teacher.lengths.sum())
    report = distill(
        tiny_teacher, build_student(tiny_teacher, NARROW, tokenizer=own), corpus, settings, tmp_path / "run", 0
    )
    assert report.rows[0].values["tokens"] == 2 * train.student.lengths.sum()
    assert report.rows[0].values["epochs"] == 2.0


def test_a_corpus_without_the_students_tokens_is_refused(
    tiny_teacher: Teacher,
    small: PreTrainedTokenizerFast,
    sentences: list[str],
    settings: DistillationSettings,
    tmp_path: Path,
) -> None:
    corpus = build_corpus(corpus_settings(sentences, tmp_path), tiny_teacher.tokenizer, tmp_path / "corpus", 0)
    student = build_student(tiny_teacher, NARROW, tokenizer=small)
    with pytest.raises(UserError, match=r"corpus: the student has a vocabulary of its own, 150 tokens, and .* was not"):
        distill(tiny_teacher, student, corpus, settings, tmp_path / "run", 0)
    assert np.all(corpus.token_counts >= 0)
