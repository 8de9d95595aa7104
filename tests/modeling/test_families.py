"""Every family on random teachers of odd shapes; both versions of transformers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from distilrubert.common.errors import UserError
from distilrubert.modeling.architecture import StudentArchitecture, spread_over_kinds
from distilrubert.modeling.families import MODEL_TYPES, family_of
from distilrubert.modeling.heads import has_head, layers_of, mlm_head_of
from distilrubert.modeling.student import Student, build_student, load_student, save_student
from distilrubert.modeling.teacher import Teacher, load_teacher, save_teacher

from ..random_teachers import make_teacher


@pytest.fixture(params=[(model_type, True) for model_type in MODEL_TYPES] + [("xlm-roberta", False), ("bert", False)])
def teacher(request: pytest.FixtureRequest, tiny_teacher: Teacher) -> Teacher:
    model_type, with_head = request.param
    return make_teacher(model_type, tiny_teacher.tokenizer, with_head=with_head)


def padded(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> dict[str, Tensor]:
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def states(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Tensor]:
    """Hidden states, and logits where there is a head, at the real positions of a padded batch."""
    inputs = padded(tokenizer, texts)
    real_BL = inputs["attention_mask"].bool()
    assert not real_BL.all()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    found = [*output.hidden_states, output.logits if has_head(model) else output.last_hidden_state]
    return [tensor[real_BL] for tensor in found]


def assert_same(own: list[Tensor], its: list[Tensor], tolerance: float = 1e-5) -> None:
    assert len(own) == len(its)
    for own_ND, its_ND in zip(own, its, strict=True):
        torch.testing.assert_close(own_ND, its_ND, atol=tolerance, rtol=tolerance)
        assert its_ND.std() > 0.1


def test_with_all_layers_a_student_computes_what_its_teacher_does(teacher: Teacher, sentences: list[str]) -> None:
    student = build_student(teacher, StudentArchitecture())
    assert has_head(student.model) == has_head(teacher.model)
    its = states(teacher.model, teacher.tokenizer, sentences)
    assert_same(states(student.model, student.tokenizer, sentences), its)


def test_it_is_saved_and_loaded_with_stock_classes(teacher: Teacher, sentences: list[str], tmp_path: Path) -> None:
    student = build_student(teacher, StudentArchitecture(layers=3))
    save_student(student, tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    expected = states(student.model, student.tokenizer, sentences)
    assert_same(states(loaded.model, loaded.tokenizer, sentences), expected, tolerance=0)
    stock = AutoModel.from_pretrained(tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["architectures"] == [type(student.model).__name__]
    assert str(tmp_path) not in json.dumps(config)
    assert_same(states(stock, loaded.tokenizer, sentences)[:-1], expected[:-1], tolerance=0)


def test_a_teacher_is_saved_and_loaded(teacher: Teacher, sentences: list[str], tmp_path: Path) -> None:
    save_teacher(teacher, tmp_path / "teacher")
    loaded = load_teacher(tmp_path / "teacher")
    assert loaded.sha256() == teacher.sha256()
    if has_head(loaded.model):
        assert mlm_head_of(loaded.model).weight_VD is loaded.model.get_input_embeddings().weight
    expected = states(teacher.model, teacher.tokenizer, sentences)
    assert_same(states(loaded.model, loaded.tokenizer, sentences), expected, tolerance=0)


def test_encoder_and_head_together_are_the_model(teacher: Teacher, sentences: list[str]) -> None:
    assert len(layers_of(teacher.model)) == 7
    if not has_head(teacher.model):
        return
    inputs = padded(teacher.tokenizer, sentences[:8])
    head = mlm_head_of(teacher.model)
    assert head.bias_V is not None
    with torch.no_grad():
        hidden_BLD = teacher.model.base_model(**inputs).last_hidden_state
        logits_BLV = head.transform(hidden_BLD) @ head.weight_VD.T + head.bias_V
        torch.testing.assert_close(logits_BLV, teacher.model(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_a_narrower_student_starts_from_parts_of_its_teacher(teacher: Teacher, sentences: list[str]) -> None:
    """Slicing keeps what it can: with sizes a little smaller the vectors are much closer than chance."""
    rotary = family_of(teacher.model.config).is_rotary
    sizes = {"dim": 24, "heads": 2} if rotary else {"dim": 33}
    student = build_student(teacher, StudentArchitecture(**sizes, hidden_dim=48))
    random = build_student(teacher, StudentArchitecture(**sizes, hidden_dim=48, initialise_from="random"))
    own, other, its = (
        _similarities(states(model, teacher.tokenizer, sentences[:20])[0])
        for model in (student.model, random.model, teacher.model)
    )
    assert torch.corrcoef(torch.stack([own, its]))[0, 1] > 0.8
    assert torch.corrcoef(torch.stack([other, its]))[0, 1] < 0.5


def _similarities(states_ND: Tensor) -> Tensor:
    unit_ND = torch.nn.functional.normalize(states_ND - states_ND.mean(dim=0), dim=-1)
    first, second = torch.triu_indices(len(unit_ND), len(unit_ND), offset=1)
    return (unit_ND @ unit_ND.T)[first, second]


def test_another_padding_id_moves_the_positions_of_a_roberta(tiny_teacher: Teacher, sentences: list[str]) -> None:
    """The student's vocabulary pads with id 0; its teacher with 4, so that its first four rows belong to no token."""
    tokenizer = tiny_teacher.tokenizer
    teacher = make_teacher("roberta", tokenizer, pad_token_id=4)
    own = build_student(dataclasses.replace(teacher, tokenizer=tokenizer), StudentArchitecture())
    assert own.model.config.pad_token_id == tokenizer.pad_token_id == 0
    assert own.model.config.max_position_embeddings == 61
    its_table, own_table = (
        model.base_model.embeddings.position_embeddings.weight for model in (teacher.model, own.model)
    )
    assert torch.equal(own_table[1:], its_table[5:])


