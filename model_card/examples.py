"""Sentences for the usage section of a card, in the model's language."""

from collections.abc import Sequence

# By ISO 639-1 code: one with a mask, and two to embed.
_EXAMPLES = {
    "ru": ("Привет! Как у тебя [MASK]?", ["Привет! Как дела?", "Спасибо, всё хорошо."]),
    "en": ("Hello! How are [MASK] today?", ["Hello! How are you?", "Thank you, I am fine."]),
    "uk": ("Привіт! Як у тебе [MASK]?", ["Привіт! Як справи?", "Дякую, все добре."]),
    "be": ("Прывітанне! Як у цябе [MASK]?", ["Прывітанне! Як справы?", "Дзякуй, усё добра."]),
    "de": ("Hallo! Wie geht es [MASK]?", ["Hallo! Wie geht es dir?", "Danke, mir geht es gut."]),
    "fr": ("Bonjour ! Comment [MASK]-tu ?", ["Bonjour ! Comment vas-tu ?", "Merci, je vais bien."]),
    "es": ("¡Hola! ¿Cómo [MASK]?", ["¡Hola! ¿Cómo estás?", "Gracias, estoy bien."]),
    "it": ("Ciao! Come [MASK]?", ["Ciao! Come stai?", "Grazie, sto bene."]),
    "pl": ("Cześć! Co u [MASK]?", ["Cześć! Co u ciebie?", "Dziękuję, wszystko dobrze."]),
    "pt": ("Olá! Como [MASK] você?", ["Olá! Como você está?", "Obrigado, estou bem."]),
}
_OTHER_CODES = {
    "rus": "ru", "eng": "en", "ukr": "uk", "bel": "be", "deu": "de", "fra": "fr", "spa": "es", "ita": "it",
    "pol": "pl", "por": "pt", "multilingual": "en",
}  # fmt: skip
KNOWN = tuple(_EXAMPLES)


def examples_in(languages: Sequence[str]) -> dict[str, object] | None:
    """The card's ``example`` and ``sentences`` in the first of the languages that there are some in; else None."""
    for code in languages:
        if found := _EXAMPLES.get(_OTHER_CODES.get(code, code)):
            example, sentences = found
            return {"example": example, "sentences": sentences}
    return None
