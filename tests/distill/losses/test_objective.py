import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.common.training.padding import IGNORED
from distilrubert.distill.losses import LOSSES, LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.states import cosine_distance
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher
from tests.distill.losses.reference_formulas import kl_divergence, masked_cross_entropy

ALL = {"kl": 5.0, "mlm": 2.0, "cosine": 1.0, "attention": 0.5, "hidden": 0.1}
Batch = dict[str, Tensor]


@pytest.fixture
def student(tiny_teacher: Teacher) -> DistilBertForMaskedLM:
    model = build_student(tiny_teacher, StudentArchitecture(layers=2), seed=0).model
    return model.eval()


@pytest.fixture(scope="module")
def batch(tiny_teacher: Teacher, sentences: list[str]) -> Batch:
    encoded = tiny_teacher.tokenizer(sentences[:6], padding=True, truncation=True, max_length=24, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    chosen = (torch.rand(ids.shape, generator=torch.Generator().manual_seed(3)) < 0.3) & mask.bool()
    assert 5 < chosen.sum() < mask.sum() < mask.numel()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(chosen, ids, IGNORED)}


def settings(**values: Any) -> ObjectiveSettings:
    return ObjectiveSettings(**{"vocabulary_chunk": 7, **values})


def gradients(objective: Objective, loss: Tensor) -> dict[str, Tensor]:
    objective.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in objective.named_parameters()}


def rows_of(batch: Mapping[str, Tensor], rows: slice) -> Batch:
    return {name: tensor[rows] for name, tensor in batch.items()}


