"""What to cite: the method, the works it stands on, and the model itself."""

import datetime
import functools
from pathlib import Path
from typing import Any

from distilrubert.model_card.inputs import CardInput, losses_of

METHOD, SUBTITLES, TAIGA = "kolesnikova2022knowledge", "lison2016opensubtitles", "shavrina2017taiga"
DISTILBERT, EXAMPLE = "sanh2019distilbert", "huggingface-distillation"
ACROSS_VOCABULARIES = ("match", "reduce_map", "reduce", "reduce_cosine")
# The works of references.bib as a card lists them.
_WORKS = {
    METHOD: "Alina Kolesnikova, Yuri Kuratov, Vasily Konovalov, Mikhail Burtsev. *Knowledge Distillation of Russian "
    "Language Models with Reduction of Vocabulary.* 2022. [arXiv:2205.02340](https://arxiv.org/abs/2205.02340)",
    SUBTITLES: "Pierre Lison, Jörg Tiedemann. *OpenSubtitles2016: Extracting Large Parallel Corpora from Movie and TV "
    "Subtitles.* LREC 2016.",
    TAIGA: "Tatiana Shavrina, Olga Shapovalova. *To the Methodology of Corpus Construction for Machine Learning: "
    '"Taiga" Syntax Tree Corpus and Parser.* CORPORA 2017, Saint Petersburg.',
    DISTILBERT: "Victor Sanh, Lysandre Debut, Julien Chaumond, Thomas Wolf. *DistilBERT, a distilled version of BERT: "
    "smaller, faster, cheaper and lighter.* 2019. [arXiv:1910.01108](https://arxiv.org/abs/1910.01108)",
    EXAMPLE: "Hugging Face. *Distillation example of Transformers.* [transformers-research-projects/distillation]"
    "(https://github.com/huggingface/transformers-research-projects/tree/main/distillation)",
}
_BIBTEX_SPECIAL = {ord(character): f"\\{character}" for character in "&%$#_{}"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
}


def describe_method(run: CardInput) -> dict[str, Any]:
    """The paper to cite, in BibTeX, and the other works, which the template calls by their numbers from 1 on."""
    method, *others = _keys(run)
    return {"method_entry": _bibtex()[method], "references": [_WORKS[key] for key in others]}


def _keys(run: CardInput) -> list[str]:
    """What a card cites: the paper on its method, then the others in the order of their numbers."""
    if run.settings.method == "distilrubert":
        return [METHOD, SUBTITLES, TAIGA, DISTILBERT, EXAMPLE]
    is_across = any(loss in ACROSS_VOCABULARIES for loss in losses_of(run.training))
    return [DISTILBERT, EXAMPLE, *([METHOD] if is_across else [])]


@functools.cache
def _bibtex() -> dict[str, str]:
    """The entries of the BibTeX file by key, in its order."""
    entries = Path(__file__).with_name("references.bib").read_text(encoding="utf-8").strip().split("\n\n")
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}


def model_entry(run: CardInput) -> str | None:
    """BibTeX entry of the model itself; None where the card names no authors or the model was not trained here."""
    if not run.settings.authors or run.training is None:
        return None
    fields = {
        "title": f"{{{_escape(run.settings.title or run.facts.name)}}}",
        "author": " and ".join(map(_escape, run.settings.authors)),
        "year": str(datetime.date.fromisoformat(run.training.environment.date).year),
    }
    if run.facts.repo_id:
        fields["url"] = f"{run.facts.hub}/{run.facts.repo_id}"
    width = max(map(len, fields))
    lines = [f"  {name:<{width}} = {{{value}}}" for name, value in fields.items()]
    return f"@misc{{{run.facts.name},\n" + ",\n".join(lines) + "\n}"


def bibliography(run: CardInput) -> str:
    """Content of CITATION.bib: the model, the method and its references."""
    return "\n\n".join(filter(None, [model_entry(run), *(_bibtex()[key] for key in _keys(run))])) + "\n"


def _escape(text: str) -> str:
    return " ".join(text.split()).translate(_BIBTEX_SPECIAL)
