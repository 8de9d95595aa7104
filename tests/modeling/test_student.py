import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)

from distilrubert.common.errors import UserError
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import Student, build_student, load_student, save_student
from distilrubert.modeling.teacher import Teacher


@pytest.fixture(scope="module")
def student(tiny_teacher: Teacher) -> Student:
    return build_student(tiny_teacher, StudentArchitecture(layers=2))


@pytest.fixture(scope="module")
def folder(student: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("student") / "model"
    save_student(student, target)
    return target


def states(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[list[Tensor], Tensor]:
    """Hidden states and logits at the real positions."""
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    real_BL = inputs["attention_mask"].bool()
    assert not real_BL.all()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return [hidden_BLD[real_BL] for hidden_BLD in output.hidden_states], output.logits[real_BL]


def test_with_all_layers_a_student_computes_what_its_teacher_does(tiny_teacher: Teacher, sentences: list[str]) -> None:
    student = build_student(tiny_teacher, StudentArchitecture())
    own, own_logits_NV = states(student.model, student.tokenizer, sentences)
    its, its_logits_NV = states(tiny_teacher.model, tiny_teacher.tokenizer, sentences)
    assert len(own) == len(its) == 5
    for own_ND, its_ND in zip(own, its, strict=True):
        torch.testing.assert_close(own_ND, its_ND, atol=1e-5, rtol=0)
    torch.testing.assert_close(own_logits_NV, its_logits_NV, atol=1e-5, rtol=0)
    assert its_logits_NV.std() > 0.1  # the comparison is not one of zeros


def test_the_segment_vector_matters(tiny_teacher: Teacher, sentences: list[str]) -> None:
    """Without folding it in, the equality above would not hold."""
    student = build_student(tiny_teacher, StudentArchitecture())
    segment_D = tiny_teacher.model.bert.embeddings.token_type_embeddings.weight[0]
    with torch.no_grad():
        student.model.distilbert.embeddings.position_embeddings.weight.sub_(segment_D)
    own, _ = states(student.model, student.tokenizer, sentences)
    its, _ = states(tiny_teacher.model, tiny_teacher.tokenizer, sentences)
    assert (own[0] - its[0]).abs().max() > 0.1


def test_fewer_layers_are_exact_as_far_as_they_are_the_first(tiny_teacher: Teacher, sentences: list[str]) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=3, initialise_from=[0, 1, 3]))
    own, _ = states(student.model, student.tokenizer, sentences)
    its, _ = states(tiny_teacher.model, tiny_teacher.tokenizer, sentences)
    for k in range(3):
        torch.testing.assert_close(own[k], its[k], atol=1e-5, rtol=0)
    assert (own[3] - its[3]).abs().max() > 0.1


def test_blocks_come_from_the_listed_layers(tiny_teacher: Teacher) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=3, initialise_from=[3, 0, 2]))
    for own, its in enumerate([3, 0, 2]):
        block = student.model.distilbert.transformer.layer[own]
        layer = tiny_teacher.model.bert.encoder.layer[its]
        assert torch.equal(block.attention.out_lin.weight, layer.attention.output.dense.weight)
        assert torch.equal(block.ffn.lin2.bias, layer.output.dense.bias)
        assert torch.equal(block.output_layer_norm.weight, layer.output.LayerNorm.weight)


def test_training_the_student_leaves_the_teacher_alone(tiny_teacher: Teacher) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=1))
    before = tiny_teacher.model.bert.embeddings.word_embeddings.weight.clone()
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    assert torch.equal(tiny_teacher.model.bert.embeddings.word_embeddings.weight, before)
    assert all(parameter.requires_grad for parameter in student.model.parameters())


def test_embeddings_are_tied(student: Student) -> None:
    model = student.model
    assert model.vocab_projector.weight is model.distilbert.embeddings.word_embeddings.weight


def test_building_leaves_the_global_generator_alone(tiny_teacher: Teacher) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_student(tiny_teacher, StudentArchitecture(layers=1), seed=11)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("architecture", "named"),
    [
        (StudentArchitecture(preset="tiny"), r"width \(dim\) 264 \(teacher: 32\), heads 12 \(teacher: 4\)"),
        (StudentArchitecture(dim=64), r"width \(dim\) 64 \(teacher: 32\), width of a head 16 \(teacher: 8\)"),
        (StudentArchitecture(heads=8), r"heads 8 \(teacher: 4\)"),
        (StudentArchitecture(heads=2), r"width of a head 16 \(teacher: 8\)"),
        (StudentArchitecture(hidden_dim=65), r"hidden_dim 65 \(teacher: 64\)"),
        (
            StudentArchitecture(preset="tiny", dim=16, heads=4, hidden_dim=32),
            r"vocabulary of 30522 tokens \(teacher: 220\)",
        ),
    ],
)
def test_what_would_start_random_is_refused(
    tiny_teacher: Teacher, architecture: StudentArchitecture, named: str
) -> None:
    small = architecture.model_copy(update={"layers": 2})
    with pytest.raises(UserError, match=named):
        build_student(tiny_teacher, small)