def plain(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch, positions: str) -> dict[str, Tensor]:
    """The means of the losses from whole logits, one pair of layers after the other."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "output_hidden_states": True}
    ours, theirs = student(**inputs), teacher(**inputs)
    mask = batch["attention_mask"].bool()
    labelled = batch["labels"] != IGNORED
    compared = mask if positions == "all" else labelled
    cosine = [
        cosine_distance(
            ours.hidden_states[k], (theirs.hidden_states[2 * k - 1] + theirs.hidden_states[2 * k]) / 2, mask
        )
        for k in (1, 2)
    ]
    return {
        "kl": kl_divergence(ours.logits[compared], theirs.logits[compared], 2.0) / compared.sum(),
        "mlm": masked_cross_entropy(ours.logits[labelled], batch["labels"][labelled]) / labelled.sum(),
        "cosine": sum(cosine) / 2 / mask.sum(),
    }


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_equals_the_plain_losses_and_their_gradients(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch, positions: str
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(kl_positions=positions))
    losses = objective(batch, objective.counts(batch))
    ours = gradients(objective, losses["loss"])
    expected = plain(student, tiny_teacher.model, batch, positions)
    total = 5 * expected["kl"] + 2 * expected["mlm"] + expected["cosine"]
    torch.testing.assert_close(losses, {**{k: v.detach() for k, v in expected.items()}, "loss": total})
    torch.testing.assert_close(ours, gradients(objective, total), rtol=1e-4, atol=1e-5)
    assert all(gradient.abs().max() > 0 for gradient in ours.values())


def test_counts_are_rows_of_the_batch(student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch) -> None:
    tokens, labelled = int(batch["attention_mask"].sum()), int((batch["labels"] != IGNORED).sum())
    counts = Objective(student, tiny_teacher.model, settings(weights=ALL, kl_positions="all")).counts(batch)
    expected = {"kl": tokens, "mlm": labelled, "cosine": tokens, "attention": 4 * tokens, "hidden": tokens}
    assert {name: int(count) for name, count in counts.items()} == expected
    masked = Objective(student, tiny_teacher.model, settings(kl_positions="masked")).counts(batch)
    assert {name: int(count) for name, count in masked.items()} == {"kl": labelled, "mlm": labelled, "cosine": tokens}


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_batches_with_global_denominators_add_up_to_one_batch(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch, positions: str
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights=ALL, kl_positions=positions))
    denominators = objective.counts(batch)
    whole = objective(batch, denominators)
    expected = gradients(objective, whole["loss"])
    parts = [objective(rows_of(batch, rows), denominators) for rows in (slice(1), slice(1, 6))]
    for name in whole:
        torch.testing.assert_close(sum(part[name] for part in parts), whole[name])
    torch.testing.assert_close(
        gradients(objective, parts[0]["loss"] + parts[1]["loss"]), expected, rtol=1e-4, atol=1e-5
    )


def test_what_stands_in_padding_does_not_matter(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights=ALL))
    denominators = objective.counts(batch)
    padding = batch["attention_mask"] == 0
    other = {**batch, "input_ids": batch["input_ids"].clone(), "labels": batch["labels"].clone()}
    other["input_ids"][padding] = 17
    other["labels"][padding] = 23
    assert objective.counts(other) == denominators
    first, second = objective(batch, denominators), objective(other, denominators)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(gradients(objective, first["loss"]), gradients(objective, second["loss"]))


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_nothing_to_predict_gives_zero_and_no_nan(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch, positions: str
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights={"kl": 1, "mlm": 1}, kl_positions=positions))
    without = {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}
    losses = objective(without, objective.counts(without))
    found = gradients(objective, losses["loss"])
    assert losses["mlm"] == 0
    assert (losses["kl"] > 0) == (positions == "all")
    assert all(gradient.isfinite().all() for gradient in found.values())
    if positions == "masked":
        # Every parameter took part all the same, so that processes with and without labels can exchange gradients.
        assert all(gradient.count_nonzero() == 0 for gradient in found.values())


def test_a_batch_of_padding_alone_gives_zero(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights=ALL))
    empty = {**batch, "attention_mask": torch.zeros_like(batch["attention_mask"])}
    counts = objective.counts(empty)
    assert not any(counts.values())
    losses = objective(empty, counts)
    assert not any(losses.values())
    assert all(gradient.count_nonzero() == 0 for gradient in gradients(objective, losses["loss"]).values())


def test_a_student_that_is_the_teacher_has_nothing_to_learn_from_it(tiny_teacher: Teacher, batch: Batch) -> None:
    twin = build_student(tiny_teacher, StudentArchitecture(layers=4), seed=0).model.eval()
    weights = {"kl": 1, "cosine": 1, "attention": 1, "hidden": 1}
    objective = Objective(twin, tiny_teacher.model, settings(weights=weights, embeddings_pair=True))
    losses = objective(batch, objective.counts(batch))
    assert all(abs(loss.item()) < 1e-5 for loss in losses.values())


def test_a_narrower_student_learns_projections_with_it(tiny_teacher: Teacher, batch: Batch) -> None:
    vocabulary = tiny_teacher.model.config.vocab_size
    config = DistilBertConfig(vocab_size=vocabulary, n_layers=2, dim=16, n_heads=4, hidden_dim=24)
    student = DistilBertForMaskedLM(config).eval()
    objective = Objective(student, tiny_teacher.model, settings(weights={"mlm": 1, "hidden": 0.1, "attention": 1}))
    losses = objective(batch, objective.counts(batch))
    found = gradients(objective, losses["loss"])
    projections = [name for name in found if name.startswith("terms.hidden.projections.")]
    assert len(projections) == 4
    assert all(found[name].abs().max() > 0 for name in projections)
    with pytest.raises(UserError, match=r"distillation\.weights\.cosine"):
        Objective(student, tiny_teacher.model, settings())


def test_the_teacher_is_no_part_of_the_module(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch
) -> None:
    objective = Objective(student, tiny_teacher.model, settings())
    names = {f"model.{name}" for name, _ in student.named_parameters()}
    assert {name for name, _ in objective.named_parameters()} == names
    assert len(objective.state_dict()) == len(student.state_dict())
    objective.train()
    assert not tiny_teacher.model.training
    objective(batch, objective.counts(batch))["loss"].backward()
    assert all(parameter.grad is None for parameter in tiny_teacher.model.parameters())


def test_the_teacher_moves_along(student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights=ALL))
    counts = objective.counts(batch)
    single = objective(batch, counts)
    try:
        objective.to(torch.float64)
        assert tiny_teacher.model.dtype == torch.float64
        double = objective(batch, counts)
    finally:
        objective.to(torch.float32)
    for name, loss in double.items():
        torch.testing.assert_close(single[name].double(), loss.double(), rtol=1e-5, atol=1e-5)


class Calls:
    """Counts the calls of every module of a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.names: list[str] = []
        self.options: list[dict[str, Any]] = []
        self._hooks = [
            module.register_forward_hook(lambda *_, name=name: self.names.append(name))
            for name, module in model.named_modules()
        ]
        self._hooks.append(
            model.base_model.register_forward_pre_hook(
                lambda _, args, options: self.options.append(options), with_kwargs=True
            )
        )

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


