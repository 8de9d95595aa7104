"""A model with a part of its vocabulary, without distilling: what ``distilrubert trim`` writes."""

import logging
from pathlib import Path

import torch
from transformers import AutoModel

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import atomic_folder, check_output_folder
from distilrubert.common.sentence_files import SentencePrompts, read_prompts
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.sources import open_source
from distilrubert.distill.corpus.vocabulary_texts import texts_of_part
from distilrubert.modeling.checkpoints import load_fast_tokenizer, read_model_config
from distilrubert.modeling.downloads import module_folder
from distilrubert.modeling.tokenizer_kinds import kind_of, tokens_of
from distilrubert.modeling.trimmed_checkpoint import module_paths, read_weights, weight_files, write_trimmed
from distilrubert.modeling.trimming import count_needed, ids_in, trim_tokenizer
from distilrubert.modeling.vocabulary_settings import TrimSettings
from distilrubert.pipeline.vocabulary_report import measure_vocabularies

logger = logging.getLogger(__name__)

SEED = 0  # of the choice of held-out texts


def trim_model_folder(model: str, corpus: CorpusSettings, settings: TrimSettings, output: Path) -> Measurements:
    """Write a model with the tokens that the texts need, and the report on it in ``reports/vocabulary.json``.

    Args:
        model: a folder, or the id of a model on the Hub, of a family that is taken; a folder of sentence-transformers
            stays one.
        corpus: the texts, and which share of them is not counted but measured on.
        settings: what stays besides.
        output: a folder that does not exist or is empty.

    Raises:
        UserError: if there is no such model, its tokenizer is of an unknown kind or another model's, the texts cannot
            be read, or the folder is in use or cannot be written; nothing is then left behind.
    """
    check_output_folder(output)
    for source in corpus.sources:
        open_source(source)
    folder = module_folder(model)
    config = read_model_config(folder, model)
    with torch.device("meta"):
        whole = load_fast_tokenizer(folder, model, AutoModel.from_config(config))
    kind_of(whole, model)
    tokens_of(whole, model)
    weights = read_weights(folder, model, config)
    module_paths(folder)
    prompts = read_prompts(folder) or SentencePrompts()
    logger.info("counting the tokens that the texts need")
    counted, held_out = (texts_of_part(corpus, SEED, is_held_out=part) for part in (False, True))
    counts_V = count_needed(whole, counted)
    if not counts_V.any():
        raise UserError("--corpus: there is no text in it to count tokens on")
    # Put before each text, so no rarer than the texts.
    counts_V += settings.minimum_count * count_needed(whole, filter(None, prompts.by_name.values()))
    trimmed = trim_tokenizer(whole, counts_V, settings)
    vocabularies = {
        name: (tokenizer, config.hidden_size) for name, tokenizer in (("whole", whole), ("trimmed", trimmed))
    }
    report = measure_vocabularies(vocabularies, held_out, counts_V)
    report.details["settings"] = settings.model_dump()
    with atomic_folder(output) as beside:
        write_trimmed(folder, weights, config, trimmed, ids_in(whole, trimmed), beside)
        for row, where in zip(report.rows, (folder, beside), strict=True):
            row.values["file_mib"] = sum(file.stat().st_size for file in weight_files(where)) / 2**20
        report.save(beside / "reports" / "vocabulary.json")
    return report
