"""What to cite: the method, the works it stands on, and the model itself."""

import datetime
from pathlib import Path

from distilrubert.model_card.inputs import CardInput

_HERE = Path(__file__).parent
_BIBTEX_SPECIAL = {ord(character): f"\\{character}" for character in "&%$#_{}"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
}


def method_entry() -> str:
    """BibTeX entry of the paper on distilling DistilRuBERT."""
    return (_HERE / "method.bib").read_text(encoding="utf-8").strip()


def model_entry(run: CardInput) -> str | None:
    """BibTeX entry of the model itself; None where the card names no authors or the model was not trained here."""
    if not run.settings.authors or run.training is None:
        return None
    fields = {
        "title": f"{{{_escape(run.settings.title or run.name)}}}",
        "author": " and ".join(map(_escape, run.settings.authors)),
        "year": str(datetime.date.fromisoformat(run.training.environment.date).year),
    }
    if run.repo_id:
        fields["url"] = f"https://huggingface.co/{run.repo_id}"
    width = max(map(len, fields))
    lines = [f"  {name:<{width}} = {{{value}}}" for name, value in fields.items()]
    return f"@misc{{{run.name},\n" + ",\n".join(lines) + "\n}"


def bibliography(run: CardInput) -> str:
    """Content of CITATION.bib: the model, the method and its references."""
    references = (_HERE / "references.bib").read_text(encoding="utf-8").strip()
    return "\n\n".join(filter(None, [model_entry(run), method_entry(), references])) + "\n"


def _escape(text: str) -> str:
    return " ".join(text.split()).translate(_BIBTEX_SPECIAL)