@pytest.mark.parametrize("every", [1, 2, 3, 4])
@pytest.mark.parametrize("layers", [1, 2, 3, 5, 6, 7])
def test_layers_of_a_modernbert_start_from_their_own_kind(tiny_teacher: Teacher, every: int, layers: int) -> None:
    config = make_teacher("modernbert", tiny_teacher.tokenizer, global_attn_every_n_layers=every).model.config
    chosen = StudentArchitecture(layers=layers).resolve(config).initialise_from
    assert chosen is not None
    assert [layer % every == 0 for layer in chosen] == [layer % every == 0 for layer in range(layers)]
    assert chosen[0] == 0
    assert list(chosen) == sorted(set(chosen))


def test_the_nearest_layers_of_their_kind_are_taken() -> None:
    kinds = ["first", *("local" if layer % 3 else "global" for layer in range(1, 22))]
    assert spread_over_kinds(kinds[:6], kinds) == (0, 4, 8, 12, 17, 20)
    assert spread_over_kinds([""] * 6, [""] * 12) == (0, 2, 4, 7, 9, 11)


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ([0, 1, 3], "layer 2 of the student is local, layer 3 of the teacher global.*for example "),
        ([1, 4, 5], "layer 0 of the student is first, without a norm, layer 1 of the teacher local"),
        ([0, 0, 5], "layer 1 of the student is local, layer 0 of the teacher first, without a norm"),
    ],
)
def test_layers_of_another_kind_are_refused(tiny_teacher: Teacher, chosen: list[int], named: str) -> None:
    config = make_teacher("modernbert", tiny_teacher.tokenizer).model.config
    with pytest.raises(UserError, match=rf"student\.initialise_from: {named}"):
        StudentArchitecture(layers=3, initialise_from=chosen).resolve(config)


def test_heads_of_a_modernbert_keep_their_width(tiny_teacher: Teacher) -> None:
    config = make_teacher("modernbert", tiny_teacher.tokenizer).model.config
    with pytest.raises(
        UserError, match=r"student\.heads: 3 of a width of 8; a ModernBERT's are 12 wide.*: 2 heads for"
    ):
        StudentArchitecture(dim=24).resolve(config)
    assert StudentArchitecture(dim=24, initialise_from="random").resolve(config).heads == 3


