"""What `distilrubert init` chooses for a recipe, and why: rules over a teacher's config and a corpus's first texts.

The shapes are those of the family (:data:`~distilrubert.modeling.architecture.PRESETS`), scaled to the teacher. Losses
and optimisation are those of the shipped recipes.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distilrubert.common.errors import UserError
from distilrubert.evaluation.speed.speed_settings import MEASURED_TEXTS
from distilrubert.model_card.card_settings import MASK
from distilrubert.model_card.examples import examples_in
from distilrubert.model_card.formatting import short_count
from distilrubert.model_card.hub_rules import NO_LANGUAGES, is_language, is_license
from distilrubert.modeling.architecture import PRESETS, PRUNED_PRESETS, PresetName, inner_width
from distilrubert.modeling.families import family_of, longest_input
from distilrubert.modeling.scripts import is_of_scripts
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.modeling.tokenizer_kinds import kind_of
from distilrubert.pipeline.corpus_sample import CorpusSample

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

Purpose = Literal["mlm", "sentences"]
Values = dict[str, Any]

# The teacher of the presets.
PRESET_TEACHER_WIDTH, PRESET_TEACHER_INNER = 768, 3072
LONGEST, LONGEST_SENTENCE = 512, 128
SMALL_CORPUS_TEXTS = 20_000
# Epochs of a large corpus; a smaller one is read more often, up to so many tokens and epochs. What repeated text gives
# falls after some 4 epochs and is little after 16 (Muennighoff et al., 2023, arXiv:2305.16264).
EPOCHS, SEEN_TOKENS, MAXIMAL_EPOCHS = 3, 9_000_000, 10
MINIMAL_UPDATES = 1_000
UPDATE_TOKENS = tuple(1024 * 2**power for power in range(8))
BATCH_TOKENS = 8192
FOREIGN_SHARE = 0.4


@dataclasses.dataclass(frozen=True)
class TeacherFacts:
    """What is known of a teacher before its weights are read.

    Attributes:
        name: as the recipe has it, a Hub id or a folder.
        title: its name for people.
        is_on_hub: whether the name is a Hub id.
        config: its configuration.
        tokenizer: its tokenizer.
        has_head: whether it has its masked-language head.
        modules: what its sentence-transformers files say; None without such files.
        languages: ISO 639 codes on its card.
        license: on its card; None where that has none.
    """

    name: str
    title: str
    is_on_hub: bool
    config: "PretrainedConfig"
    tokenizer: "PreTrainedTokenizerFast"
    has_head: bool
    modules: SentenceModules | None
    languages: Sequence[str] = ()
    license: str | None = None


@dataclasses.dataclass(frozen=True)
class Choices:
    """The sections of a recipe for a teacher and a corpus; :attr:`reasons` fills up as they are read.

    Attributes:
        teacher: what is known of the teacher.
        corpus: the first texts.
        purpose: what the student is for.
        size: its place in the family.
        language: ISO 639 code; None looks for it.
        runtimes: those whose packages are installed.
        has_accelerator: whether this machine has one.
    """

    teacher: TeacherFacts
    corpus: CorpusSample
    purpose: Purpose
    size: PresetName
    language: str | None
    runtimes: Sequence[str]
    has_accelerator: bool
    reasons: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def recipe(self) -> Values:
        """The values of all sections, as a recipe has them."""
        sections = {
            "name": self._name(),
            "seed": 42,
            "teacher": self._teacher(),
            "corpus": self._corpus(),
            **({"sentences": self._sentences()} if self.purpose == "sentences" else {}),
            "student": self._student(),
            "distillation": self._distillation(),
            "conversion": self._conversion(),
            "evaluation": self._evaluation(),
            "card": self._card(),
        }
        return {name: value for name, value in sections.items() if value is not None}

    def tokens(self) -> float | None:
        """Tokens of the whole corpus, about; None where its size is not known."""
        return None if self.corpus.share is None else float(self._lengths.sum()) / self.corpus.share

    def _say(self, section: str, *reasons: str) -> None:
        self.reasons.setdefault(section, []).extend(reasons)

    @cached_property
    def _lengths(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Tokens of each text, special ones included."""
        encoded = self.teacher.tokenizer(self.corpus.texts, truncation=False, verbose=False)["input_ids"]
        return np.array([len(ids) for ids in encoded])

    def _name(self) -> str:
        stem = re.sub(r"[^A-Za-z0-9._]+", "-", self.teacher.title)
        stem = re.sub(r"\.{2,}", ".", stem).strip("-._")[:70].rstrip("-.")
        return "-".join(filter(None, ("distil", stem, self.size)))

    def _teacher(self) -> Values:
        config = self.teacher.config
        head = "its masked-language head" if self.teacher.has_head else "no masked-language head"
        self._say(
            "teacher",
            f"{family_of(config).title}: {config.num_hidden_layers} layers, {config.hidden_size} wide, "
            f"{config.vocab_size:,} tokens, {head}.",
        )
        return {"model": self.teacher.name, **({"revision": "main"} if self.teacher.is_on_hub else {})}

    def _corpus(self) -> Values:
        texts, total = len(self.corpus.texts), self.tokens()
        long = int(np.percentile(self._lengths, 95))
        whole = "the whole corpus" if self.corpus.share == 1 else f"the first {texts:,} texts"
        size = "" if total is None else f", about {short_count(total)} tokens in all"
        self._say(
            "corpus",
            f"Seen: {whole}, {np.median(self._lengths):.0f} tokens at the median and {long} at the 95th percentile"
            f"{size}.",
        )
        if any(source.documents == "blank-line" for source in self.corpus.sources):
            self._say("corpus", "Blank lines stand between groups of lines, so that a text is such a group.")
        values: Values = {
            "sources": [source.model_dump(exclude_defaults=True) for source in self.corpus.sources],
        }
        if self.purpose == "sentences":
            self._say("corpus", "Texts are split into sentences, which the student is to encode.")
            values["sentences"] = True
        # A hundredth of a small corpus would be too little to measure on.
        is_small = self.corpus.share is not None and texts / self.corpus.share < SMALL_CORPUS_TEXTS
        values["validation"] = 0.05 if is_small else 0.01
        values["max_length"] = self._max_length()
        self._say("corpus", f"max_length {values['max_length']} leaves nearly all texts whole; longer ones are split.")
        return values

    def _max_length(self) -> int:
        limit = min(longest_input(self.teacher.config.to_dict()), int(self.teacher.tokenizer.model_max_length))
        limit = min(limit, LONGEST_SENTENCE if self.purpose == "sentences" else LONGEST)
        long = int(np.percentile(self._lengths, 95))
        return max(8, min(-(-max(long, 32) // 8) * 8, limit // 8 * 8))

    def _sentences(self) -> Values:
        modules = self.teacher.modules
        if modules and (modules.query_prompt or modules.document_prompt):
            self._say("sentences", "Pooling and prompts are those of the teacher's sentence-transformers files.")
            return {} if modules.document_prompt is not None else {"document_prompt": ""}
        if re.search(r"(^|[-_/])e5([-_]|$)", self.teacher.title.lower()) and "instruct" not in self.teacher.title:
            self._say("sentences", "The teacher's files name no prompts; models called E5 were trained with these.")
            return {"query_prompt": "query: ", "document_prompt": "passage: "}
        origin = f"the teacher's files ({modules.pooling})" if modules else "no files of the teacher: the mean"
        self._say("sentences", f"Pooling comes from {origin}; give query_prompt and document_prompt if it wants them.")
        return {}

    @property
    def _layers(self) -> int:
        of_teacher = int(self.teacher.config.num_hidden_layers)
        layers = PRESETS[self.size]["layers"]
        return min(layers, -(-of_teacher // 2) if layers == PRESETS["base"]["layers"] else of_teacher)

    @property
    def _is_narrow(self) -> bool:
        return "dim" in PRESETS[self.size] and self.purpose == "mlm"

    def _trained_size(self) -> int | None:
        """Tokens of a new vocabulary; None where the teacher's is as small, or is kept for its vectors."""
        size = PRESETS[self.size].get("vocabulary_size")
        is_smaller = size is not None and size < 0.9 * self.teacher.config.vocab_size
        return size if is_smaller and self.purpose == "mlm" else None

    def _student(self) -> Values:
        config, layers = self.teacher.config, self._layers
        values: Values = {"layers": layers}
        self._say("student", f"{self.size}: {layers} of the teacher's {config.num_hidden_layers} layers.")
        if self.purpose == "sentences" and not family_of(config).has_windows:
            values["initialise_from"] = [(k + 1) * config.num_hidden_layers // layers - 1 for k in range(layers)]
            self._say("student", "Each starts from the last teacher layer of its share.")
        if self.size in PRUNED_PRESETS and self.purpose == "mlm":
            values |= self._pruned()
        elif self._is_narrow:
            values |= self._narrow()
        if size := self._trained_size():
            values["vocabulary"] = {"train": {"size": size}}
            self._say("student", f"A WordPiece vocabulary of {size:,} tokens is trained on the corpus.")
        elif kept := self._kept_tokens():
            values["vocabulary"] = {"trim": kept}
        return values

    def _narrow(self) -> Values:
        """The width of the tiny ones: as many heads, each about a third as wide; a rotary model has fewer heads."""
        config, preset = self.teacher.config, PRESETS[self.size]
        ratio = preset["dim"] / PRESET_TEACHER_WIDTH
        heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        if family_of(config).is_rotary:
            heads = max(1, round(heads * ratio))
        else:
            width = max(1, round(width * ratio))
        dim = heads * width
        hidden = min(dim * preset["hidden_dim"] // preset["dim"], inner_width(config))
        self._say("student", f"About a third as wide as the teacher ({config.hidden_size}).")
        return {"dim": dim, "heads": heads, "hidden_dim": hidden}

    def _pruned(self) -> Values:
        """The same shares of the teacher as in the family, with heads as wide as the teacher's."""
        config, preset = self.teacher.config, PRESETS[self.size]
        heads, values = config.num_attention_heads, {}
        if "dim" in preset:
            kept = max(1, round(heads * preset["dim"] / PRESET_TEACHER_WIDTH))
            values = {"dim": kept * (config.hidden_size // heads), "heads": kept}
        hidden = max(1, inner_width(config) * preset["hidden_dim"] // PRESET_TEACHER_INNER)
        self._say("student", "Of heads, feed-forward units and width those stay that change predictions most.")
        return {**values, "hidden_dim": hidden, "prune": {}}

    def _kept_tokens(self) -> Values | None:
        """What stays of a vocabulary that is mostly of other scripts than the corpus; None to keep all of it."""
        scripts = self.corpus.scripts()
        try:
            kind = kind_of(self.teacher.tokenizer)
        except UserError:
            return None
        texts = [found.text for token in self.teacher.tokenizer.get_vocab() if (found := kind.text_of(token))]
        words = [text for text in texts if any(character.isalpha() for character in text)]
        foreign = sum(not is_of_scripts(text, scripts) for text in words) / max(len(words), 1)
        if not scripts or foreign < FOREIGN_SHARE:
            return None
        self._say(
            "student",
            f"{foreign:.0%} of the vocabulary's words are not in {', '.join(scripts)}, the scripts of the corpus: of "
            "the tokens, those stay that the corpus needs.",
        )
        letters = list(dict.fromkeys([*scripts, "Latin"]))
        return {"keep_scripts": ["Common"], "keep_letters": letters}

    def _weights(self) -> tuple[Values, str]:
        """The losses, and in words why these."""
        if self.purpose == "sentences":
            return (
                {"sentence_cosine": 20.0, "similarity": 30.0, "cosine": 1.0},
                "the vectors of sentences, their similarities, and hidden states, as in recipes/e5-small-ru.yaml",
            )
        has_head, is_paired = self.teacher.has_head, self._trained_size() is not None
        if is_paired and has_head:
            return {"first_token": 5.0, "mlm": 2.0}, "predictions across two vocabularies, see docs/vocabulary.md"
        if not has_head:
            loss = ("reduce" if is_paired else "hidden") if self._is_narrow else "cosine"
            return {loss: 1.0}, "hidden states alone, as the teacher has no head"
        if self._is_narrow:
            return {"kl": 5.0, "mlm": 2.0}, "the teacher's predictions; hidden states of another width are left out"
        return {"kl": 5.0, "mlm": 2.0, "cosine": 1.0}, "those of DistilBERT, with the weights of recipes/base.yaml"

    def _distillation(self) -> Values:
        weights, why = self._weights()
        self._say("distillation", f"Losses: {why}.")
        is_flat = family_of(self.teacher.config).has_windows or self.purpose == "sentences"
        values: Values = {
            "temperature": 1.0 if "first_token" in weights else 2.0,
            "weights": weights,
            # The last state of a ModernBERT has passed a norm, the others have not.
            "layer_map": "last-of-block" if is_flat else "block-mean",
            "learning_rate": 5.0e-4,
            **self._batches(),
        }
        if self.purpose == "sentences":
            values["freeze_embeddings"] = True
        if not self.has_accelerator or self.purpose == "sentences":
            values["dropout"] = False
            if not self.has_accelerator:
                self._say("distillation", "This machine has no GPU: without dropout a step takes much less time.")
        return values

    def _batches(self) -> Values:
        tokens, epochs = self.tokens(), EPOCHS
        if tokens is not None and EPOCHS * tokens < SEEN_TOKENS:
            epochs = min(math.ceil(SEEN_TOKENS / tokens), MAXIMAL_EPOCHS)
            masks = "" if self.purpose == "sentences" else ", each time with other tokens masked"
            self._say("distillation", f"The corpus is small: it is read {epochs} times{masks}.")
        if self.purpose == "sentences":
            return {"epochs": epochs, "batch_size": 64, "batches_per_update": 1}
        seen = None if tokens is None else epochs * tokens
        fitting = [size for size in UPDATE_TOKENS if (seen or SEEN_TOKENS) / size >= MINIMAL_UPDATES]
        update = max(fitting, default=UPDATE_TOKENS[0])
        batch = max(min(update, BATCH_TOKENS), self._max_length())
        batches = max(update // batch, 1)
        count = "" if seen is None else f", about {seen / (batch * batches):,.0f} updates"
        self._say("distillation", f"{epochs} epochs in updates of {batch * batches:,} tokens{count}.")
        return {"epochs": epochs, "batch_tokens": batch, "batches_per_update": batches}

    def _conversion(self) -> Values:
        onnx = ["fp32", "int8"]
        if self.teacher.has_head and self.purpose == "mlm":
            onnx.append("masked-lm-int8")
            self._say("conversion", "masked-lm-int8 is the file of the demo page.")
        files = {"onnx": onnx, "openvino": ["fp32", "int8"]}
        if absent := [runtime for runtime in files if runtime not in self.runtimes]:
            self._say("conversion", f"The packages of {' and '.join(absent)} are not installed (docs/inference.md).")
        return {runtime: formats if runtime in self.runtimes else [] for runtime, formats in files.items()}

    def _evaluation(self) -> Values:
        self._say("evaluation", "tasks: [NAME or FILE.yaml] adds scores on labelled tasks (docs/evaluation.md).")
        on_texts = {} if self.purpose == "mlm" else {"texts": MEASURED_TEXTS}
        return {"speed": {"sequence_length": self._max_length(), **on_texts, "batch_sizes": [1, 16]}}

    def _card(self) -> Values:
        language = self.language or self._own_language()
        own = self.teacher.license
        # The name and the text of another license are not known.
        is_known = isinstance(own, str) and is_license(own) and own not in ("other", "unknown")
        values: Values = {"language": language, "license": own if is_known else "unknown"}
        found = "is the teacher's" if is_known else "is yours to name: the teacher's was not found"
        self._say("card", f"The license {found}. corpus_description and corpus_license tell what the corpus is.")
        if not self.teacher.is_on_hub:
            values["teacher_name"] = self.teacher.title
        if examples_in([language]) is None:
            self._say("card", "There is no greeting in this language: example and sentences are from the corpus.")
            values |= self._examples()
        return values

    def _own_language(self) -> str:
        own = [code for code in self.teacher.languages if is_language(code) and code not in NO_LANGUAGES]
        if found := own[0] if len(own) == 1 else self.corpus.language():
            return found
        raise UserError("--language: the language of the corpus was not recognised; give its ISO 639 code")

    def _examples(self) -> Values:
        words = [text.split() for text in self.corpus.texts if MASK not in text]
        sentences = [found for found in words if 4 <= len(found) <= 20] or words
        example = " ".join([*sentences[0][:-1], MASK])
        return {"example": example, "sentences": [" ".join(found) for found in sentences[:2]]}
