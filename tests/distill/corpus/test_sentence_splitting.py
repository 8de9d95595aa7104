from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.sentence_splitting import sentences_of
from distilrubert.modeling.teacher import Teacher


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher: Teacher) -> PreTrainedTokenizerFast:
    return tiny_teacher.tokenizer


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Да. Нет!", ["Да.", "Нет!"]),
        ("- Ты где?\n- Уже еду, буду через пять минут.", ["Ты где?", "Уже еду, буду через пять минут."]),
        ("«Кто там?» — «Это я!» Дверь открылась…  Тишина.", ["«Кто там?»", "«Это я!»", "Дверь открылась…", "Тишина."]),
        ("Он сказал: «Иду». И ушёл.", ["Он сказал: «Иду».", "И ушёл."]),
        ("Стихи А. С. Пушкина, ул. Ленина, д. 5, г. Тверь.", ["Стихи А. С. Пушкина, ул. Ленина, д. 5, г. Тверь."]),
        ("В 17.35 пришёл… и сел. потом встал", ["В 17.35 пришёл… и сел. потом встал"]),
        ("Ну!!! Ты даёшь?! Ok. 42 рубля.", ["Ну!!!", "Ты даёшь?!", "Ok.", "42 рубля."]),
        ("— ... —\n\n12:30\n", []),
        ("", []),
    ],
)
def test_sentences_of_a_text(text: str, sentences: list[str]) -> None:
    assert list(sentences_of(text)) == sentences


@pytest.mark.parametrize("text", ["г. Москва, ул. Ленина, д. 5, " * 40_000, "Да." + " " * 1_000_000 + "нет"])
def test_a_text_without_an_end_takes_no_longer_than_its_length(text: str) -> None:
    # Quadratic work would take hours here.
    assert list(sentences_of(text)) == [text.strip()]


def corpus_of(texts: list[str], tokenizer: PreTrainedTokenizerFast, folder: Path, prompts: list[str]) -> list[str]:
    (folder / "talk.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    source = {"path": str(folder / "talk.csv")}
    settings = CorpusSettings(sources=[source], sentences=True, validation=0, processes=1, max_length=64)
    corpus = build_corpus(settings, tokenizer, folder / "corpus", seed=1, prompts=prompts)
    return tokenizer.batch_decode(list(corpus.train), skip_special_tokens=True)


def test_duplicates_are_dropped_among_sentences(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    texts = ["- Кто там?\n- Это я.", "Да. Кто там?", "Это я. Нет, спасибо."]
    found = corpus_of(texts, tokenizer, tmp_path, [])
    assert [text.replace(" ", "") for text in found] == ["Ктотам?", "Этоя.", "Да.", "Нет,спасибо."]


def test_each_sentence_gets_one_of_the_prompts(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str], tmp_path: Path
) -> None:
    found = corpus_of(sentences, tokenizer, tmp_path, ["Да: ", "Нет, "])
    prompts = [text.startswith("Да :") for text in found]
    assert all(text.startswith("Нет,") for text, own in zip(found, prompts, strict=True) if not own)
    assert 0.25 < sum(prompts) / len(prompts) < 0.75
    (tmp_path / "again").mkdir()
    # The order of the texts does not matter.
    assert sorted(corpus_of(sentences[::-1], tokenizer, tmp_path / "again", ["Да: ", "Нет, "])) == sorted(found)


def test_text_without_a_sentence_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no text to train on: 2 texts read, and no sentence in them; corpus\.sentences"
    ):
        corpus_of(["---", "12:30"], tokenizer, tmp_path, [])