def test_the_configuration_of_a_modernbert_is_read_by_both_versions(tiny_teacher: Teacher, tmp_path: Path) -> None:
    teacher = make_teacher("modernbert", tiny_teacher.tokenizer, global_attn_every_n_layers=2)
    save_student(build_student(teacher, StudentArchitecture(layers=4)), tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["global_attn_every_n_layers"] == 2
    assert config["layer_types"] == ["full_attention", "sliding_attention"] * 2
    assert (config["global_rope_theta"], config["local_rope_theta"]) == (500.0, 20.0)
    bases = {kind: rope["rope_theta"] for kind, rope in config["rope_parameters"].items()}
    assert bases == {"full_attention": 500.0, "sliding_attention": 20.0}


@pytest.mark.parametrize("version", ["4", "5"])
def test_a_modernbert_that_one_version_wrote_is_the_same_in_the_other(
    tiny_teacher: Teacher, sentences: list[str], tmp_path: Path, version: str
) -> None:
    teacher = make_teacher("modernbert", tiny_teacher.tokenizer, global_attn_every_n_layers=2)
    save_teacher(teacher, tmp_path / "teacher")
    path = tmp_path / "teacher" / "config.json"
    config = json.loads(path.read_text())
    of_other = {
        "4": ("layer_types", "rope_parameters"),
        "5": ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"),
    }
    path.write_text(json.dumps({name: value for name, value in config.items() if name not in of_other[version]}))
    loaded = load_teacher(tmp_path / "teacher")
    expected = states(teacher.model, teacher.tokenizer, sentences)
    assert_same(states(loaded.model, loaded.tokenizer, sentences), expected, tolerance=0)


@pytest.mark.parametrize(
    ("model_type", "config", "said"),
    [
        ("modernbert", {"layer_types": ["sliding_attention"] * 7}, "says layer_types that are not global every n-th"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "says rope_type 'yarn'"),
        ("modernbert", {"hidden_activation": "softplusplus"}, "says hidden_activation 'softplusplus'"),
        ("modernbert", {"rope_scaling": "linear"}, "cannot be read: "),
        ("modernbert", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}, "cannot be read: "),
        ("bert", {"hidden_act": ["gelu"]}, "cannot be read: "),
        ("xlm-roberta", {"pad_token_id": None}, "says pad_token_id None"),
    ],
)
def test_teachers_that_no_student_can_follow(
    tiny_teacher: Teacher, tmp_path: Path, model_type: str, config: dict[str, Any], said: str
) -> None:
    save_teacher(make_teacher(model_type, tiny_teacher.tokenizer), tmp_path / "teacher")
    path = tmp_path / "teacher" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(UserError, match=f"teacher: config.json {said}"):
        load_teacher(tmp_path / "teacher")


def test_a_tokenizer_that_pads_otherwise_does_not_belong_to_a_roberta(tiny_teacher: Teacher, tmp_path: Path) -> None:
    save_teacher(make_teacher("roberta", tiny_teacher.tokenizer, pad_token_id=4), tmp_path / "teacher")
    with pytest.raises(UserError, match=r"pads with id 0, config\.json says pad_token_id 4"):
        load_teacher(tmp_path / "teacher")


def test_positions_limit_the_tokenizer(teacher: Teacher, tmp_path: Path) -> None:
    teacher.tokenizer.model_max_length = 1_000
    try:
        save_teacher(teacher, tmp_path / "teacher")
    finally:
        teacher.tokenizer.model_max_length = 64
    expected = 64 if family_of(teacher.model.config).title == "RoBERTa" else 65
    assert load_teacher(tmp_path / "teacher").tokenizer.model_max_length == expected


def test_a_student_may_start_from_random_weights(teacher: Teacher) -> None:
    student: Student = build_student(teacher, StudentArchitecture(layers=2, initialise_from="random"))
    assert AutoConfig.for_model(student.model.config.model_type).model_type == student.model.config.model_type
    assert student.model.config.num_hidden_layers == 2
