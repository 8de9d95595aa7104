"""``distilrubert init``: a recipe that runs, and says why it is as it is."""

import csv
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import ModernBertConfig, PreTrainedTokenizerFast, XLMRobertaConfig

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.distill.corpus.readers import text_columns
from distilrubert.modeling.families import family_of
from distilrubert.modeling.teacher import save_teacher
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.corpus_sample import CorpusSample, sample_corpus
from distilrubert.pipeline.recipe import Recipe, load_recipe
from distilrubert.pipeline.recipe_choices import Choices, TeacherFacts

from ..random_teachers import make_teacher

ROOT = Path(__file__).parents[2]
ENGLISH = ["It was the best of times, and it is the end of that.", "You are with the one for whom this was made."] * 9


@pytest.fixture
def texts(tmp_path: Path, sentences: list[str]) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(sentences), encoding="utf-8")
    return file


def init(teacher: Path, corpus: Path, *options: str) -> Recipe:
    output = corpus.parent / "made.yaml"
    assert main(["init", "--teacher", str(teacher), "--corpus", str(corpus), "--output", str(output), *options]) == 0
    return load_recipe(output)


@pytest.mark.parametrize(
    ("model_type", "kind", "with_head", "options"),
    [
        ("bert", "wordpiece", True, []),
        ("bert", "wordpiece", False, ["--size", "tiny"]),
        ("distilbert", "wordpiece", True, ["--size", "tiny"]),
        ("xlm-roberta", "unigram", False, ["--purpose", "sentences"]),
        ("modernbert", "modernbert-bpe", True, ["--size", "small"]),
    ],
)
def test_the_recipe_runs(
    model_type: str,
    kind: str,
    with_head: bool,
    options: list[str],
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_teacher(make_teacher(model_type, tokenizers_of_all_kinds[kind], with_head=with_head), tmp_path / "teacher")
    recipe = init(tmp_path / "teacher", texts, *options)
    assert "distilrubert publish" in capsys.readouterr().out
    steps = ["--set", "distillation.max_steps=2", "--set", "corpus.processes=1"]
    assert main(["distill", str(tmp_path / "made.yaml"), "--run-dir", str(tmp_path / "run"), *steps]) == 0
    config = read_json(tmp_path / "run" / "student" / "config.json")
    assert config.get("num_hidden_layers", config.get("n_layers")) == recipe.student.layers


def choices(
    config: ModernBertConfig | XLMRobertaConfig,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    size: str = "base",
    **other: object,
) -> Choices:
    family_of(config).complete(config)
    facts = TeacherFacts("user/one", "one", True, config, tokenizer, True, None, ["ru"], "mit")
    sample = CorpusSample([], texts, share=other.pop("share", 1.0))  # type: ignore[arg-type]
    settings = {"purpose": "mlm", "language": None, "runtimes": ["onnx"], "has_accelerator": True} | other
    return Choices(facts, sample, size=size, **settings)  # type: ignore[arg-type]


def test_the_shape_follows_the_teacher(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], sentences: list[str]
) -> None:
    wide = ModernBertConfig(num_hidden_layers=22, hidden_size=768, num_attention_heads=12, intermediate_size=1152)
    tokenizer = tokenizers_of_all_kinds["modernbert-bpe"]
    assert choices(wide, tokenizer, sentences).recipe()["student"] == {"layers": 6}
    # Rotary heads stay 64 wide.
    tiny = choices(wide, tokenizer, sentences, "tiny").recipe()
    assert tiny["student"] == {
        "layers": 3, "dim": 256, "heads": 4, "hidden_dim": 768, "vocabulary": {"train": {"size": 30_522}},
    }  # fmt: skip
    # The shape of the preset for the teacher of the presets, scaled for a narrower one.
    sizes = {"num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 119_547}
    unigram = tokenizers_of_all_kinds["unigram"]
    for width, inner, dim, hidden in ((768, 3072, 264, 792), (384, 1536, 132, 396)):
        teacher = XLMRobertaConfig(**sizes, hidden_size=width, intermediate_size=inner)
        made = choices(teacher, unigram, sentences, "tiny-5k").recipe()["student"]
        expected = {"layers": 3, "dim": dim, "heads": 12, "hidden_dim": hidden}
        assert made == {**expected, "vocabulary": {"train": {"size": 5_031}}}
    for size, expected in (
        ("slim", {"layers": 6, "dim": 192, "heads": 6, "hidden_dim": 768}),
        ("narrow", {"layers": 6, "hidden_dim": 512}),
        (
            "tiny-256",
            {"layers": 3, "dim": 128, "heads": 4, "hidden_dim": 384, "vocabulary": {"train": {"size": 30_522}}},
        ),
    ):
        made = choices(teacher, unigram, sentences, size).recipe()
        assert made["student"] == {**expected, "prune": {}}
        assert ("cosine" in made["distillation"]["weights"]) == (size == "narrow")
    shallow = XLMRobertaConfig(**sizes | {"num_hidden_layers": 3})
    assert choices(shallow, unigram, sentences).recipe()["student"]["layers"] == 2


def test_a_vocabulary_of_other_scripts_is_trimmed(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], sentences: list[str]
) -> None:
    config, russian = XLMRobertaConfig(num_hidden_layers=4), tokenizers_of_all_kinds["unigram"]
    assert "vocabulary" not in choices(config, russian, sentences).recipe()["student"]
    for_english = choices(config, russian, ENGLISH)
    assert for_english.recipe()["student"]["vocabulary"] == {
        "trim": {"keep_scripts": ["Common"], "keep_letters": ["Latin"]}
    }
    assert any("not in Latin" in reason for reason in for_english.reasons["student"])


