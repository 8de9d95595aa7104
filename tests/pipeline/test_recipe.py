"""Reading recipes: what is right is filled in, what is wrong is said in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.utils import LoggerType

from distilrubert.common.errors import UserError
from distilrubert.common.training.training_settings import TRACKERS
from distilrubert.distill.losses import SENTENCE_LOSSES
from distilrubert.pipeline.recipe import load_recipe

from .example_recipes import MINIMAL, ROOT

WITHOUT_CORPUS = MINIMAL.replace("corpus: {sources: [{path: texts/*.txt}]}\n", "")


@pytest.fixture
def write(tmp_path):
    def write(text: str = MINIMAL) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_mistake_says_where_it_was_made(write):
    path = write()
    assert message_of(path, "distillation.epochs=many").endswith("found 'many', given on the command line")
    assert message_of(path, "distillation.epochs=3", "seed=-1").endswith("found -1, given on the command line")
    assert "command line" not in message_of(write(MINIMAL + "\ndistillation: {epochs: 0}\n"), "seed=3")


def test_defaults_are_those_of_the_reference(write):
    recipe = load_recipe(write())
    assert recipe.distillation.temperature == 2.0
    assert (recipe.distillation.weights.kl, recipe.distillation.weights.mlm, recipe.distillation.weights.cosine) == (
        5,
        2,
        1,
    )
    assert recipe.distillation.layer_map == "block-mean"
    assert recipe.evaluation.speed.sequence_length == 512
    assert recipe.evaluation.speed.batch_sizes == [1, 16]


def test_paths_start_at_the_recipes_folder_and_variables_are_expanded(write, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILRUBERT_TEXTS", "/somewhere")
    path = write()
    assert load_recipe(path).corpus.sources[0].path == str(tmp_path / "texts/*.txt")
    assert (
        load_recipe(path, ["corpus.sources=[{path: '${DISTILRUBERT_TEXTS}/a.txt'}]"]).corpus.sources[0].path
        == "/somewhere/a.txt"
    )


def test_a_hub_id_stays_and_a_folder_beside_the_recipe_is_found(write, tmp_path):
    path = write()
    assert load_recipe(path).teacher.model == "some/teacher"
    (tmp_path / "some/teacher").mkdir(parents=True)
    assert load_recipe(path).teacher.model == str(tmp_path / "some/teacher")


def test_the_resolved_recipe_is_a_recipe_again(write, tmp_path):
    recipe = load_recipe(write(), ["seed=7", "distillation.max_steps=3"])
    again = tmp_path / "elsewhere.yaml"
    again.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True))
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    "recipe", sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("recipes/tasks/*.yaml")]), ids=lambda path: path.stem
)
def test_every_shipped_recipe_is_valid(recipe, monkeypatch):
    monkeypatch.setenv("DISTILRUBERT_DATA", "/data")
    monkeypatch.setenv("DISTILRUBERT_CORPUS", "/corpus")
    monkeypatch.setenv("DISTILRUBERT_E5", "/e5")
    monkeypatch.setenv("DISTILRUBERT_ENGLISH", "/english.txt")
    assert load_recipe(recipe).name


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distillation.temprature=3", "unknown key distillation.temprature: did you mean temperature?"),
        ("distillation.clip=3", "unknown key distillation.clip: did you mean max_grad_norm?"),
        ("distillation.weights.kll=3", "unknown key distillation.weights.kll: did you mean kl?"),
        ("corpus.sources=[{pth: a.txt}]", "unknown key corpus.sources.0.pth: did you mean path?"),
        ("corpus.sources[0].path=a.txt", "unknown key corpus.sources[0]: did you mean sources?"),
        ("distillation.weights.int=3", "unknown key distillation.weights.int; known here: kl, mlm, cosine"),
        ("zzz=1", "unknown key zzz; known here: name, seed, teacher, corpus"),
        ("distillation.temperature=warm", "distillation.temperature: input should be a valid number"),
        ("distillation.temperature=warm", "found 'warm'"),
        ("distillation.temperature=-1", "distillation.temperature: input should be greater than or equal to 0.5"),
        ("seed=-1", "seed: input should be greater than or equal to 0, found -1"),
        ("name=a/b", "name: string should match pattern"),
        ("name=a--b", "name: the Hub refuses names with '--'"),
        ("teacher.pretrain={}", "teacher: give either model (a Hub id or folder) or pretrain"),
        ("teacher.model='some/${HF_TOKEN}'", "teacher.model: only variables named DISTILRUBERT_… are expanded"),
        ("corpus.sources=[{path: 'https://evil/${HOME}'}]", "because others can hold secrets; rename HOME"),
        (
            "corpus.sources=[{path: '${DISTILRUBERT_NOT_SET}/a'}]",
            "the environment variable DISTILRUBERT_NOT_SET is not set",
        ),
        ("card.license=GNU GPL", "card.license"),
        ("student.layers=0", "student.layers: input should be greater than or equal to 1, found 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(write, override, said):
    message = message_of(write(), override)
    assert said in message
    assert message.startswith(str(write()))


TRIM, TRAIN = "student.vocabulary={trim: {}}", "student.vocabulary={train: {size: 500}}"
PAIRED = "distillation.weights={mlm: 1, match: 1}"


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ([], None),
        ([TRIM], "trim"),
        (["student.vocabulary.trim.minimum_count=5"], "trim"),
        ([TRAIN, PAIRED], "train"),
        ([TRAIN, "distillation.weights={mlm: 1}"], "train"),
        ([TRAIN, PAIRED, "teacher={pretrain: {}}"], "train"),
        (["student.preset=base"], None),
        (["student.preset=base", TRIM], "trim"),
        (["student.preset=tiny-5k", PAIRED], "train"),
        (["student.preset=tiny", TRIM], "trim"),
    ],
)
def test_the_students_vocabulary_is_the_teachers_a_part_of_it_or_a_new_one(write, overrides, kind):
    own = load_recipe(write(), overrides).student.own_vocabulary()
    assert (own and ("trim" if own.trim else "train")) == kind


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student.vocabulary={}"], "student.vocabulary: give either trim or train"),
        (["student.vocabulary={trim: {}, train: {size: 500}}"], "student.vocabulary: give either trim or train"),
        (["student.vocabulary=trim"], "student.vocabulary: a section is needed, of trim, train, found 'trim'"),
        (
            ["student.vocabulary={train: 8000}"],
            "student.vocabulary.train: a section is needed, of size, character_coverage, sample, found 8000",
        ),
        (["student.vocabulary={trimm: {}}"], "unknown key student.vocabulary.trimm: did you mean trim?"),
        (["student.vocabulary={train: {}}"], "student.vocabulary.train.size is missing"),
        (["student.vocabulary={train: {size: 50}}"], "student.vocabulary.train.size: input should be greater than or"),
        (["student.vocabulary={trim: {minimum_count: 0}}"], "student.vocabulary.trim.minimum_count: input should be"),
        # The losses of the defaults, and of the teacher's vocabulary, are for models that read the same tokens.
        ([TRAIN], "distillation.weights: kl cannot be computed for a student with a vocabulary of its own"),
        ([TRAIN], "allowed are mlm, cosine, hidden, first_token, match, reduce_map, reduce, reduce_cosine"),
        (
            ["student.preset=tiny"],
            "distillation.weights: kl cannot be computed for a student with a vocabulary",
        ),
        ([TRIM, PAIRED], "distillation.weights: match cannot be computed for a student with its teacher's vocabulary"),
        ([PAIRED], "allowed are kl, mlm, cosine, attention, hidden"),
        (["student.preset=tiny", TRIM, PAIRED], "distillation.weights: match cannot be computed"),
        ([TRIM, "teacher={pretrain: {}}"], "student.vocabulary.trim is for a teacher that is loaded"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(write, overrides, said):
    message = message_of(write(), *overrides)
    assert said in message
    assert message.startswith(str(write()))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student.initialise_from=random"], "initialise_from: random"),
        ([TRAIN, PAIRED], "vocabulary.train"),
        (["student.prune={}"], "prune"),
        (["student.preset=slim"], "preset: slim"),
    ],
)
def test_only_the_teachers_own_embeddings_are_frozen(write, overrides, said):
    message = message_of(write(), *overrides, "distillation.freeze_embeddings=true")
    assert f"only for embeddings that are the teacher's own, not with student.{said}" in message
    load_recipe(write(), [TRIM, "distillation.freeze_embeddings=true"])


def test_a_page_has_the_file_that_it_runs(write):
    message = message_of(write(), "publish.space=true")
    assert "publish.space: the page fills masks with onnx/masked_lm_quantized.onnx; add masked-lm-int8" in message
    assert load_recipe(write(), ["publish.space=true", "conversion.onnx=[masked-lm-int8]"]).publish.space
    encoder = ["publish.space=true", "sentences={}", f"distillation.weights={{{SENTENCE_LOSSES[0]}: 1.0}}"]
    assert load_recipe(write(), encoder).publish.space
    message = message_of(write(), *encoder, "conversion.onnx=[fp32]")
    assert "publish.space: the page compares sentences with onnx/model_quantized.onnx; add int8 to" in message
    of_task = ["publish.space=true", "task={name: rusentiment}"]
    assert load_recipe(write(), of_task).publish.space
    message = message_of(write(), *of_task, "conversion.onnx=[fp32]")
    assert "publish.space: the page runs the student with onnx/model_quantized.onnx; add int8 to" in message


def test_embeddings_are_not_paired_twice(write):
    message = message_of(write(), "distillation.layer_map=all-mean", "distillation.embeddings_pair=true")
    assert "layer_map all-mean has the embeddings among its states already" in message


def test_a_user_who_does_not_exist_has_no_folder(write):
    assert "~nobody-here/teacher: there is no such user" in message_of(write(), "teacher.model=~nobody-here/teacher")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distillation.max_steps", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("name.x=3", "name holds text, so it has no keys"),
        ("seed=[1", "the value is not YAML"),
        ("publish.tag=2024-31-12", "the value is not YAML"),
        ("corpus={sources: [{path: a.txt}], sources: []}", "the value is not YAML"),
    ],
)
def test_a_malformed_override_is_refused(write, override, said):
    assert said in message_of(write(), override)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [1", "line 1, column 9: invalid YAML"),
        ("corpus: {path: ${DISTILRUBERT_X}/y}", 'a value with ${…} is put in quotes: "${DISTILRUBERT_NAME}/…"'),
        (f"{MINIMAL}\nname: other\n", "invalid YAML: the key name is there twice"),
        ("- a\n- b\n", "a recipe is a mapping of keys to values, found a list"),
        ("", "a recipe is a mapping of keys to values, found nothing"),
        (MINIMAL.replace("student: {layers: 2}", ""), "student is missing"),
        (
            MINIMAL.replace("{layers: 2}", "{layers: 2, start_from: a/b, prune: {}}"),
            "student: start_from: shape, vocabulary and weights are those of a/b; leave out layers, prune",
        ),
        (WITHOUT_CORPUS, "corpus is missing"),
        (f"{WITHOUT_CORPUS}corpus: {{}}\n", "corpus.sources is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(write, text, said):
    assert said in message_of(write(text))


def test_a_recipe_of_a_task_needs_no_corpus(write):
    text = f"{WITHOUT_CORPUS}task: {{name: rusentiment}}\n"
    recipe = load_recipe(write(text))
    assert recipe.corpus.sources == []
    assert recipe.task.distillation.weights.logits == 1.0
    # Nor a shape, if it starts from a checkpoint.
    assert load_recipe(write(text), ["student={start_from: a/b}"]).student.layers is None
    assert "student is missing" in message_of(write(text.replace("student: {layers: 2}", "")))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task={}", "task.name is missing"),
        ("task.distillation.weights={kl: 1}", "unknown key task.distillation.weights.kl"),
        ("distillation.weights={logits: 1}", "unknown key distillation.weights.logits"),
        ("student.vocabulary={train: {size: 200}}", "student.vocabulary.train: is made from a corpus; add corpus, or"),
        ("student={preset: tiny}", "student.vocabulary.train: is made from a corpus; add corpus, or trim"),
        ("teacher={pretrain: {}}", "teacher.pretrain: needs a corpus; add corpus, or name teacher.model"),
        ("sentences={}", "sentences: a student of a task is no encoder of sentences; leave out one of the two"),
        (
            "evaluation.tasks=[rusentiment]",
            "evaluation.tasks: a student of a task is scored on that task alone; leave it",
        ),
        ("evaluation.suite=encodechka", "evaluation.suite: a student of a task is scored on that task alone; leave it"),
        ("task.distillation.layer_map=[[1], x]", "task.distillation.layer_map"),
        ("task.equal_decisions=0", "task.equal_decisions"),
        ("conversion.task=fill-mask", "conversion.task: the files of a student of a task have its head"),
        ("conversion.tolerance.int8.token_cosine=0.9", "conversion.tolerance: the files of a student of a task"),
        ("conversion.onnx=[masked-lm-int8]", "conversion.onnx: a student of a task has no head for masks"),
    ],
)
def test_what_a_recipe_of_a_task_cannot_have_is_told(write, override, said):
    text = f"{WITHOUT_CORPUS}task: {{name: rusentiment}}\n"
    assert said in message_of(write(text), override)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert "No such file" in message_of(tmp_path / "none.yaml")
    assert "cannot be read" in message_of(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "it is not UTF-8 text" in message_of(binary)


def test_a_recipe_is_read_without_the_heavy_libraries():
    """They take seconds to import, and a mistake in a recipe needs none of them."""
    heavy = "('torch', 'transformers', 'datasets', 'accelerate', 'numpy', 'pyarrow')"
    script = f"import sys, distilrubert.pipeline.recipe; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_settings_name_the_trackers_that_there_are():
    assert set(TRACKERS) == {str(name) for name in LoggerType if name is not LoggerType.ALL}


def test_an_encoder_of_sentences_has_both_its_section_and_its_losses(write):
    weights = "distillation.weights={sentence_cosine: 20, similarity: 3, cosine: 1}"
    recipe = load_recipe(write(), [weights, "sentences={}"])
    assert (recipe.sentences.pooling, recipe.distillation.weights.kl) == (None, 0)
    assert "sentences: needs sentence_cosine or similarity in distillation.weights" in message_of(
        write(), "sentences={}"
    )
    assert "sentence_cosine, similarity need a section sentences, for example {}" in message_of(write(), weights)
    message = message_of(write(), weights, "sentences={}", "distillation.cache_teacher_vectors=true")
    assert "cache_teacher_vectors: cosine need more than vectors of sentences" in message
