"""Structured pruning of every family: what is zero can go, and what is pruned is as if it were masked."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.families import MODEL_TYPES
from distilrubert.modeling.families.family import Weights
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.importance import Importance, importance_of_weights, measure_importance
from distilrubert.modeling.roles import modules_by_role, set_weights, weights_of
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher

from ..random_teachers import make_teacher

LAYERS, WIDTH, HEADS, INNER = 3, 24, 2, 20
PRUNED = StudentArchitecture(dim=WIDTH, heads=HEADS, hidden_dim=INNER)
# The teacher has twice of each; these of its dimensions, heads and units are to stay.
KEPT = torch.arange(WIDTH) * 2 + torch.arange(WIDTH) % 2
KEPT_HEADS = torch.tensor([1, 2])
KEPT_UNITS = torch.arange(INNER) * 2 + 1
HEAD_WIDTH = WIDTH // HEADS
KEPT_VALUES = (KEPT_HEADS[:, None] * HEAD_WIDTH + torch.arange(HEAD_WIDTH)).flatten()
WRITERS = ("attention_output", "outer", "transform")
READERS = ("query", "key", "value", "inner", "gate", "transform")
TABLES = ("words", "positions", "token_types", "decoder")


def others(kept: Tensor, size: int) -> Tensor:
    return torch.tensor(sorted(set(range(size)) - set(kept.tolist())))


SPARE, SPARE_UNITS = others(KEPT, 2 * WIDTH), others(KEPT_UNITS, 2 * INNER)
SPARE_VALUES, SPARE_HEADS = others(KEPT_VALUES, 2 * WIDTH), others(KEPT_HEADS, 2 * HEADS)


def large_teacher(model_type: str, tokenizer: PreTrainedTokenizerFast, *, with_head: bool = True) -> Teacher:
    """A random teacher of twice the student's sizes, each LayerNorm with an epsilon that plays no part."""
    sizes = {"hidden_size": 2 * WIDTH, "num_attention_heads": 2 * HEADS, "intermediate_size": 2 * INNER}
    teacher = make_teacher(model_type, tokenizer, with_head=with_head, num_hidden_layers=LAYERS, **sizes)
    for name in {"layer_norm_eps", "norm_eps"} & teacher.model.config.to_dict().keys():
        setattr(teacher.model.config, name, 1e-12)
    for module in teacher.model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-12
    return teacher


def change(teacher: Teacher, alter: Any) -> None:
    """Alter each weight, given with its role."""
    weights: Weights = {name: weight.clone() for name, weight in weights_of(teacher.model).items()}
    for name, weight in weights.items():
        alter(name.split(".")[-2], weight)
    set_weights(teacher.model, weights)


def add_unread_dimensions(role: str, weight: Tensor) -> None:
    """Each spare dimension is a copy of another one, so that a norm has the same deviation, and nothing reads it."""
    if role in TABLES and weight.dim() == 2:
        weight[:, SPARE] = weight[:, KEPT]
    elif role in WRITERS or role.endswith("norm"):
        weight[SPARE] = 0.0 if role == "transform_norm" else weight[KEPT]
    if role in READERS and weight.dim() == 2:
        weight[:, SPARE] = 0.0


def zero_heads_and_units(role: str, weight: Tensor) -> None:
    if role in ("attention_output", "outer") and weight.dim() == 2:
        weight[:, SPARE_VALUES if role == "attention_output" else SPARE_UNITS] = 0.0


def zero_dimensions(role: str, weight: Tensor) -> None:
    """The others have the mean 0 at each position, before and after each norm."""
    if role in TABLES:
        weight[:, SPARE] = 0.0
        weight[:, KEPT] -= weight[:, KEPT].mean(dim=1, keepdim=True)
    elif role in WRITERS:
        weight[SPARE] = 0.0
        weight[KEPT] -= weight[KEPT].mean(dim=0)
    elif role.endswith("norm"):
        weight[SPARE] = 0.0
        is_scale = weight[KEPT].mean() > 0.5
        weight[KEPT] = torch.full_like(weight[KEPT], 0.8) if is_scale else weight[KEPT] - weight[KEPT].mean()


def batches_of(teacher: Teacher, texts: list[str], size: int = 8) -> Iterator[dict[str, Tensor]]:
    """Texts of which about a third of the tokens are to be predicted."""
    generator = torch.Generator().manual_seed(2)
    for start in range(0, len(texts), size):
        inputs = teacher.tokenizer(texts[start : start + size], padding=True, return_tensors="pt")
        is_target = torch.rand(inputs["input_ids"].shape, generator=generator) < 0.3
        labels = inputs["input_ids"].where(is_target & inputs["attention_mask"].bool(), torch.tensor(-100))
        yield {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels}


