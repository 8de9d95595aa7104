"""What a visitor of a demo page downloads of the smallest students: ``python benchmarks/page_sizes.py``.

Random weights in the shapes of recipes/tiny.yaml and recipes/tiny-5k.yaml, which are as large as trained ones, with
vocabularies of that size, over words of random syllables. The library comes from a CDN and is not counted; neither is
compression on the way. The result is benchmarks/results/page_sizes.json.
"""

import itertools
import json
import random
import tempfile
from pathlib import Path

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.model_card.space.demo_page import MODEL_FOLDER, write_page
from distilrubert.modeling.architecture import PRESETS, PresetName, StudentArchitecture
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import new_teacher
from distilrubert.modeling.wordpiece import train_wordpiece

RESULT = Path(__file__).parent / "results" / "page_sizes.json"
SIZES: tuple[PresetName, ...] = ("tiny", "tiny-5k")
MASKED = "Привет! Как [MASK] дела?"


def random_model(folder: Path, preset: PresetName) -> int:
    """Write a model repository of a preset's shape, with the file of the page and a card; its number of parameters."""
    syllables = [consonant + vowel for consonant in "бвгдзклмнпрстхш" for vowel in "аеиоуыя"]
    shape = dict(PRESETS[preset])
    tokens = shape.pop("vocabulary_size")
    # Each word several times, so that it becomes a token.
    drawn = random.Random(0)
    words = drawn.choices(drawn.choices(list(itertools.product(syllables, repeat=3)), k=2 * tokens), k=12 * tokens)
    text = [" ".join(map("".join, words[start : start + 10])) for start in range(0, len(words), 10)]
    tokenizer = train_wordpiece(text, tokens, 512).tokenizer
    assert len(tokenizer) == tokens
    teacher = new_teacher(tokenizer, **shape, seed=3)
    student = build_student(teacher, StudentArchitecture(layers=shape["layers"]))
    save_student(student, folder / "student")
    # Random weights say nothing of how well int8 keeps real ones.
    loose = Tolerances(int8=Tolerance(token_cosine=-1, pooled_cosine=-1))
    settings = ConversionSettings(onnx=["masked-lm-int8"], tolerance=loose)
    convert(folder / "student", folder, settings, text[:4], text[4:8])
    metadata = {"language": "ru", "license": "apache-2.0", "pipeline_tag": "fill-mask", "widget": [{"text": MASKED}]}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "", f"# {preset}", ""]), encoding="utf-8")
    return int(student.model.num_parameters())


def measure(folder: Path, preset: PresetName) -> Row:
    """Bytes that a visitor downloads: the page itself, the files beside the graph, the graph, and their sum."""
    parameters = random_model(folder / "model", preset)
    page = folder / "page"
    write_page(folder / "model", page)
    graph = page / MODEL_FOLDER / "onnx"
    shown = [path for path in page.iterdir() if path.is_file() and path.name != "README.md"]
    beside = [path for path in (page / MODEL_FOLDER).iterdir() if path.is_file()]
    sizes = {
        "page_bytes": _bytes(shown),
        "tokenizer_and_config_bytes": _bytes(beside),
        "graph_bytes": _bytes(list(graph.iterdir())),
    }
    return Row(preset, {"parameters": parameters, **sizes, "total_bytes": sum(sizes.values())})


def _bytes(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(Path(folder) / size, size) for size in SIZES]
    Measurements(Environment.capture(), rows).save(RESULT)
    for row in rows:
        print(f"{row.case}: {row.values['total_bytes'] / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
