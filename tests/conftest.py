"""Fixtures that every room's tests share."""

import itertools
import os
import random
import runpy
import signal
from collections import Counter
from pathlib import Path

import hypothesis
import pyarrow.parquet
import pytest
import torch
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.modeling.teacher import Teacher, new_teacher, save_teacher
from distilrubert.modeling.wordpiece import train_wordpiece

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A step of a tiny model takes less time than threads that share few cores wait for each other.
torch.set_num_threads(1)
# A busy machine is no fault of an example, and the same tree has the same outcome.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")
# A script that starts the tests in the background leaves them deaf to Ctrl-C, and with them every program that a test
# starts in order to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SENTENCES = [
    "Привет! Как дела?",
    "Ёжик нашёл в траве жёлтый лист.",
    "Йод и йогурт стоят на верхней полке.",
    "Я не приду сегодня: у меня болит голова.",
    "— Ты где? — Уже еду, буду через пять минут.",
    "Мама мыла раму, а папа читал газету.",
    "Сколько стоит билет до Твери?",
    "Подъезд закрыт, звоните в домофон.",
    "Да.",
    "Нет, спасибо.",
    "Вчера шёл дождь, сегодня светит солнце, а завтра обещают снег.",
    "Объясни мне, пожалуйста, ещё раз.",
    "Кот спит на окне.",
    "Собака лает, караван идёт.",
    "Мы встретились в кафе на углу и проговорили до самого вечера.",
    "Позвони мне, когда освободишься!",
    "Поезд № 42 отправляется в 17:35 с третьего пути.",
    "У бабушки в деревне мы пили молоко и ели пироги с капустой.",
    "Кто там?",
    "Это я, почтальон Печкин, принёс заметку про вашего мальчика.",
    "Не забудь купить хлеб, сыр, яйца и чай.",
    "Какой сегодня день недели?",
    "Кажется, вторник.",
    "Учитель задал на дом три задачи и стихотворение.",
    "Я выучил его наизусть ещё летом.",
    "Хочешь, я тебе почитаю?",
    "Давай, только недолго.",
    "Врач сказал, что нужно больше гулять и меньше сидеть.",
    "Легко сказать!",
    "Снег скрипел под ногами, и было слышно, как далеко за рекой лает собака.",
    "Включи свет, ничего не видно.",
    "Ключи лежат на столе, рядом с телефоном.",
    "Телефон я забыл на работе.",
    "Ну ты даёшь!",
    "Брат поступил в институт, а сестра ещё учится в школе.",
    "Ты смотрел новый фильм?",
    "Смотрел, мне не очень понравилось.",
    "А мне понравилось, особенно музыка.",
    "О вкусах не спорят.",
    "В нашем доме опять отключили горячую воду.",
    "Надолго?",
    "Обещали на две недели.",
    "Ужас.",
    "Счастливого пути, и пиши нам чаще!",
    "Обязательно напишу, как только устроюсь.",
    "Осторожно, двери закрываются.",
    "Следующая станция — «Чистые пруды».",
    "Извините, вы выходите?",
    "Да, проходите, пожалуйста.",
    "Весной сад пахнет яблонями, мокрой землёй и дымом.",
    "Дети бегали по лужам и смеялись.",
    "Что будем есть на ужин?",
    "Можно пожарить картошку с грибами.",
    "Грибы кончились, остался только лук.",
    "Тогда картошку с луком.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства.",
    "В чащах юга жил бы цитрус? Да, но фальшивый экземпляр!",
    "Спокойной ночи, малыши.",
    "До завтра, друг мой, до завтра.",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is left to one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that is one for all processes of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Sixty Russian sentences of one to thirteen words."""
    assert max(Counter(SENTENCES).values()) == 1
    return list(SENTENCES)


@pytest.fixture(scope="session")
def tiny_teacher(sentences: list[str]) -> Teacher:
    """A random teacher: 4 layers, 32 wide, 4 heads, about 200 pieces; no weight at its neutral value."""
    tokenizer = train_wordpiece(sentences, size=220, max_length=64).tokenizer
    teacher = new_teacher(tokenizer, layers=4, dim=32, heads=4, hidden_dim=64, seed=7)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in teacher.model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # LayerNorm scales about 1; matrices large enough that attention and predictions are far from uniform.
            parameter.copy_(1 + 0.3 * noise if name.endswith("LayerNorm.weight") else 0.25 * noise)
    teacher.model.requires_grad_(False)
    return teacher


@pytest.fixture(scope="session")
def tiny_teacher_folder(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher as a checkpoint folder; tests do not write to it."""
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    save_teacher(tiny_teacher, folder)
    return folder


