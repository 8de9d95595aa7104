"""What a corpus was made of and what was counted: the plan before it is built, and manifest.json after."""

from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.shards import Counts, Shard
from distilrubert.distill.corpus.tokenisation import tokenizer_sha256


def plan_of(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    student_tokenizer: PreTrainedTokenizerFast | None,
) -> dict[str, Any]:
    """Everything but the text that decides what the corpus becomes."""
    plan = {
        "seed": seed,
        "settings": settings.model_dump(mode="json", exclude={"processes"}),
        "tokenizer": _identity_of(tokenizer),
    }
    return plan | ({"student_tokenizer": _identity_of(student_tokenizer)} if student_tokenizer else {})


def without_paths(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without the paths in it, so that a build goes on after its project has been moved."""
    tokenizers = {
        key: {name: value for name, value in plan[key].items() if name != "name"}
        for key in ("tokenizer", "student_tokenizer")
        if key in plan
    }
    sources = [source | {"path": None} for source in plan["settings"]["sources"]]
    return plan | tokenizers | {"settings": plan["settings"] | {"sources": sources}}


def counted(shards: list[Shard], sources: int) -> dict[str, Any]:
    """The counts of each source and of all, as manifest.json has them.

    Args:
        shards: all shards of the corpus.
        sources: number of sources.
    """
    by_source = [[shard for shard in shards if shard.start.source == source] for source in range(sources)]
    entries = [
        {"origins": [origin for shard in shards_of for origin in shard.finished], **_totals(shards_of)}
        for shards_of in by_source
    ]
    return {"sources": entries, "total": _totals(shards)}


def refuse_empty(settings: CorpusSettings, total: dict[str, Any]) -> None:
    """Raise a UserError if there is nothing to train on, or nothing held out that should be."""
    if not total["train_sequences"]:
        raise UserError(
            f"corpus: no text to train on: {total['texts']} texts read, {total['empty']} of them empty, "
            f"{total['duplicates']} duplicates, {total['left_out']} left out by a weight; {total['too_short']} "
            f"sequences shorter than minimum_length {settings.minimum_length}, {total['validation_sequences']} held "
            f"out by validation {settings.validation}"
        )
    if settings.validation and not total["validation_sequences"]:
        raise UserError(
            f"corpus.validation: {settings.validation} of {total['texts']} texts holds out none; raise it, or set 0"
        )


def _identity_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "name": tokenizer.name_or_path,
        "sha256": tokenizer_sha256(tokenizer),
        "vocabulary_size": len(tokenizer),
    }


def _totals(shards: list[Shard]) -> dict[str, Any]:
    counts = sum((shard.counts for shard in shards), Counts())
    tokens = counts.train_tokens + counts.validation_tokens - 2 * (counts.train_sequences + counts.validation_sequences)
    return {**asdict(counts), "unknown_share": counts.unknown_tokens / tokens if tokens else 0.0}
