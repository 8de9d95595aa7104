"""Corpus and teacher in, student checkpoint out."""

from distilrubert.distill.corpus import Corpus, CorpusSettings, TokenizedText, build_corpus, load_corpus
from distilrubert.distill.distillation import distill, pretrain_teacher
from distilrubert.distill.masking import MaskingSettings
from distilrubert.distill.report import TrainingReport
from distilrubert.distill.settings import DistillationSettings, OptimizationSettings, PretrainingSettings
from distilrubert.distill.signals import Interrupted
from distilrubert.distill.sources import CorpusSource, iterate_texts, open_source

__all__ = [
    "Corpus",
    "CorpusSettings",
    "CorpusSource",
    "DistillationSettings",
    "Interrupted",
    "MaskingSettings",
    "OptimizationSettings",
    "PretrainingSettings",
    "TokenizedText",
    "TrainingReport",
    "build_corpus",
    "distill",
    "iterate_texts",
    "load_corpus",
    "open_source",
    "pretrain_teacher",
]
