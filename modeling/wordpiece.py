"""New WordPiece vocabularies, the same from the same text every time."""

import dataclasses
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling.word_counts import CASED, Normalization, SavedCounts, save_word_counts

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTER_COVERAGE = 0.9999
MINIMUM_PAIR_COUNT = 2
# Two planes of private use: one code for each character at the beginning of a word, one for it further on.
INITIAL_PLANE, CONTINUING_PLANE, PLANE_SIZE = 0xF0000, 0x100000, 0xFFFE
REPEATS_PER_LINE = 10_000


@dataclasses.dataclass(frozen=True)
class TrainedVocabulary:
    """A vocabulary and what it cannot spell of the text that it was trained on.

    Attributes:
        tokenizer: a fast BERT tokenizer; ids 0 to 4 are [PAD], [UNK], [CLS], [SEP], [MASK].
        unknown_character_share: share of the text's characters (white space aside) that have no token.
        unknown_word_share: share of its words with such a character: each becomes one [UNK].
    """

    tokenizer: PreTrainedTokenizerFast
    unknown_character_share: float
    unknown_word_share: float


def train_wordpiece(
    texts: Iterable[str],
    size: int,
    max_length: int = 512,
    character_coverage: float = CHARACTER_COVERAGE,
    normalization: Normalization = CASED,
) -> TrainedVocabulary:
    """Train a WordPiece vocabulary: single characters, then the most frequent merges in `texts`.

    By default case and accents are kept (й and ё stay letters of their own). The rarest characters are dropped, as many
    as `character_coverage` allows; a word with one of them is [UNK]. Each other character has a token for the beginning
    of a word, and a ``##`` token if a word of the texts has it further on. So all other words of the texts can be
    spelt, but those longer than the 100 characters that WordPiece reads. Tokens are merged by pair counts as the
    trainers of the tokenizers library do, but ties are broken by the characters, where theirs depend on the order of
    a hash table.

    Counting takes the same memory for any length of text; training holds every different word.

    Args:
        texts: read once, in any order.
        size: tokens, special ones included; fewer where the texts do not give as many.
        max_length: `model_max_length` of the tokenizer, tokens.
        character_coverage: least share of the texts' characters that is kept, from 0 to 1.
        normalization: what the tokenizer makes of letters.

    Raises:
        UserError: if there is no text, `size` does not even hold its characters, or the disk is full.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_word_counts(texts, Path(folder), normalization)
        return train_on_words(SavedCounts([Path(folder)]), size, max_length, character_coverage, normalization)


def train_on_words(
    words: SavedCounts,
    size: int,
    max_length: int = 512,
    character_coverage: float = CHARACTER_COVERAGE,
    normalization: Normalization = CASED,
) -> TrainedVocabulary:
    """As :func:`train_wordpiece`, from words that were counted before with that normalization."""
    characters = _count_characters(words)
    if not characters:
        raise UserError("corpus: there is no text to train a vocabulary on")
    kept = _most_frequent(characters, character_coverage)
    further_on: set[str] = set()
    number = number_known = 0
    for word, count in words:
        number += count
        if kept.issuperset(word):
            number_known += count
            further_on.update(word[1:])
    initial, continuing = sorted(kept), sorted(further_on)
    smallest = len(SPECIAL_TOKENS) + len(initial) + len(continuing)
    if size < smallest:
        raise UserError(
            f"vocabulary size: {size} tokens; {len(initial)} different characters, {len(continuing)} ## forms of them "
            f"and the special tokens take {smallest}; a character_coverage below {character_coverage} keeps fewer"
        )
    known = ((word, count) for word, count in words if kept.issuperset(word))
    tokens = [*SPECIAL_TOKENS, *_merge(known, initial, continuing, size - len(SPECIAL_TOKENS))]
    if len(tokens) < size:
        logger.warning("The text gives a vocabulary of %d tokens only, not %d", len(tokens), size)
    trained = TrainedVocabulary(
        _bert_tokenizer(tokens, max_length, normalization),
        1 - sum(characters[character] for character in kept) / characters.total(),
        1 - number_known / number,
    )
    logger.info(
        "Vocabulary: %d tokens; %d of %d characters are too rare for one: %.2g %% of the text, %.2g %% of its words",
        *(len(tokens), len(characters) - len(kept), len(characters)),
        *(100 * trained.unknown_character_share, 100 * trained.unknown_word_share),
    )
    return trained


def _count_characters(words: Iterable[tuple[str, int]]) -> Counter[str]:
    characters: Counter[str] = Counter()
    for word, count in words:
        for character in word:
            characters[character] += count
    return characters


def _most_frequent(characters: Counter[str], coverage: float) -> set[str]:
    """The fewest characters that make up this share of all; equally frequent ones in the order of their codes."""
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    covered = np.cumsum([characters[character] for character in ranked])
    return set(ranked[: 1 + int(np.searchsorted(covered, coverage * covered[-1]))])


def _merge(words: Iterable[tuple[str, int]], initial: list[str], continuing: list[str], size: int) -> list[str]:
    """The tokens in order: single characters, their ## forms, then merges from the most frequent on."""
    assert len(initial) <= PLANE_SIZE
    # The trainer's own ## prefix makes ids, and with them ties, depend on its hash order. So each form of a
    # character becomes a character of its own; the trainer numbers those in sorted order.
    initial_code = {character: chr(INITIAL_PLANE + i) for i, character in enumerate(initial)}
    continuing_code = {character: chr(CONTINUING_PLANE + i) for i, character in enumerate(continuing)}
    decoded = {code: character for codes in (initial_code, continuing_code) for character, code in codes.items()}
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=MINIMUM_PAIR_COUNT,
        initial_alphabet=list(decoded),
        show_progress=False,
    )
    encoded = (
        (initial_code[word[0]] + "".join(continuing_code[character] for character in word[1:]), count)
        for word, count in words
    )
    tokenizer.train_from_iterator(_lines(encoded), trainer)
    vocabulary = tokenizer.get_vocab()
    return [
        ("##" if token[0] >= chr(CONTINUING_PLANE) else "") + "".join(decoded[code] for code in token)
        for token in sorted(vocabulary, key=vocabulary.__getitem__)
    ]


def _lines(words: Iterable[tuple[str, int]]) -> Iterator[str]:
    for word, count in words:
        for start in range(0, count, REPEATS_PER_LINE):
            yield " ".join([word] * min(REPEATS_PER_LINE, count - start))


def _bert_tokenizer(tokens: list[str], max_length: int, normalization: Normalization) -> PreTrainedTokenizerFast:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        return BertTokenizerFast.from_pretrained(
            folder,
            do_lower_case=normalization.lowercase,
            strip_accents=normalization.strip_accents,
            model_max_length=max_length,
        )