def test_updates_are_as_large_as_the_corpus_allows(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], sentences: list[str]
) -> None:
    config, tokenizer = XLMRobertaConfig(num_hidden_layers=4), tokenizers_of_all_kinds["unigram"]
    own = sum(len(tokenizer(text)["input_ids"]) for text in sentences)
    for tokens, update, epochs in (
        (own, 1024, 10),
        (2.5e6, 8192, 4),
        (3.2e6, 8192, 3),
        (20e6, 32_768, 3),
        (50e6, 131_072, 3),
        (None, 8_192, 3),
    ):
        chosen = choices(config, tokenizer, sentences, share=tokens and own / tokens)
        made = chosen.recipe()["distillation"]
        assert made["batch_tokens"] * made["batches_per_update"] == update
        assert made["epochs"] == epochs
        assert any("The corpus is small" in reason for reason in chosen.reasons["distillation"]) == (epochs > 3)


def test_a_head_that_the_config_does_not_name_is_found(tiny_teacher_folder: Path, texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    for file in tiny_teacher_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}), encoding="utf-8")
    recipe = init(folder, texts)
    assert recipe.distillation.weights.kl == 5.0
    # Paths below the recipe's folder can be moved with it.
    assert "path: ./texts.txt" in (tmp_path / "made.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "own", "found"),
    [
        ("uk", "mit", "uk mit"),
        ("uk", "other", "uk unknown"),
        ("uk", "[mit, gpl]", "uk unknown"),
        # Of no use for a card: the corpus tells.
        ("multilingual", "mit", "ru mit"),
        ("pt-BR", "mit", "ru mit"),
    ],
)
def test_what_the_teachers_card_says_is_taken(
    language: str, own: str, found: str, tiny_teacher_folder: Path, texts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    for file in tiny_teacher_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "README.md").write_text(f"---\nlanguage: {language}\nlicense: {own}\n---\n# One\n", encoding="utf-8")
    card = init(folder, texts).card
    assert [*card.language, card.license] == found.split()


def test_a_language_without_a_greeting_shows_texts_of_the_corpus(
    tiny_teacher_folder: Path, texts: Path, sentences: list[str]
) -> None:
    card = init(tiny_teacher_folder, texts, "--language", "kk").card
    assert card.example.endswith("[MASK]")
    assert card.sentences[0] in sentences


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_the_column_with_the_text_is_found(form: str, sentences: list[str], tmp_path: Path) -> None:
    file = tmp_path / f"rows.{form}"
    rows = [{"id": f"a{number}", "reply": text} for number, text in enumerate(sentences)]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif form == "csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["id", "reply"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert text_columns(file) == ["id", "reply"]
    found = sample_corpus([str(tmp_path)], None)
    assert [source.column for source in found.sources] == ["reply"]
    assert (found.texts, found.share, found.language()) == (sentences, 1.0, "ru")