@pytest.fixture
def teacher_calls(tiny_teacher: Teacher) -> Iterator[Calls]:
    calls = Calls(tiny_teacher.model)
    yield calls
    calls.remove()


@pytest.mark.parametrize(
    ("weights", "encoder", "transform", "states"),
    [
        ({"mlm": 1}, 0, 0, False),
        ({"mlm": 1, "kl": 0}, 0, 0, False),
        ({"kl": 1}, 1, 1, False),
        ({"cosine": 1}, 1, 0, True),
        ({"kl": 1, "hidden": 1}, 1, 1, True),
        ({"attention": 1}, 1, 0, False),
    ],
)
def test_nothing_is_computed_that_no_loss_uses(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, teacher_calls: Calls, batch: Batch,
    weights: dict[str, float], encoder: int, transform: int, states: bool,
) -> None:  # fmt: skip
    student_calls = Calls(student)
    objective = Objective(student, tiny_teacher.model, settings(weights=weights))
    objective(batch, objective.counts(batch))
    assert teacher_calls.names.count("bert.encoder") == encoder
    assert teacher_calls.names.count("cls.predictions.transform.dense") == transform
    # The product with the vocabulary is made in chunks, never by the head itself.
    assert "cls.predictions.decoder" not in teacher_calls.names
    assert "vocab_projector" not in student_calls.names
    assert student_calls.names.count("vocab_transform") == ("kl" in weights or "mlm" in weights)
    assert all(options.get("output_hidden_states", False) == states for options in student_calls.options)
    assert not any(options.get("output_attentions") for options in student_calls.options + teacher_calls.options)


def test_bf16_is_close_and_does_not_touch_the_teacher(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights=ALL))
    counts = objective.counts(batch)
    exact = objective(batch, counts)
    before = {name: tensor.clone() for name, tensor in tiny_teacher.model.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        rounded, again = objective(batch, counts), objective(batch, counts)
        by_hand = plain(student, tiny_teacher.model, batch, "all")
    assert all(loss.dtype == torch.float32 for loss in rounded.values())
    for name in exact:
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=0.03, abs=1e-3)
        assert rounded[name] == again[name]
    for name, loss in by_hand.items():
        assert rounded[name].item() == pytest.approx(loss.float().item(), rel=0.02)
    after = tiny_teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tiny_teacher.model.dtype == torch.float32


def test_gradients_in_bf16_point_where_those_in_float32_do(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights=ALL))
    counts = objective.counts(batch)
    exact = gradients(objective, objective(batch, counts)["loss"])
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective(batch, counts)
    rounded = gradients(objective, losses["loss"])
    for name, gradient in exact.items():
        if gradient.norm() > 1e-4:
            assert torch.cosine_similarity(gradient.flatten(), rounded[name].flatten(), dim=0) > 0.99, name


def test_an_untied_head_has_a_gradient_of_its_own(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch
) -> None:
    tied = Objective(student, tiny_teacher.model, settings())
    counts = tied.counts(batch)
    both = gradients(tied, tied(batch, counts)["loss"])["model.distilbert.embeddings.word_embeddings.weight"]
    untied = copy.deepcopy(student)
    untied.vocab_projector.weight = torch.nn.Parameter(student.vocab_projector.weight.detach().clone())
    objective = Objective(untied, tiny_teacher.model, settings())
    found = gradients(objective, objective(batch, counts)["loss"])
    parts = [found[f"model.{name}.weight"] for name in ("distilbert.embeddings.word_embeddings", "vocab_projector")]
    assert all(part.abs().max() > 0 for part in parts)
    torch.testing.assert_close(sum(parts), both, rtol=1e-4, atol=1e-5)


