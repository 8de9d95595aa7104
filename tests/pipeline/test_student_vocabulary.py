"""The stage that makes a vocabulary for the student, and what follows from it in the other stages."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.store import load_corpus
from distilrubert.distill.corpus.vocabulary_texts import texts_of_part
from distilrubert.modeling.teacher import Teacher, save_teacher
from distilrubert.modeling.tokenizer_kinds import tokens_of
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.engine import bring_up_to_date
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stages import stages_of, training_stages_of
from distilrubert.pipeline.student_vocabulary import corpus_tokenizers, fitted, held_out

from ..random_teachers import make_teacher

RECIPE = """
name: small-one
teacher: {{model: {teacher}}}
corpus: {{sources: [{{path: texts.txt}}], validation: 0.3, max_length: 64, processes: 1}}
student: {student}
distillation: {{weights: {weights}, batch_tokens: 256, batches_per_update: 1, max_steps: 2, precision: fp32}}
conversion: {{onnx: [], openvino: []}}
card: {{language: ru, license: apache-2.0}}
"""
RECIPES = Path(__file__).parents[2] / "recipes"
TRIMMED = {"student": "{layers: 2, vocabulary: {trim: {minimum_count: 2}}}", "weights": "{kl: 1, mlm: 1, cosine: 1}"}
TRAINED = {
    "student": "{layers: 2, dim: 16, heads: 4, hidden_dim: 32, vocabulary: {train: {size: 150}}}",
    "weights": "{mlm: 1, match: 1, reduce_map: 1, reduce: 0.1}",
}


def new_run(folder: Path, teacher: Path, sentences: list[str], **changes: str) -> Run:
    folder.mkdir(exist_ok=True)
    (folder / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(teacher=teacher, **changes), encoding="utf-8")
    return Run(load_recipe(folder / "recipe.yaml"), folder / "run")


def train(run: Run) -> list[str]:
    """Bring a run up to its student; the stages performed."""
    return bring_up_to_date(run, stages_of(run), only=training_stages_of(run))


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path, sentences: list[str]) -> Run:
    run = new_run(tmp_path_factory.mktemp("trimmed"), tiny_teacher_folder, sentences, **TRIMMED)
    assert train(run) == ["student-vocabulary", "corpus", "student"]
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path, sentences: list[str]) -> Run:
    run = new_run(tmp_path_factory.mktemp("trained"), tiny_teacher_folder, sentences, **TRAINED)
    assert train(run) == ["student-vocabulary", "corpus", "student"]
    return run


def test_a_student_of_the_teachers_vocabulary_needs_no_stage(
    tmp_path: Path, tiny_teacher_folder: Path, tiny_teacher: Teacher, sentences: list[str]
) -> None:
    run = new_run(tmp_path, tiny_teacher_folder, sentences, **TRIMMED | {"student": "{layers: 2}"})
    assert "student-vocabulary" not in [stage.name for stage in stages_of(run)]
    shared, own = corpus_tokenizers(run)
    assert (shared.get_vocab(), own) == (tiny_teacher.tokenizer.get_vocab(), None)
    assert fitted(run, tiny_teacher) == (tiny_teacher, None)


def test_the_report_of_a_trimmed_vocabulary(trimmed: Run, tiny_teacher: Teacher) -> None:
    report = Measurements.load(trimmed.reports / "vocabulary.json")
    teacher, student = report["teacher"].values, report["student"].values
    own = AutoTokenizer.from_pretrained(trimmed.student_vocabulary)
    assert set(own.get_vocab()) < set(tiny_teacher.tokenizer.get_vocab())
    assert (teacher["tokens"], student["tokens"]) == (len(tiny_teacher.tokenizer), len(own))
    # An embedding of 32 numbers and a bias for each piece, in fp32.
    assert student["embeddings_mib"] == pytest.approx(len(own) * 33 * 4 / 2**20)
    assert report["student"].ratio == pytest.approx(len(tiny_teacher.tokenizer) / len(own))
    # Pieces met once were dropped, so some text is tokenised differently, also where nothing was counted.
    for name in ("training_resplit_token_share", "held_out_resplit_token_share"):
        assert 0 < student[name] < 0.5
    assert student["held_out_resplit_token_share"] < student["held_out_resplit_text_share"] < 1
    assert student["held_out_tokens"] > teacher["held_out_tokens"] > 0
    assert student["held_out_unknown_share"] == teacher["held_out_unknown_share"]
    assert report.details["held_out_texts"] > 10


def test_the_report_of_a_new_vocabulary(trained: Run) -> None:
    report = Measurements.load(trained.reports / "vocabulary.json")
    student = report["student"].values
    # The student's own width: 16 numbers and a bias.
    assert (student["tokens"], student["embeddings_mib"]) == (150, pytest.approx(150 * 17 * 4 / 2**20))
    assert not [name for name in student if "resplit" in name]
    assert student["training_unknown_character_share"] == student["training_unknown_word_share"] == 0


def test_nothing_of_the_held_out_text_is_counted(
    trimmed: Run, tiny_teacher_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    """The vocabulary is the same whatever the held-out texts are."""
    corpus = load_corpus(trimmed.corpus)
    own = AutoTokenizer.from_pretrained(trimmed.student_vocabulary)
    held = [own.decode(ids, skip_special_tokens=True) for ids in corpus.validation]
    joined = ["".join(text.split()) for text in held]
    rest = [text for text in sentences if "".join(text.split()) not in joined]
    assert 0 < len(rest) < len(sentences)
    run = new_run(tmp_path, tiny_teacher_folder, rest, **TRIMMED)
    again = dataclasses.replace(run, recipe=load_recipe(tmp_path / "recipe.yaml", ["corpus.validation=0"]))
    bring_up_to_date(again, stages_of(again), only=["student-vocabulary"])
    assert tokens_of(AutoTokenizer.from_pretrained(again.student_vocabulary)) == tokens_of(own)


def test_a_trimmed_teacher_and_its_student_read_the_same_tokens(trimmed: Run, tiny_teacher: Teacher) -> None:
    own = AutoTokenizer.from_pretrained(trimmed.student_vocabulary)
    shared, other = corpus_tokenizers(trimmed)
    assert (shared.get_vocab(), other) == (own.get_vocab(), None)
    teacher, none = fitted(trimmed, tiny_teacher)
    assert (teacher.model.config.vocab_size, none) == (len(own), None)
    sequences = held_out(trimmed)
    assert len(sequences["teacher"]) == len(sequences["student"]) > 10
    for its, ids in zip(sequences["teacher"], sequences["student"], strict=True):
        assert tiny_teacher.tokenizer.convert_ids_to_tokens(its.tolist()) == own.convert_ids_to_tokens(ids.tolist())


def test_a_teacher_reads_its_own_tokens_beside_a_new_vocabulary(trained: Run, tiny_teacher: Teacher) -> None:
    own = AutoTokenizer.from_pretrained(trained.student_vocabulary)
    its, ours = corpus_tokenizers(trained)
    assert ours is not None
    assert (its.get_vocab(), ours.get_vocab()) == (tiny_teacher.tokenizer.get_vocab(), own.get_vocab())
    teacher, tokenizer = fitted(trained, tiny_teacher)
    assert teacher is tiny_teacher
    assert tokenizer is not None
    assert tokenizer.get_vocab() == own.get_vocab()
    sequences = held_out(trained)
    known = 0
    for ids, others in zip(sequences["teacher"], sequences["student"], strict=True):
        if own.unk_token_id not in others:
            assert its.decode(ids).replace(" ", "") == own.decode(others).replace(" ", "")
            known += 1
    assert known > 10


@pytest.mark.parametrize("made", ["trimmed", "trained"])
def test_the_student_loads_as_users_write_it(made: str, request: pytest.FixtureRequest, sentences: list[str]) -> None:
    run: Run = request.getfixturevalue(made)
    tokenizer = AutoTokenizer.from_pretrained(run.student)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(run.student_vocabulary).get_vocab()
    inputs = tokenizer(sentences[:3], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(run.student)(**inputs).last_hidden_state
        logits = AutoModelForMaskedLM.from_pretrained(run.student)(**inputs).logits
    assert hidden.shape[:2] == inputs["input_ids"].shape
    assert logits.shape[-1] == len(tokenizer)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("model_type", "kind"), [("xlm-roberta", "unigram"), ("roberta", "roberta-bpe"), ("modernbert", "modernbert-bpe")]
)
@pytest.mark.parametrize("made", ["trimmed", "trained"])
def test_teachers_of_every_kind_of_tokenizer(
    made: str,
    model_type: str,
    kind: str,
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    sentences: list[str],
    tmp_path: Path,
) -> None:
    whole = make_teacher(model_type, tokenizers_of_all_kinds[kind], max_position_embeddings=66)
    save_teacher(whole, tmp_path / "teacher")
    changes = {
        "trimmed": TRIMMED,
        "trained": TRAINED | {"student": "{layers: 2, vocabulary: {train: {size: 150}}}"},
    }[made]
    run = new_run(tmp_path / "work", tmp_path / "teacher", sentences, **changes)
    assert train(run) == ["student-vocabulary", "corpus", "student"]
    tokenizer = AutoTokenizer.from_pretrained(run.student)
    model = AutoModelForMaskedLM.from_pretrained(run.student)
    inputs = tokenizer(sentences[:5], padding=True, return_tensors="pt")
    assert model(**inputs).logits.shape[-1] == len(tokenizer) < len(whole.tokenizer)
    values = Measurements.load(run.reports / "training.json").rows[0].values
    assert all(value > 0 for value in values["validation_losses"].values())
    if made == "trimmed":
        its, own = (held[0] for held in held_out(run).values())
        assert whole.tokenizer.decode(its) == tokenizer.decode(own)


@pytest.mark.parametrize("name", ["tiny", "tiny-5k", "reference-tiny", "reference-tiny-5k"])
def test_the_losses_of_every_shipped_recipe_train(
    name: str, tiny_teacher_folder: Path, sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 11: of the scripts that came with the paper's code one could not run."""
    monkeypatch.setenv("DISTILRUBERT_DATA", str(tmp_path))
    monkeypatch.setenv("DISTILRUBERT_CORPUS", str(tmp_path))
    (tmp_path / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    smaller = [
        f"teacher.model={tiny_teacher_folder}",
        f"corpus={{sources: [{{path: {tmp_path}/texts.txt}}], validation: 0.3, max_length: 64, processes: 1}}",
        "student={layers: 2, dim: 16, heads: 4, hidden_dim: 32, vocabulary: {train: {size: 150}}}",
        "distillation.batch_tokens=256",
        "distillation.batches_per_update=1",
        "distillation.max_steps=2",
    ]
    recipe = load_recipe(RECIPES / f"{name}.yaml", smaller)
    run = Run(recipe, tmp_path / "run")
    train(run)
    values = Measurements.load(run.reports / "training.json").rows[0].values
    assert set(values["losses"]) == {"loss", *(key for key, weight in recipe.distillation.weights if weight)}
    assert all(value > 0 for value in values["validation_losses"].values())


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"student.vocabulary.trim.minimum_count": 3}, ["student-vocabulary", "corpus", "student"]),
        ({"student.layers": 1}, ["student"]),
        ({"corpus.max_length": 24}, ["corpus", "student"]),
    ],
)
def test_what_a_change_makes_anew(
    changes: dict[str, int], redone: list[str], tiny_teacher_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    run = new_run(tmp_path, tiny_teacher_folder, sentences, **TRIMMED)
    train(run)
    assert train(run) == []
    recipe = load_recipe(tmp_path / "recipe.yaml", [f"{key}={value}" for key, value in changes.items()])
    changed = dataclasses.replace(run, recipe=recipe)
    assert train(changed) == redone


def test_a_vocabulary_smaller_than_its_characters_is_refused(
    tiny_teacher_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    student = "{layers: 2, vocabulary: {train: {size: 100}}}"
    run = new_run(tmp_path, tiny_teacher_folder, sentences, **TRAINED | {"student": student})
    said = r"student\.vocabulary\.train: vocabulary size: 100 tokens; \d+ different characters"
    with pytest.raises(UserError, match=said) as caught:
        train(run)
    assert "\n" not in str(caught.value)
    assert not run.student_vocabulary.exists()


def test_a_sample_of_the_texts_is_chosen_by_their_hashes(tmp_path: Path) -> None:
    texts = [f"текст {number}" for number in range(1_500)]
    for name, order in (("one", texts), ("other", texts[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n".join(order), encoding="utf-8")

    def chosen(name: str, sample: float) -> list[str]:
        corpus = CorpusSettings(sources=[{"path": str(tmp_path / f"{name}.txt")}], validation=0.1)
        return list(texts_of_part(corpus, 7, is_held_out=False, sample=sample))

    every, some, few = (chosen("one", sample) for sample in (1.0, 0.5, 0.1))
    assert 1_300 < len(every) < 1_400
    assert 600 < len(some) < 760
    assert set(few) < set(some) < set(every)
    # The order of the text is kept, and does not decide.
    assert some == [text for text in every if text in set(some)]
    assert chosen("other", 0.5) == some[::-1]


def test_a_new_vocabulary_of_a_sample_of_the_texts(
    tmp_path: Path, tiny_teacher_folder: Path, sentences: list[str]
) -> None:
    def vocabulary(name: str, train: str) -> set[str]:
        student = f"{{layers: 2, dim: 16, heads: 4, hidden_dim: 32, vocabulary: {{train: {train}}}}}"
        run = new_run(tmp_path / name, tiny_teacher_folder, sentences, **TRAINED | {"student": student})
        bring_up_to_date(run, stages_of(run), only=["student-vocabulary"])
        made = AutoTokenizer.from_pretrained(run.student_vocabulary)
        corpus, seed = run.recipe.corpus, run.recipe.seed
        texts = texts_of_part(corpus, seed, is_held_out=False, sample=0.4 if "sample" in train else 1.0)
        assert tokens_of(made) == tokens_of(train_wordpiece(texts, 150, made.model_max_length).tokenizer)
        return set(tokens_of(made))

    assert vocabulary("some", "{size: 150, sample: 0.4}") != vocabulary("all", "{size: 150}")