def test_the_folder_is_complete_and_says_nothing_of_this_machine(folder: Path, tmp_path: Path) -> None:
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "config.json", "model.safetensors", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForMaskedLM"]
    assert config["model_type"] == "distilbert"
    assert config["dtype"] == "float32"
    for file in folder.glob("*.json"):
        text = file.read_text()
        assert "_name_or_path" not in text
        assert str(folder) not in text
        assert "/tmp" not in text


def test_saving_what_was_loaded_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    loaded = load_student(folder)
    loaded.tokenizer(["слово", "много разных слов"], padding=True, truncation=True, max_length=3)
    save_student(loaded, tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_it_loads_as_users_write_it(folder: Path, student: Student) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert tokenizer.model_max_length == 64
    inputs = tokenizer("Привет, [MASK]!", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask"}
    with torch.no_grad():
        assert AutoModel.from_pretrained(folder)(**inputs).last_hidden_state.shape[-1] == 32
        logits = AutoModelForMaskedLM.from_pretrained(folder)(**inputs).logits
        torch.testing.assert_close(logits, student.model(**inputs).logits)


def test_fill_mask(folder: Path) -> None:
    answers = pipeline("fill-mask", model=str(folder), top_k=3)("Привет, [MASK]!")
    assert len(answers) == 3
    assert all(answer["sequence"].startswith("Привет") for answer in answers)


def test_sentence_transformers(folder: Path, student: Student) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    inputs = student.tokenizer("Привет!", return_tensors="pt")
    with torch.no_grad():
        mean_D = student.model.distilbert(**inputs).last_hidden_state[0].mean(dim=0)
    torch.testing.assert_close(torch.tensor(encoder.encode("Привет!")), mean_D, atol=1e-5, rtol=1e-4)


def test_loading_gives_the_same_student(folder: Path, student: Student, sentences: list[str]) -> None:
    loaded = load_student(folder)
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert loaded.tokenizer(sentences)["input_ids"] == student.tokenizer(sentences)["input_ids"]
    for name, weight in student.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)


def test_a_failed_save_keeps_the_old_student(student: Student, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(UserError, match=r"runs/student: cannot be written"):
        save_student(student, tmp_path / "runs" / "student")
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]


def test_a_teacher_is_no_student(tiny_teacher_folder: Path) -> None:
    with pytest.raises(UserError, match=r"model_type 'bert'; a student is distilbert, roberta, "):
        load_student(tiny_teacher_folder)


def test_an_encoder_is_a_student_unless_it_should_have_a_head(folder: Path, student: Student, tmp_path: Path) -> None:
    student.tokenizer.save_pretrained(tmp_path)
    DistilBertModel.from_pretrained(folder).save_pretrained(tmp_path)
    assert isinstance(load_student(tmp_path).model, DistilBertModel)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["DistilBertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no trained masked-language head, missing .*vocab_transform\.weight"):
        load_student(tmp_path)


def test_a_fine_tuned_classifier_is_refused(folder: Path, student: Student, tmp_path: Path) -> None:
    student.tokenizer.save_pretrained(tmp_path)
    DistilBertForSequenceClassification(DistilBertConfig.from_pretrained(folder)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no trained masked-language head"):
        load_student(tmp_path)


def test_an_empty_folder_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_student(tmp_path)


def test_a_student_may_start_from_random_weights_of_its_seed(tiny_teacher: Teacher) -> None:
    random = StudentArchitecture(layers=2, initialise_from="random")
    one, same, other = (build_student(tiny_teacher, random, seed).model.state_dict() for seed in (1, 1, 2))
    copied = build_student(tiny_teacher, StudentArchitecture(layers=2)).model.state_dict()
    assert one.keys() == copied.keys()
    for name, weight in one.items():
        assert torch.equal(weight, same[name])
        if weight.dim() == 2:
            assert weight.std() == pytest.approx(0.02, rel=0.2), name
            assert not torch.equal(weight, other[name]), name
            assert not torch.equal(weight, copied[name]), name