def test_a_bert_is_trained_by_mlm_without_a_teacher(tiny_teacher: Teacher, batch: Batch) -> None:
    objective = Objective(tiny_teacher.model, None, settings(weights={"mlm": 1.0}))
    tiny_teacher.model.requires_grad_(True)
    try:
        losses = objective(batch, objective.counts(batch))
        found = gradients(objective, losses["loss"])
    finally:
        tiny_teacher.model.requires_grad_(False).zero_grad()
    logits = tiny_teacher.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    count = objective.counts(batch)["mlm"]
    torch.testing.assert_close(
        losses["mlm"], masked_cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()) / count
    )
    assert set(losses) == {"mlm", "loss"}
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("name", list(ALL))
def test_each_loss_can_be_learnt(
    student: DistilBertForMaskedLM, tiny_teacher: Teacher, batch: Batch, name: str
) -> None:
    objective = Objective(student, tiny_teacher.model, settings(weights={name: 1.0}))
    counts = {name: float(count) for name, count in objective.counts(batch).items()}
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    history = []
    for _ in range(40):
        losses = objective(batch, counts)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append(losses["loss"].item())
    assert history[-1] < 0.7 * history[0]


def test_what_cannot_be_is_refused(student: DistilBertForMaskedLM, tiny_teacher: Teacher) -> None:
    with pytest.raises(UserError, match=r"^distillation\.weights: all are 0"):
        Objective(student, tiny_teacher.model, settings(weights={"kl": 0}))
    with pytest.raises(UserError, match=r"^distillation\.weights: of mlm, cosine only mlm works without a teacher"):
        Objective(student, None, settings(weights={"mlm": 1, "cosine": 1}))
    with pytest.raises(UserError, match=r"^distillation\.layer_map: 1 lists for 2 student layers"):
        Objective(student, tiny_teacher.model, settings(layer_map=[[1]]))
    smaller = DistilBertForMaskedLM(type(student.config)(**{**student.config.to_dict(), "vocab_size": 30}))
    with pytest.raises(UserError, match=r"^student\.vocabulary: .*30 tokens"):
        Objective(smaller, tiny_teacher.model, settings())


def test_each_loss_is_described_as_the_settings_have_it(student: DistilBertForMaskedLM, tiny_teacher: Teacher) -> None:
    weights = {"kl": 5.0, "cosine": 1.0, "attention": 0.5}
    said = Objective(student, tiny_teacher.model, settings(weights=weights, temperature=2.5)).describe()
    assert {name: loss["weight"] for name, loss in said.items()} == weights
    assert said["kl"]["title"] == "KL to the teacher"
    assert "at temperature 2.5, over the masked positions" in said["kl"]["meaning"]
    assert "and the mean of 2 consecutive hidden states of the teacher" in said["cosine"]["meaning"]
    last = Objective(student, tiny_teacher.model, settings(weights=weights, layer_map="last-of-block")).describe()
    assert "and the last of its group of consecutive attention maps" in last["attention"]["meaning"]
    assert Objective(student, None, settings(weights={"mlm": 1})).describe().keys() == {"mlm"}


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.vocabularies])
def test_every_loss_has_a_term_a_weight_and_a_sentence(tiny_teacher: Teacher, name: str) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=2))
    tokenizers = None if "one" in LOSSES[name].vocabularies else Tokenizers(tiny_teacher.tokenizer, student.tokenizer)
    objective = Objective(student.model, tiny_teacher.model, settings(weights={name: 1}), tokenizers)
    (term,) = objective.terms.values()
    assert term.names == (name,)
    assert "{" not in objective.describe()[name]["meaning"]


def test_losses_that_are_not_named_have_no_weight() -> None:
    named = [name for name, weight in settings(weights={"mlm": 1}).weights if weight]
    defaults = {name: weight for name, weight in ObjectiveSettings().weights if weight}
    assert named == ["mlm"]
    assert defaults == {"kl": 5.0, "mlm": 2.0, "cosine": 1.0}
    assert set(ALL) <= set(LossWeights.model_fields)
