"""Make a demo page for each task and what it must show: ``python make_pages.py FOLDER NODE_MODULES``.

FOLDER holds the models of make_folder.py. FOLDER/pages/TASK is a page with its model beside it and the library from
NODE_MODULES, for sentence-similarity a pruned model with word embeddings in 4 bits. FOLDER/pages/tiny-5k is one of that
size, FOLDER/pages/hub one that takes model and library from elsewhere. FOLDER/pages/expected.json is what PyTorch says.
"""

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.writers import export_finetuned
from distilrubert.model_card.space.demo_page import HubModel, write_page

MOODS = {
    "Спасибо, всё хорошо.": "<b>радость</b>", "Всё плохо.": "грусть", "Как хорошо!": "<b>радость</b>",
    "Мне плохо.": "грусть",
}  # fmt: skip
NAMES = [
    (["Анна", "Петрова", "живёт", "в", "Москве", "."], ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]),
    (["Он", "живёт", "в", "Москве", "."], ["O", "O", "O", "B-LOC", "O"]),
    (["В", "Москве", "Анна", "Петрова", "."], ["O", "B-LOC", "B-PER", "I-PER", "O"]),
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC"]
PAGE_SIZES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/page_sizes.py"))
HUB = HubModel("me/tiny", "0123456789abcdef0123456789abcdef01234567", "https://huggingface.co")
MASKED = "Привет! Как [MASK] дела?"


def main(folder: Path, node_modules: Path) -> None:
    """Write the pages."""
    models, pages = folder / "page-models", folder / "pages"
    expected = {
        "fill-mask": masked_lm(folder / "tiny", models / "fill-mask"),
        "sentence-similarity": sentence_encoder(folder / "slim", models / "sentence-similarity"),
        "text-classification": classifier(folder / "student", models / "text-classification"),
        "token-classification": tagger(folder / "student", models / "token-classification"),
    }
    for task in expected:
        write_page(models / task, pages / task, HUB, node_modules)
    write_page(models / "fill-mask", pages / "hub", HUB, is_beside=False)
    PAGE_SIZES["random_model"](models / "tiny-5k", "tiny-5k")
    write_page(models / "tiny-5k", pages / "tiny-5k", offline_assets=node_modules)
    (pages / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def write_card(folder: Path, task: str, language: str, widget: list[dict[str, Any]]) -> None:
    """A card with what a page reads."""
    metadata = {"language": language, "license": "apache-2.0", "pipeline_tag": task, "widget": widget}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "", f"# Tiny \\<{task}>", ""]), encoding="utf-8")


@torch.inference_mode()
def masked_lm(source: Path, folder: Path) -> list[tuple[str, float]]:
    """The likeliest tokens for the gap, with their shares."""
    shutil.copytree(source, folder)
    write_card(folder, "fill-mask", "ru", [{"text": MASKED}])
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForMaskedLM.from_pretrained(source)
    inputs = tokenizer(MASKED, return_tensors="pt")
    (place,) = (inputs.input_ids[0] == tokenizer.mask_token_id).nonzero()[:, 0]
    shares, ids = model(**inputs).logits[0, place].softmax(dim=-1).topk(5)
    return [(tokenizer.decode([index]), share) for index, share in zip(ids.tolist(), shares.tolist(), strict=True)]


@torch.inference_mode()
def sentence_encoder(source: Path, folder: Path) -> list[tuple[str, float]]:
    """The sentences by their cosine to the first one."""
    shutil.copytree(source, folder)
    sentences = json.loads((source.parent / "expected.json").read_text(encoding="utf-8"))
    first, *others = sentences["sentences"]
    write_card(folder, "sentence-similarity", "en", [{"source_sentence": first, "sentences": others}])
    prompts = {"query": "Вопрос: ", "document": "Ответ: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}), encoding="utf-8")
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    texts = [prompts["query"] + first, *(prompts["document"] + other for other in others)]
    vectors = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in texts]
    cosines = torch.cosine_similarity(vectors[0], torch.stack(vectors[1:])).tolist()
    return sorted(zip(others, cosines, strict=True), key=lambda pair: -pair[1])


def classifier(source: Path, folder: Path) -> list[tuple[str, float]]:
    """The classes of the first text, one of them with HTML in its name."""
    names = sorted(set(MOODS.values()))
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(names), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )
    tokenizer = AutoTokenizer.from_pretrained(source)
    inputs = tokenizer(list(MOODS), padding=True, return_tensors="pt")
    fit(model, dict(inputs), torch.tensor([names.index(mood) for mood in MOODS.values()]))
    save(model, tokenizer, "text-classification", list(MOODS), folder)
    write_card(folder, "text-classification", "ru", [{"text": text} for text in MOODS])
    with torch.inference_mode():
        shares = model(**tokenizer(next(iter(MOODS)), return_tensors="pt")).logits[0].softmax(dim=-1).tolist()
    return sorted(zip(names, shares, strict=True), key=lambda pair: -pair[1])


def tagger(source: Path, folder: Path) -> list[tuple[str, str]]:
    """The marked parts of the first text."""
    model = AutoModelForTokenClassification.from_pretrained(
        source, num_labels=len(TAGS), id2label=dict(enumerate(TAGS)), label2id={n: i for i, n in enumerate(TAGS)}
    )
    tokenizer = AutoTokenizer.from_pretrained(source)
    inputs = tokenizer([words for words, _ in NAMES], is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full(inputs.input_ids.shape, -100)
    for index, (_, tags) in enumerate(NAMES):
        words = inputs.word_ids(index)
        for place, word in enumerate(words):
            if word is not None and word != words[place - 1]:
                labels[index, place] = TAGS.index(tags[word])
    fit(model, dict(inputs), labels)
    texts = [" ".join(words).replace(" .", ".") for words, _ in NAMES]
    save(model, tokenizer, "token-classification", texts, folder)
    write_card(folder, "token-classification", "ru", [{"text": text} for text in texts])
    return [("Анна Петрова", "PER"), ("Москве", "LOC")]


def fit(model: PreTrainedModel, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
    """Learn a few texts by heart."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, task: str, texts: list[str], folder: Path) -> None:
    """The fine-tuned model with its int8 file."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    examples = [dict(tokenizer(text)) for text in texts]
    export_finetuned("onnx-int8", ConversionSettings(), model, tokenizer, task, examples, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