TOKENIZER_MAKERS = runpy.run_path(str(Path(__file__).with_name("sample_tokenizers.py")))["KINDS"]


@pytest.fixture(scope="session")
def tokenizers_of_all_kinds(sentences: list[str]) -> dict[str, PreTrainedTokenizerFast]:
    """A small tokenizer of the sentences of each kind that people use."""
    return {kind: make(sentences) for kind, make in TOKENIZER_MAKERS.items()}


@pytest.fixture(scope="session", params=list(TOKENIZER_MAKERS))
def any_tokenizer(
    request: pytest.FixtureRequest, tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]
) -> PreTrainedTokenizerFast:
    """Each of them in turn."""
    return tokenizers_of_all_kinds[request.param]


@pytest.fixture(scope="session")
def e5_folder() -> Path:
    """The multilingual-e5-small that DISTILRUBERT_E5 names; the test is skipped where it names none."""
    named = os.environ.get("DISTILRUBERT_E5")
    if not named:
        pytest.skip("DISTILRUBERT_E5 does not name a folder with multilingual-e5-small")
    return Path(named)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The reference data that DISTILRUBERT_DATA names; the test is skipped where it names none."""
    named = os.environ.get("DISTILRUBERT_DATA")
    if not named:
        pytest.skip("DISTILRUBERT_DATA does not name the folder with the reference data")
    return Path(named)


@pytest.fixture(scope="session")
def real_tokenizer(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """A cased Russian WordPiece tokenizer of 83,828 pieces that people use."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_bytes((data_folder / "vocab" / "rubert_tiny2_vocab.txt").read_bytes())
    return BertTokenizerFast.from_pretrained(folder, do_lower_case=False, strip_accents=False, model_max_length=512)


@pytest.fixture(scope="session")
def real_texts(data_folder: Path) -> list[str]:
    """All 257,888 texts of the corpus, in the order of its files."""
    files = sorted((data_folder / "corpus").glob("*.parquet"))
    return [text for file in files for text in pyarrow.parquet.read_table(file, columns=["text"])["text"].to_pylist()]


# What tokenizers disagree on: combining marks, signs of several code points, mixed scripts, words too long or unknown.
HARD = [
    "Ёжик, ёлка и ЩЁТКА",
    "и\u0306од, е\u0308ж, за\u0301мок и замо\u0301к",
    "смех 😀😀, 👨‍👩‍👧 и флаг 🇷🇺❤️",
    "iPhoneом по Wi-Fiю, COVID‑19, Cтранно и hеllо",
    "漢字внутри, ﬁn, Ⅷ и ½ стакана²",
    "нечитаемое ꙮꙮ словоꙮсреди и 𐍈",
    "неви\u00adдимый\u200b перенос\u00a0и\tпробелы\u3000тут\ufeff",
    "«Ну…» — „да“!?!..--- [MASK] [SEP] [UNK] ##а",
    "а" * 130,
    "\u0301 \u0301\u0308 и знаки без букв",
]


@pytest.fixture(scope="session")
def hard_texts(real_texts: list[str]) -> list[str]:
    """Texts drawn from the corpus, each with something in it that is hard to tokenise or to align."""
    drawn = random.Random(4).sample(real_texts, 1_500)
    return [
        f"{text} {hard}" if number % 2 else f"{hard}{text}"
        for number, (text, hard) in enumerate(zip(drawn, itertools.cycle(HARD), strict=False))
    ]
