import ast
import copy
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from markdown_it.token import Token

from distilrubert.common.errors import UserError
from distilrubert.model_card.card import render_card, write_card
from distilrubert.model_card.formatting import cosine, count, duration, figure, score, short_count
from distilrubert.model_card.inputs import CardInput, read_card_input
from tests.model_card.conftest import CONFIG, HUB_FILES, MANIFEST, RECIPE, REPORTS, write_run

GOLDEN = Path(__file__).parent / "golden" / "README.md"
FIGURES = {name: f"picture {name}" for name in ("speed.png", "training.png", "quality.png")}


@pytest.fixture
def run(run_folder: Path) -> CardInput:
    """The run with the teacher's config at hand, as after a download."""
    return dataclasses.replace(read_card_input(run_folder), teacher_config={"num_hidden_layers": 12})


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The card of a run with all reports."""
    return write_card(write_run(tmp_path_factory.mktemp("run"))).read_text(encoding="utf-8")


def _changed(**sections: Any) -> dict[str, Any]:
    """The recipe with sections replaced, or updated where they are mappings."""
    recipe = copy.deepcopy(RECIPE)
    for name, value in sections.items():
        recipe[name] = recipe[name] | value if isinstance(value, dict) else value
    return recipe


def _headings(card: str) -> list[str]:
    return re.findall(r"^## (.+)$", card, re.MULTILINE)


def _tokens(card: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text):
        yield token
        yield from token.children or []


def _table(card: str, heading: str) -> list[list[str]]:
    """Cells, as shown, of the first table below a heading."""
    section = card.split(f"## {heading}\n")[1]
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(section):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append("".join(child.content for child in token.children or []))
        elif token.type == "table_close":
            break
    return rows


def test_card_is_the_golden_one(run: CardInput) -> None:
    card = render_card(run, FIGURES)
    if os.environ.get("DISTILRUBERT_UPDATE_GOLDEN"):
        GOLDEN.write_text(card, encoding="utf-8")
    assert card == GOLDEN.read_text(encoding="utf-8")


def test_front_matter_is_what_the_hub_reads(run: CardInput) -> None:
    data = ModelCard(render_card(run)).data
    assert isinstance(data, ModelCardData)
    assert (data.language, data.license, data.library_name) == ("ru", "apache-2.0", "transformers")
    assert data.pipeline_tag == "fill-mask"
    assert (data.base_model, data.base_model_relation) == ("DeepPavlov/rubert-base-cased-conversational", "finetune")
    assert data.datasets == ["open_subtitles"]
    assert data.tags == ["distilbert", "knowledge-distillation", "onnx", "russian"]


def test_the_card_of_an_english_student_is_english(tmp_path: Path) -> None:
    settings = {"language": "en", "license": "mit"}
    teacher = {"model": "google-bert/bert-base-cased"}
    recipe = RECIPE | {"name": "small-bert", "teacher": teacher, "card": settings, "publish": {"repo_id": None}}
    card = write_card(write_run(tmp_path, recipe)).read_text(encoding="utf-8")
    assert not re.search("[а-яё]", card, re.IGNORECASE)
    assert not re.search("russian|rubert|taiga", card, re.IGNORECASE)
    assert "a masked language model for English" in card
    assert "@misc{sanh2019distilbert," in card


def test_languages_without_an_english_name_are_told_by_their_codes(tmp_path: Path) -> None:
    examples = {"example": "Менд [MASK]", "sentences": ["А"]}
    recipe = _changed(card={"language": ["ht", "xal", "multilingual"], **examples})
    card = write_card(write_run(tmp_path, recipe)).read_text(encoding="utf-8")
    assert "a masked language model for Haitian Creole, 'xal' and several languages with" in card


def test_lengths_of_text_are_those_of_the_distillation_too(run: CardInput) -> None:
    card = render_card(run)
    assert "and reads up to 512 tokens." in card
    assert "It was distilled on sequences of at most 128 tokens." in card
    whole = dataclasses.replace(run, manifest={**MANIFEST, "settings": {"max_length": 512}})
    assert "It was distilled on sequences" not in render_card(whole)


def test_model_index_holds_the_students_means_and_no_other_models(run: CardInput) -> None:
    data = ModelCard(render_card(run)).data
    found = {
        (result.task_type, result.dataset_name, result.metric_name): result.metric_value
        for result in data.eval_results or []
    }
    assert found == {
        ("text-classification", "RuSentiment", "weighted F1"): 0.7645,  # (0.7645 + 0.7601 + 0.7688) / 3
        ("text-classification", "RuSentiment", "accuracy"): 0.7617,
        ("token-classification", "FactRuEval | NER", "span F1"): 0.8535,
    }


def test_speed_table_has_the_reference_cards_columns(run: CardInput) -> None:
    head, teacher, *_, int8 = _table(render_card(run), "Speed")
    assert head == [
        "Model", "Size, MiB", "CPU latency, s", "CPU throughput, samples/s", "Latency gain, ×", "Throughput gain, ×",
    ]  # fmt: skip
    assert teacher == ["Teacher, PyTorch fp32", "679", "0.675", "1.54", "1.00", "1.00"]
    assert int8 == ["Student, ONNX Runtime int8", "129", "0.118", "7.74", "5.70", "5.02"]


def test_gpu_columns_stand_beside_the_cpu_where_measured(run: CardInput) -> None:
    assert run.speed is not None
    on_gpu = dataclasses.replace(
        run.speed.rows[0], case="teacher-pytorch-fp32-cuda", figures={"latency_s": 0.031, "samples_per_s": 36.4902}
    )
    speed = dataclasses.replace(run.speed, rows=[*run.speed.rows, on_gpu])
    head, teacher, student, *_ = _table(render_card(dataclasses.replace(run, speed=speed)), "Speed")
    assert dict(zip(head, teacher, strict=True)) == {
        "Model": "Teacher, PyTorch fp32",
        "Size, MiB": "679",
        "CPU latency, s": "0.675",
        "GPU latency, s": "0.0310",
        "CPU throughput, samples/s": "1.54",
        "GPU throughput, samples/s": "36.5",
        "Latency gain, ×": "1.00",
        "Throughput gain, ×": "1.00",
    }
    assert student[head.index("GPU latency, s")] == "–"


def test_a_gpu_that_was_not_measured_is_not_named(run: CardInput) -> None:
    assert run.speed is not None
    where = dataclasses.replace(run.speed.environment, gpu="NVIDIA H100")
    speed = dataclasses.replace(run.speed, environment=where)
    assert "H100" not in render_card(dataclasses.replace(run, speed=speed))
    on_gpu = dataclasses.replace(run.speed.rows[0], case="teacher-pytorch-fp32-cuda")
    speed = dataclasses.replace(speed, rows=[*speed.rows, on_gpu])
    assert "and NVIDIA H100, " in render_card(dataclasses.replace(run, speed=speed))


def test_files_that_fill_masks_are_compared_by_their_logits(run: CardInput) -> None:
    assert run.parity is not None
    parity = dataclasses.replace(run.parity, details=run.parity.details | {"task": "fill-mask"})
    card = render_card(dataclasses.replace(run, parity=parity))
    assert "How far the logits of each file are" in card
    assert "hidden states of each file" not in card
    assert "they return `logits`" in card
    assert "they return `logits`" not in render_card(run)


def test_int8_is_warned_of_where_there_is_such_a_file(run: CardInput) -> None:
    assert "Int8 files round once more" in render_card(run)
    files = {path: size for path, size in run.files.items() if not path.startswith(("onnx/", "openvino/"))}
    assert "Int8 files round" not in render_card(dataclasses.replace(run, files=files))


def test_tasks_that_were_only_probed_have_their_licences_told_and_nothing_measured_no_table(run: CardInput) -> None:
    assert run.quality is not None
    rows = [dataclasses.replace(row, figures={**row.figures, "tasks": {}}, ratio=None) for row in run.quality.rows[:2]]
    card = render_card(dataclasses.replace(run, quality=dataclasses.replace(run.quality, rows=rows)))
    assert "RuSentiment, linear probe" in card
    assert "- Data of the tasks, used for measuring only: RuSentiment: " in card
    nothing = [dataclasses.replace(row, figures={"tasks": {}}) for row in rows]
    card = render_card(dataclasses.replace(run, quality=dataclasses.replace(run.quality, rows=nothing)))
    assert "Quality" not in _headings(card)


def test_a_file_in_16_bits_is_not_passed_off_as_fp32(run: CardInput) -> None:
    assert run.speed is not None
    teacher, *others = run.speed.rows
    # 177,853,440 parameters of two bytes.
    half = dataclasses.replace(teacher, figures=teacher.figures | {"size_mib": 339.3})
    card = render_card(dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=[half, *others])))
    _, teacher_cells, *students = _table(card, "Speed")
    assert teacher_cells[:2] == ["Teacher, PyTorch fp32", "339 (16-bit)"]
    assert not any("16-bit" in cells[1] for cells in students)
    assert "PyTorch widens 16-bit numbers to fp32" in card
    assert "16-bit" not in render_card(run)


@pytest.mark.parametrize(
    ("instruction_sets", "said"),
    [
        (["avx2", "avx512_bf16"], "which on this CPU is bf16 for all that is not int8"),
        (["avx2", "avx512_vnni"], "which on this CPU is fp32"),
    ],
)
def test_openvinos_own_precision_is_told(run: CardInput, instruction_sets: list[str], said: str) -> None:
    assert run.speed is not None
    assert run.parity is not None
    assert "OpenVINO" not in render_card(run)
    row = dataclasses.replace(run.speed.rows[-1], case="student-openvino-fp32")
    environment = dataclasses.replace(run.speed.environment, instruction_sets=instruction_sets)
    speed = dataclasses.replace(run.speed, environment=environment, rows=[*run.speed.rows, row])
    proved = dataclasses.replace(run.parity.rows[-1], case="openvino-fp32")
    parity = dataclasses.replace(run.parity, rows=[*run.parity.rows, proved])
    files = {**run.files, "openvino/openvino_model.bin": 1, "openvino/openvino_model.xml": 1}
    card = render_card(dataclasses.replace(run, speed=speed, parity=parity, files=files))
    assert f"OpenVINO computed in its default precision, {said}." in card
    assert "OpenVINO was held to fp32 arithmetic for this" in card
    assert "OpenVINO without any loss" not in card


def test_quality_table_puts_teacher_and_bag_of_words_beside_the_student(run: CardInput) -> None:
    table = _table(render_card(run), "Quality")
    assert table[0] == ["Measure", "Teacher", "This model", "This model, ONNX Runtime int8", "Bag of words"]
    assert ["RuSentiment: weighted F1", "0.774 ± 0.002", "0.764 ± 0.004", "0.763 ± 0.004", "0.669"] in table
    assert ["FactRuEval | NER: span F1", "0.882 ± 0.003", "0.854 ± 0.003", "0.851 ± 0.003", "–"] in table
    assert ["RuSentiment, linear probe: weighted F1", "0.691", "0.672", "–", "–"] in table
    assert table[-1] == ["Mean of the tasks' main metrics, relative to the teacher", "1.000", "0.970", "0.968", "–"]


def test_predictions_of_other_pieces_are_not_passed_off_as_comparable(run: CardInput) -> None:
    assert run.quality is not None
    teacher, student, *files = run.quality.rows
    compared = {"kl_to_teacher_nats", "teacher_agreement", "mean_hidden_cosine"}
    own = dataclasses.replace(
        student, figures={name: value for name, value in student.figures.items() if name not in compared}
    )
    quality = dataclasses.replace(run.quality, rows=[teacher, own, *files])
    card = render_card(dataclasses.replace(run, quality=quality))
    measures = {cells[0]: cells[1:3] for cells in _table(card, "Quality")}
    assert measures["Held-out text, not comparable: pseudo-perplexity (lower is better)"] == ["15.9", "22.4"]
    assert not any(name.startswith("Held-out text: ") for name in measures)
    assert "do not tell which of them is better" in card
    assert "not comparable" not in render_card(run)


def test_no_claim_of_speed_where_there_is_none(run: CardInput) -> None:
    assert (
        "Its fastest file here, ONNX Runtime int8, takes 129 MiB; on the same CPU its latency is 5.70 times"
        in render_card(run)
    )
    assert run.speed is not None
    slower = [dataclasses.replace(row, figures=row.figures | {"latency_ratio": 0.9}) for row in run.speed.rows]
    assert "fastest file" not in render_card(
        dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=slower))
    )
    crowded = [dataclasses.replace(row, figures=row.figures | {"throughput_ratio": 0.8}) for row in run.speed.rows]
    card = render_card(dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=crowded)))
    assert "lower than that of the teacher in PyTorch.**" in card


def test_a_short_protocol_is_told(run: CardInput) -> None:
    assert "with three seeds: mean ± standard deviation on the test part" in render_card(run)
    assert run.quality is not None
    settings = {"seeds": [1], "finetuning": {"train_limit": 2000}}
    quality = dataclasses.replace(run.quality, details=run.quality.details | {"settings": settings})
    card = render_card(dataclasses.replace(run, quality=quality))
    assert "on 2,000 labelled rows at most, with one seed: the score on the test part" in card


@pytest.mark.parametrize(
    ("report", "sections"),
    [
        ("training", {"Environmental cost"}),
        ("speed", {"Speed"}),
        ("quality", {"Quality"}),
        ("parity", {"Agreement of the files"}),
    ],
)
def test_a_section_without_its_report_is_left_out(
    tmp_path: Path, complete: str, report: str, sections: set[str]
) -> None:
    card = write_card(write_run(tmp_path, without=(report,))).read_text(encoding="utf-8")
    assert set(_headings(complete)) - set(_headings(card)) == sections
    assert f"reports/{report}.json" in complete
    assert f"reports/{report}.json" not in card
    assert f"assets/{report}.png" not in card


def test_a_run_without_any_report_still_has_a_card(tmp_path: Path) -> None:
    card = write_card(write_run(tmp_path, without=tuple(REPORTS))).read_text(encoding="utf-8")
    assert ModelCard(card).data.eval_results is None
    assert _headings(card) == [
        "How to use", "Files", "How it was distilled", "Intended use and limits", "Licences", "Citation",
    ]  # fmt: skip


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif not isinstance(value, bool) and value is not None:
        yield value


def _digits(text: str) -> set[str]:
    """The numbers of a text; those inside names such as int8 and e5-small are none."""
    return set(re.findall(r"(?<![\w.-])\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?!\w)", text))


def test_every_number_comes_from_a_report(run_folder: Path) -> None:
    card = write_card(run_folder).read_text(encoding="utf-8")
    prose = ModelCard(card).text.split("## Citation")[0]
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", prose, flags=re.DOTALL)
    known: set[str] = set()
    stated = [
        RECIPE,
        CONFIG,
        MANIFEST,
        *REPORTS.values(),
        {name: len(text) / 2**20 for name, text in HUB_FILES.items()},
    ]
    for leaf in _leaves(stated):
        if isinstance(leaf, str):
            known |= _digits(leaf)
            continue
        for written in (figure, count, short_count, score, duration, cosine, "{:g}".format):
            known |= _digits(written(leaf))
    known |= {
        "1.31",  # 177,853,440 / 135,445,755 parameters
        "4.92",  # 98,312.6 s at 180 W, kWh
        "32,768",  # 4,096 tokens × 8 batches
        "5", "15",  # warm-up and masking in percent
        "1", "3", "8", "10", "12",  # layers 0, 2, 4, 7, 9, 11 counted from one
    }  # fmt: skip
    deviations = {
        f"{metric['std']:.3f}"
        for row in REPORTS["quality"]["rows"]
        for task in row["tasks"].values()
        for metric in task.values()
        if metric.get("std")
    }
    assert _digits(prose) - known - deviations == set()


def test_links_and_pictures_are_files_of_the_repository(run_folder: Path) -> None:
    card = write_card(run_folder).read_text(encoding="utf-8")
    targets = [token.attrs.get("src") or token.attrs.get("href") for token in _tokens(card)]
    local = {str(target) for target in targets if target and not str(target).startswith("https://")}
    assert {"assets/speed.png", "assets/training.png", "assets/quality.png", "CITATION.bib"} <= local
    assert [target for target in local if not (run_folder / "hub" / target).is_file()] == []


def test_paths_of_the_machine_stay_on_it(tmp_path: Path) -> None:
    recipe = _changed(teacher={"model": "/home/anna/models/teacher"})
    card = write_card(write_run(tmp_path, recipe)).read_text(encoding="utf-8")
    assert "/home/anna" not in card
    assert "distilled from teacher." in card
    assert "base_model" not in ModelCard(card).data.to_dict()


def test_a_teacher_of_the_recipes_own_is_told_of(tmp_path: Path) -> None:
    recipe = _changed(teacher={"model": None, "pretrain": {"layers": 12}})
    folder = write_run(tmp_path, recipe)
    own = (folder / "reports" / "training.json").read_text(encoding="utf-8").replace("distillation", "pretraining")
    (folder / "reports" / "pretraining.json").write_text(own, encoding="utf-8")
    card = write_card(folder).read_text(encoding="utf-8")
    assert "distilled from a BERT trained on the same corpus." in card
    assert "The teacher was trained first, on the same corpus: 1,872 updates" in card
    assert "**9.83 kWh**" in card  # twice 98,312.6 s at 180 W
    # The next recipe takes a teacher that is there already; what was measured on the former one stays in the folder.
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, allow_unicode=True), encoding="utf-8")
    card = write_card(folder).read_text(encoding="utf-8")
    assert "The teacher was trained first" not in card
    assert "**4.92 kWh**" in card
    assert not (folder / "hub" / "reports" / "pretraining.json").exists()


def test_losses_of_an_older_report_have_their_plain_names(run: CardInput) -> None:
    assert run.training is not None
    details = {key: value for key, value in run.training.details.items() if key != "losses"}
    older = dataclasses.replace(run, training=dataclasses.replace(run.training, details=details))
    assert "| kl | 5 |" in render_card(older)
    assert "| KL divergence" not in render_card(older)


def test_an_unpublished_card_speaks_of_its_folder(tmp_path: Path) -> None:
    card = write_card(write_run(tmp_path, _changed(publish={"repo_id": None}))).read_text(encoding="utf-8")
    assert "`distilrubert-base-cased-conversational` stands for the folder that holds this card" in card
    assert "me/distilrubert-base" not in card


def test_only_what_lies_in_the_repository_is_explained(run: CardInput) -> None:
    assert "OpenVINO" not in render_card(run)
    files = {"config.json": 1, "model.safetensors": 2**20, "openvino/openvino_model.xml": 1}
    card = render_card(dataclasses.replace(run, files=files | {"openvino/openvino_model.bin": 2**20}))
    assert 'subfolder="openvino", file_name="openvino_model.xml"' in card
    assert "The OpenVINO files hold the encoder" in card
    assert "### ONNX Runtime" not in card
    assert "### Sentence Transformers" not in card
    assert "openvino" in (ModelCard(card).data.tags or [])


def test_code_in_the_card_is_python(run: CardInput) -> None:
    blocks = re.findall(r"```python\n(.*?)```", render_card(run), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        ast.parse(block)


def test_hardware_counts_the_gpus(run: CardInput) -> None:
    assert run.training is not None
    environment = dataclasses.replace(run.training.environment, gpu="NVIDIA H100")
    row = dataclasses.replace(run.training.rows[0], figures=run.training.rows[0].figures | {"processes": 8})
    training = dataclasses.replace(run.training, environment=environment, rows=[row])
    assert "27.3 hours on 8 × NVIDIA H100, in bf16" in render_card(dataclasses.replace(run, training=training))


def test_names_cannot_break_the_card(run: CardInput) -> None:
    card_settings = run.settings.model_copy(
        update={
            "title": "A | *b* <script>",
            "teacher_name": "x](y) [z",
            "example": 'Он "сказал" [MASK]',
            "language": ["xal"],
        }
    )
    card = render_card(dataclasses.replace(run, settings=card_settings))
    texts = [token.content for token in _tokens(card) if token.type == "text"]
    assert "A | *b* <script>" in texts
    assert "x](y) [z" in texts
    assert r'fill_mask("Он \"сказал\" [MASK]")' in card


def test_writing_again_changes_nothing_and_drops_what_is_no_longer_measured(run_folder: Path) -> None:
    def contents() -> dict[str, bytes]:
        hub = run_folder / "hub"
        return {path.relative_to(hub).as_posix(): path.read_bytes() for path in hub.rglob("*") if path.is_file()}

    write_card(run_folder)
    first = contents()
    assert first["reports/speed.json"] == (run_folder / "reports" / "speed.json").read_bytes()
    write_card(run_folder)
    assert contents() == first
    (run_folder / "reports" / "quality.json").unlink()
    write_card(run_folder)
    assert first.keys() - contents().keys() == {"assets/quality.png", "reports/quality.json"}


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe.yaml: cannot be read"):
        write_card(tmp_path)
    run = write_run(tmp_path / "run", _changed(card={"license": "apache"}))
    with pytest.raises(UserError, match=r"recipe.yaml: card.license: .*apache-2.0"):
        write_card(run)
    for recipe in ([1], {key: value for key, value in RECIPE.items() if key != "distillation"}):
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        with pytest.raises(UserError, match="is no resolved recipe"):
            write_card(run)
    run = write_run(tmp_path / "broken")
    (run / "reports" / "speed.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"speed.json: is no measurement file"):
        write_card(run)
    (run / "hub" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        write_card(run)