def outputs(model: PreTrainedModel, teacher: Teacher, texts: list[str]) -> tuple[Tensor, Tensor | None]:
    """Last hidden states and, where there is a head, logits at the real positions, in fp64."""
    model = copy.deepcopy(model).double()
    (batch,) = batches_of(teacher, texts, len(texts))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    is_real = batch["attention_mask"].bool()
    assert not is_real.all()
    with torch.no_grad():
        last = model.base_model(**inputs).last_hidden_state[is_real]
        return last, model(**inputs).logits[is_real] if has_head(model) else None


def assert_pruned_is_whole(student: PreTrainedModel, teacher: Teacher, texts: list[str]) -> None:
    """The student's states are those of the teacher at the dimensions that stay, and its logits are the teacher's."""
    assert student.config.hidden_size == WIDTH
    (own, own_logits), (its, its_logits) = (outputs(model, teacher, texts) for model in (student, teacher.model))
    torch.testing.assert_close(own, its[:, KEPT], atol=1e-5, rtol=0)
    assert its[:, KEPT].std() > 0.1
    assert (own_logits is None) == (its_logits is None)
    if own_logits is not None:
        torch.testing.assert_close(own_logits, its_logits, atol=1e-5, rtol=0)


@pytest.fixture(params=[(model_type, True) for model_type in MODEL_TYPES] + [("xlm-roberta", False)])
def teacher(request: pytest.FixtureRequest, tiny_teacher: Teacher) -> Teacher:
    model_type, with_head = request.param
    made = large_teacher(model_type, tiny_teacher.tokenizer, with_head=with_head)
    change(made, add_unread_dimensions)
    return made


def test_heads_and_units_that_are_zero_can_go(teacher: Teacher, sentences: list[str]) -> None:
    change(teacher, zero_heads_and_units)
    importance = measure_importance(teacher.model, batches_of(teacher, sentences), seed=1)
    for layer in range(teacher.model.config.num_hidden_layers):
        heads_H, units_F = (importance.values[f"layers.{layer}.{axis}"] for axis in ("heads", "inner"))
        assert (heads_H[SPARE_HEADS] == 0).all()
        assert (heads_H[KEPT_HEADS] > 0).all()
        assert (units_F[SPARE_UNITS] == 0).all()
        assert units_F[KEPT_UNITS].count_nonzero() > INNER // 2
    # What nothing reads still has a part in the deviations.
    hidden_D = torch.zeros(2 * WIDTH).index_fill(0, KEPT, 1.0)
    importance = dataclasses.replace(importance, values={**importance.values, "hidden": hidden_D})
    assert_pruned_is_whole(build_student(teacher, PRUNED, importance=importance).model, teacher, sentences)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_dimensions_that_are_zero_can_go(model_type: str, tiny_teacher: Teacher, sentences: list[str]) -> None:
    """Their LayerNorms divide by a smaller deviation than those of what stays."""
    teacher = large_teacher(model_type, tiny_teacher.tokenizer, with_head=False)
    change(teacher, zero_heads_and_units)
    change(teacher, zero_dimensions)
    importance = measure_importance(teacher.model, batches_of(teacher, sentences), seed=1)
    assert (importance.values["hidden"][SPARE] == 0).all()
    assert (importance.values["hidden"][KEPT] > 0).all()
    assert_pruned_is_whole(build_student(teacher, PRUNED, importance=importance).model, teacher, sentences)
    plain = dataclasses.replace(importance, norms={})
    with pytest.raises(AssertionError):
        assert_pruned_is_whole(build_student(teacher, PRUNED, importance=plain).model, teacher, sentences)


@contextlib.contextmanager
def masked(model: PreTrainedModel) -> Iterator[None]:
    """Without the outputs of the spare heads and units."""
    spare = {"attention_output": SPARE_VALUES, "outer": SPARE_UNITS}
    handles = [
        module.register_forward_pre_hook(lambda module, args, spare=spare[roles[0]]: args[0].index_fill(-1, spare, 0.0))
        for _, roles, module in modules_by_role(model)
        if roles[0] in spare
    ]
    yield
    for handle in handles:
        handle.remove()


def test_removing_is_masking(teacher: Teacher, sentences: list[str]) -> None:
    chosen = importance_of_weights(teacher.model)
    values = {"hidden": torch.zeros(2 * WIDTH).index_fill(0, KEPT, 1.0)}
    for layer in range(teacher.model.config.num_hidden_layers):
        values[f"layers.{layer}.heads"] = torch.zeros(2 * HEADS).index_fill(0, KEPT_HEADS, 1.0)
        values[f"layers.{layer}.inner"] = torch.zeros(2 * INNER).index_fill(0, KEPT_UNITS, 1.0)
    student = build_student(teacher, PRUNED, importance=Importance({**chosen.values, **values})).model
    with masked(teacher.model):
        assert_pruned_is_whole(student, teacher, sentences)
    with pytest.raises(AssertionError):
        assert_pruned_is_whole(student, teacher, sentences)