def test_the_size_of_a_corpus_is_estimated(sentences: list[str], tmp_path: Path) -> None:
    whole = sentences * 2_000
    (tmp_path / "a.txt").write_text("\n".join(whole[:90_000]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(whole[90_000:]), encoding="utf-8")
    found = sample_corpus([str(tmp_path / "*.txt")], None)
    assert found.share is not None
    assert len(found.texts) < 25_000
    assert len(found.texts) / found.share == pytest.approx(len(whole), rel=0.05)


@pytest.mark.parametrize("form", ["txt", "parquet"])
def test_the_size_of_a_corpus_of_many_sources_is_estimated(sentences: list[str], tmp_path: Path, form: str) -> None:
    whole = sentences * 100
    for name in "abcdefgh":
        file = tmp_path / f"{name}.{form}"
        if form == "parquet":
            pq.write_table(pa.table({"text": whole}), file)
        else:
            file.write_text("\n".join(whole), encoding="utf-8")
    found = sample_corpus(sorted(map(str, tmp_path.iterdir())), None)
    assert found.share is not None
    assert len(found.texts) / found.share == pytest.approx(8 * len(whole), rel=0.05)


def test_the_files_of_a_folder_are_those_that_a_run_reads(tmp_path: Path) -> None:
    folder = tmp_path / "[raw]"
    folder.mkdir()
    for name in ("a.TXT", "_left-out.txt"):
        (folder / name).write_text(name, encoding="utf-8")
    found = sample_corpus([str(folder)], None)
    assert ([source.path for source in found.sources], found.texts) == ([str(folder)], ["a.TXT"])
    (folder / "b.jsonl").write_text('{"reply": "b"}\n', encoding="utf-8")
    found = sample_corpus([str(folder)], None)
    assert ([source.column for source in found.sources], found.texts) == (["text", "reply"], ["a.TXT", "b"])


def test_texts_at_a_url(sentences: list[str], tmp_path: Path) -> None:
    url = f"memory://{tmp_path}/a.txt"
    with fsspec.open(url, "w", encoding="utf-8") as file:
        file.write("\n".join(sentences))
    found = sample_corpus([url], None)
    assert [source.path for source in found.sources] == [url]
    assert (found.texts, found.share) == (sentences, 1.0)


def test_dialogues_between_blank_lines_are_texts() -> None:
    (source,) = sample_corpus([str(ROOT / "recipes/demo/dialogues.txt")], None).sources
    assert source.documents == "blank-line"


def test_languages_are_known_by_their_words() -> None:
    assert CorpusSample([], ENGLISH, 1.0).language() == "en"
    assert CorpusSample([], ["Lorem ipsum dolor sit amet"], 1.0).language() is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--output": "there.yaml"}, "exists; name a new file"),
        ({"--corpus": "none.txt"}, "no file matches path"),
        ({"--corpus": "~no-such-user/x.txt"}, "there is no such user"),
        ({"--corpus": "empty"}, "there is no file of the forms that are taken"),
        ({"--corpus": "blank.txt"}, "there is no text in it"),
        ({"--corpus": "latin.txt"}, "--language: the language of the corpus was not recognised"),
        ({"--corpus": "broken.parquet"}, "broken.parquet: cannot be read"),
        ({"--teacher": "./nowhere"}, "there is no such folder"),
        ({"--teacher": "gpt2"}, "config.json says model_type 'gpt2'"),
        ({"--language": "Russian"}, "language"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    change: dict[str, str],
    said: str,
    tiny_teacher_folder: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin.txt").write_text("Lorem ipsum dolor sit amet\n" * 5, encoding="utf-8")
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2/config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    options = {"--teacher": str(tiny_teacher_folder), "--corpus": str(texts), "--output": "new.yaml"} | change
    assert main(["init", *(word for option in options.items() for word in option)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "new.yaml").exists()
    assert (tmp_path / "there.yaml").read_text() == ""


def test_half_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:1: not JSON"):
        text_columns(tmp_path / "a.jsonl")
