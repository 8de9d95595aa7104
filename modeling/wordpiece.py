"""New cased WordPiece vocabularies, the same from the same text every time."""

import itertools
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MINIMUM_PAIR_COUNT = 2
# Two planes of private use: one code for each character at the beginning of a word, one for it further on.
INITIAL_PLANE, CONTINUING_PLANE, PLANE_SIZE = 0xF0000, 0x100000, 0xFFFE
REPEATS_PER_LINE = 10_000


def train_wordpiece(texts: Iterable[str], size: int, max_length: int = 512) -> PreTrainedTokenizerFast:
    """Train a cased WordPiece vocabulary whose every piece but the single characters was frequent in `texts`.

    Case and accents are kept (й and ё stay letters of their own). Every character of the texts is kept, both at
    the beginning of a word and inside one (``##``), so no word of them is [UNK] but those longer than
    the 100 characters that WordPiece reads. Pieces are merged by pair counts as the trainers of the tokenizers library
    do, but ties are broken by the characters, where theirs depend on the order of a hash table.

    Args:
        texts: read once, in any order.
        size: pieces, special tokens included; fewer where the texts do not give as many.
        max_length: `model_max_length` of the tokenizer, tokens.

    Returns:
        A fast BERT tokenizer; ids 0 to 4 are [PAD], [UNK], [CLS], [SEP], [MASK].

    Raises:
        UserError: if there is no text, or `size` does not even hold its characters.
    """
    words = _count_words(texts)
    characters = sorted(set(itertools.chain.from_iterable(words)))
    if not characters:
        raise UserError("corpus: there is no text to train a vocabulary on")
    smallest = len(SPECIAL_TOKENS) + 2 * len(characters)
    if size < smallest:
        raise UserError(
            f"vocabulary size: {size} pieces; the text has {len(characters)} different characters, which with their "
            f"## forms and the special tokens take {smallest}"
        )
    pieces = [*SPECIAL_TOKENS, *_merge(words, characters, size - len(SPECIAL_TOKENS))]
    if len(pieces) < size:
        logger.warning("The text gives a vocabulary of %d pieces only, not %d", len(pieces), size)
    return _bert_tokenizer(pieces, max_length)


def _count_words(texts: Iterable[str]) -> Counter[str]:
    normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    splitter = BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return words


def _merge(words: Counter[str], characters: list[str], size: int) -> list[str]:
    """The pieces in order: single characters, their ## forms, then merges from the most frequent on."""
    assert len(characters) <= PLANE_SIZE
    # The trainer's own ## prefix makes ids, and with them ties, depend on its hash order. So each form of a
    # character becomes a character of its own; the trainer numbers those in sorted order.
    initial = {character: chr(INITIAL_PLANE + i) for i, character in enumerate(characters)}
    continuing = {character: chr(CONTINUING_PLANE + i) for i, character in enumerate(characters)}
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=MINIMUM_PAIR_COUNT,
        initial_alphabet=[*initial.values(), *continuing.values()],
        show_progress=False,
    )
    encoded = (
        (initial[word[0]] + "".join(continuing[character] for character in word[1:]), count)
        for word, count in words.items()
    )
    tokenizer.train_from_iterator(_lines(encoded), trainer)
    vocabulary = tokenizer.get_vocab()
    return [_decode(code, characters) for code in sorted(vocabulary, key=vocabulary.__getitem__)]


def _lines(words: Iterable[tuple[str, int]]) -> Iterator[str]:
    for word, count in words:
        for start in range(0, count, REPEATS_PER_LINE):
            yield " ".join([word] * min(REPEATS_PER_LINE, count - start))


def _decode(code: str, characters: list[str]) -> str:
    prefix = "##" if ord(code[0]) >= CONTINUING_PLANE else ""
    return prefix + "".join(characters[ord(character) & 0xFFFF] for character in code)


def _bert_tokenizer(pieces: list[str], max_length: int) -> PreTrainedTokenizerFast:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
        return BertTokenizerFast.from_pretrained(
            folder, do_lower_case=False, strip_accents=False, model_max_length=max_length
        )