@pytest.mark.parametrize("with_head", [True, False])
def test_it_is_the_second_derivative_of_the_divergence(
    with_head: bool, tiny_teacher: Teacher, sentences: list[str]
) -> None:
    """By finite differences, for the head, the unit and the dimension that matter most."""
    teacher = make_teacher("bert", tiny_teacher.tokenizer, with_head=with_head, num_hidden_layers=2)
    (batch,) = batches_of(teacher, sentences[1:2])
    many = [{name: tensor.expand(250, -1) for name, tensor in batch.items()}] * 8
    importance = measure_importance(teacher.model, many, seed=3)
    assert importance.texts == 2000
    whole = gated_output(teacher.model, batch, {})
    step = 0.05
    for place in ("layers.1.heads", "layers.0.inner", "layers.1.scores", "hidden"):
        values = importance.values[place]
        part = int(values.argmax())
        costs = [
            divergence(whole, gated_output(teacher.model, batch, {place: (part, gate)}))
            for gate in (1 + step, 1 - step)
        ]
        assert values[part] == pytest.approx(sum(costs) / step**2, rel=0.15), place


def gated_output(model: PreTrainedModel, batch: dict[str, Tensor], gates: dict[str, tuple[int, float]]) -> Tensor:
    """Log-probabilities at the targets, or all hidden states, with one part of the model multiplied by a gate."""
    width = model.config.hidden_size // model.config.num_attention_heads

    def scaled(tensor: Tensor, place: str) -> Tensor:
        part, gate = gates[place]
        chosen = slice(part * width, (part + 1) * width) if place.endswith("heads") else slice(part, part + 1)
        made = tensor.clone()
        made[..., chosen] *= gate
        return made

    handles = []
    for prefix, roles, module in modules_by_role(model):
        inputs = {"attention_output": f"{prefix}heads", "outer": f"{prefix}inner"}
        made = {"query": f"{prefix}scores"} | ({roles[0]: "hidden"} if roles[0].endswith("norm") else {})
        if inputs.get(roles[0]) in gates:
            place = inputs[roles[0]]
            handles.append(module.register_forward_pre_hook(lambda module, args, place=place: scaled(args[0], place)))
        if made.get(roles[0]) in gates:
            place = made[roles[0]]
            handles.append(
                module.register_forward_hook(lambda module, args, output, place=place: scaled(output, place))
            )
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        if has_head(model):
            found = model(**inputs).logits[batch["labels"] >= 0].double().log_softmax(dim=-1)
        else:
            found = model(**inputs).last_hidden_state.double()
    for handle in handles:
        handle.remove()
    return found


def divergence(whole: Tensor, gated: Tensor) -> float:
    """KL of distributions, or half the squared distance of states."""
    if whole.dim() == 2:
        return float(F.kl_div(gated, whole, log_target=True, reduction="sum"))
    return float((whole - gated).square().sum() / 2)


def test_it_is_the_same_every_time_and_leaves_everything_as_it_was(
    tiny_teacher: Teacher, sentences: list[str], tmp_path: Path
) -> None:
    before = {name: weight.clone() for name, weight in tiny_teacher.model.state_dict().items()}
    logits = outputs(tiny_teacher.model, tiny_teacher, sentences[:3])[1]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first, again, other = (
        measure_importance(tiny_teacher.model, batches_of(tiny_teacher, sentences), seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(4), expected)
    first.save(tmp_path / "importance.safetensors")
    for same in (again, Importance.load(tmp_path / "importance.safetensors")):
        assert same.texts == first.texts == len(sentences)
        for name in ("values", "norms"):
            own, its = getattr(first, name), getattr(same, name)
            assert own.keys() == its.keys()
            assert all(torch.equal(own[place], its[place]) for place in own)
    assert not torch.equal(first.values["hidden"], other.values["hidden"])
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_teacher.model.state_dict().items())
    after = outputs(tiny_teacher.model, tiny_teacher, sentences[:3])[1]
    assert logits is not None
    assert after is not None
    assert torch.equal(after, logits)
    for norm_D in first.norms.values():
        assert norm_D.mean() == pytest.approx(1.0, abs=1e-4)


def test_a_batch_without_a_target_has_no_part_in_it(tiny_teacher: Teacher, sentences: list[str]) -> None:
    (batch,) = batches_of(tiny_teacher, sentences[:4])
    empty = batch | {"labels": torch.full_like(batch["labels"], -100)}
    one, both = (measure_importance(tiny_teacher.model, given, seed=1) for given in ([batch], [batch, empty]))
    torch.testing.assert_close(both.values["hidden"], one.values["hidden"] / 2)
