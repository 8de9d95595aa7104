import ast
import copy
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from markdown_it.token import Token

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import write_json
from distilrubert.model_card.card import render_card, write_card
from distilrubert.model_card.formatting import cosine, count, duration, number, score, short_count
from distilrubert.model_card.inputs import CardInput, read_reports
from tests.model_card.example_run import (
    CONFIG,
    HUB_FILES,
    MANIFEST,
    RECIPE,
    REPORTS,
    card_input,
    changed,
    with_settings,
    write_run,
)

GOLDEN = Path(__file__).parent / "golden"


def _english_with_other_files() -> dict[str, Any]:
    """A student of an English teacher with a licence of its own and random first weights."""
    card = {"language": "en", "license": "other", "license_name": "My | licence", "license_link": "LICENSE"}
    return changed(
        name="small_bert",
        teacher={"model": "google-bert/bert-base-cased", "revision": "cd5ef92a9fb2f889e972770a36d4ed042daf221e"},
        card={**card, "method": "distilbert", "title": None, "authors": [], "datasets": [], "teacher_license": "a_b*"},
        publish={"repo_id": None},
    )


@pytest.mark.parametrize("name", ["base", "minimal", "english"])
def test_cards_are_the_golden_ones(name: str, tmp_path: Path) -> None:
    """base has every report, minimal none; english has tasks and speed on a GPU, and no training report."""
    if name == "base":
        folder = write_run(tmp_path)
    elif name == "minimal":
        bare = {"language": "ru", "license": "mit"}
        recipe = {**changed(name="bare", publish={"repo_id": None}), "card": bare}
        without = (*REPORTS, "corpus/manifest.json", "onnx/model.onnx", "onnx/model_quantized.onnx", "modules.json")
        folder = write_run(tmp_path, recipe, without=without)
    else:
        folder = write_run(tmp_path, _english_with_other_files(), without=("training", "parity"))
    card = write_card(folder).read_text(encoding="utf-8")
    golden = GOLDEN / f"{name}.md"
    if os.environ.get("DISTILRUBERT_UPDATE_GOLDEN"):
        golden.write_text(card, encoding="utf-8")
    assert card == golden.read_text(encoding="utf-8")


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


def test_the_method_is_what_the_recipe_says_whatever_the_names(tmp_path: Path) -> None:
    """A Russian model with "rubert" in its name does not have the losses of DistilRuBERT for that."""
    assert "rubert" in RECIPE["name"]
    other = write_card(write_run(tmp_path / "other", changed(card={"method": "distilbert"}))).read_text()
    assert "first DistilRuBERT" not in other
    assert "@misc{sanh2019distilbert," in other
    assert "first DistilRuBERT" in write_card(write_run(tmp_path / "own")).read_text()


def test_links_lead_to_the_hub_that_the_model_goes_to(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example.org/")
    card = write_card(run_folder).read_text(encoding="utf-8")
    assert "(https://hub.example.org/DeepPavlov/rubert-base-cased-conversational)" in card
    assert "url    = {https://hub.example.org/me/distilrubert-base}" in card
    assert "huggingface.co" not in card
    card = write_card(run_folder, endpoint="https://other.example.org").read_text(encoding="utf-8")
    assert "(https://hub.example.org/DeepPavlov/rubert-base-cased-conversational)" in card  # where it was loaded from
    assert "url    = {https://other.example.org/me/distilrubert-base}" in card


def test_the_card_leads_to_the_page_that_is_published_with_the_model(tmp_path: Path) -> None:
    publish = {"repo_id": "me/distilrubert-base", "space": True}
    for changes, address in (
        ({}, "https://huggingface.co/spaces/me/distilrubert-base"),
        ({"repo_id": None}, None),
        ({"space": False}, None),
    ):
        run = write_run(tmp_path / str(address), {**RECIPE, "publish": {**publish, **changes}})
        card = write_card(run).read_text(encoding="utf-8")
        assert re.findall(r"\[Try it in your browser\]\((.+)\)", card) == ([address] if address else [])


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


def test_a_speed_report_of_one_start_has_no_spread(run: CardInput) -> None:
    assert run.speed is not None
    old = [dataclasses.replace(row, values={**row.values, "starts": 1}) for row in run.speed.rows]
    card = render_card(dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=old)))
    assert not any("±" in cell for row in _table(card, "Speed") for cell in row)
    assert _table(card, "Speed")[-1][1:] == ["129", "0.118", "7.74", "5.70", "5.02"]


def test_gpu_columns_stand_beside_the_cpu_where_measured(run: CardInput) -> None:
    assert run.speed is not None
    on_gpu = dataclasses.replace(
        run.speed.rows[0], case="teacher-pytorch-fp32-cuda", values={"latency_s": 0.031, "samples_per_s": 36.4902}
    )
    where = dataclasses.replace(run.speed.environment, gpu="NVIDIA H100")
    assert "H100" not in render_card(dataclasses.replace(run, speed=dataclasses.replace(run.speed, environment=where)))
    speed = dataclasses.replace(run.speed, environment=where, rows=[*run.speed.rows, on_gpu])
    card = render_card(dataclasses.replace(run, speed=speed))
    head, teacher, student, *_ = _table(card, "Speed")
    cells = dict(zip(head, teacher, strict=True))
    assert (cells["GPU latency, s"], cells["GPU throughput, samples/s"]) == ("0.0310", "36.5")
    assert student[head.index("GPU latency, s")] == "–"
    assert "and NVIDIA H100, " in card


def test_a_file_in_16_bits_is_marked(run: CardInput) -> None:
    assert run.speed is not None
    teacher, *others = run.speed.rows
    # 177,853,440 parameters of two bytes.
    half = dataclasses.replace(teacher, values=teacher.values | {"size_mib": 339.3})
    card = render_card(dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=[half, *others])))
    _, teacher_cells, *students = _table(card, "Speed")
    assert teacher_cells[:2] == ["Teacher, PyTorch fp32", "339 (16-bit)"]
    assert not any("16-bit" in cells[1] for cells in students)


def test_values_in_different_vocabularies_are_marked(run: CardInput) -> None:
    assert run.quality is not None
    teacher, student, *files = run.quality.rows
    compared = {"kl_to_teacher_nats", "teacher_agreement", "mean_hidden_cosine"}
    own = dataclasses.replace(
        student, values={name: value for name, value in student.values.items() if name not in compared}
    )
    quality = dataclasses.replace(run.quality, rows=[teacher, own, *files])
    card = render_card(dataclasses.replace(run, quality=quality))
    measures = {cells[0]: cells[1:3] for cells in _table(card, "Quality")}
    assert measures["Held-out text, not comparable: pseudo-perplexity (lower is better)"] == ["15.9", "22.4"]
    assert not any(name.startswith("Held-out text: ") for name in measures)
    assert "not comparable" not in render_card(run)


def test_a_student_that_is_not_faster_has_no_fastest_file(run: CardInput) -> None:
    assert run.speed is not None
    assert "latency is 5.70 times lower" in render_card(run)
    slower = [dataclasses.replace(row, values=row.values | {"latency_ratio": 0.9}) for row in run.speed.rows]
    slow = dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=slower))
    assert "fastest file" not in render_card(slow)
    crowded = [dataclasses.replace(row, values=row.values | {"throughput_ratio": 0.8}) for row in run.speed.rows]
    card = render_card(dataclasses.replace(run, speed=dataclasses.replace(run.speed, rows=crowded)))
    assert "teacher in PyTorch.**" in card


@pytest.mark.parametrize(
    ("report", "sections"),
    [
        ("training", {"Environmental cost"}),
        ("speed", {"Speed"}),
        ("quality", {"Quality"}),
        ("parity", {"Agreement of the files"}),
    ],
)
def test_a_section_without_its_report_is_left_out(tmp_path: Path, report: str, sections: set[str]) -> None:
    complete = (GOLDEN / "base.md").read_text(encoding="utf-8")
    card = write_card(write_run(tmp_path, without=(report,))).read_text(encoding="utf-8")
    assert set(_headings(complete)) - set(_headings(card)) == sections
    assert f"reports/{report}.json" in complete
    assert f"reports/{report}.json" not in card
    assert f"assets/{report}.png" not in card


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
    sizes = {name: len(text) / 2**20 for name, text in HUB_FILES.items()}
    reports = [derive(Measurements.from_dict(report)).to_dict() for report in REPORTS.values()]
    for leaf in _leaves([RECIPE, CONFIG, MANIFEST, *reports, sizes]):
        if isinstance(leaf, str):
            known |= _digits(leaf)
            continue
        for written in (number, count, short_count, score, duration, cosine, "{:g}".format, "{:.3f}".format):
            known |= _digits(written(leaf)) | _digits(number(leaf, 2))
    known |= {
        "1.31",  # 177,853,440 / 135,445,755 parameters
        "4.92",  # 98,312.6 s at 180 W, kWh
        "32,768",  # 4,096 tokens × 8 batches
        "5", "15",  # warm-up and masking in percent
        "1", "3", "8", "10", "12",  # layers 0, 2, 4, 7, 9, 11 counted from one
    }  # fmt: skip
    assert _digits(prose) - known == set()


def test_links_and_pictures_are_files_of_the_repository(run_folder: Path) -> None:
    card = write_card(run_folder).read_text(encoding="utf-8")
    targets = [token.attrs.get("src") or token.attrs.get("href") for token in _tokens(card)]
    local = {str(target) for target in targets if target and not str(target).startswith("https://")}
    assert {"assets/speed.png", "assets/training.png", "assets/quality.png", "CITATION.bib"} <= local
    assert [target for target in local if not (run_folder / "hub" / target).is_file()] == []


def test_paths_of_the_machine_are_not_published(tmp_path: Path) -> None:
    recipe = changed(teacher={"model": "/home/anna/models/teacher"})
    path = write_card(write_run(tmp_path, recipe))
    card = path.read_text(encoding="utf-8")
    assert "/home/anna" not in card + (path.parent / "reports/card.json").read_text(encoding="utf-8")
    assert "distilled from teacher." in card
    assert "base_model" not in ModelCard(card).data.to_dict()


def test_data_sets_have_their_commits(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    path = folder / "corpus" / "manifest.json"
    origins = [{"dataset": "me/talk", "revision": "c" * 40}, {"dataset": "me/more", "revision": None}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sources": [{"origins": origins}]}), encoding="utf-8")
    assert "The text comes from `me/talk@cccccccccccc` and `me/more`." in write_card(folder).read_text(encoding="utf-8")


def test_a_teacher_of_the_recipes_own(tmp_path: Path) -> None:
    recipe = changed(teacher={"model": None, "pretrain": {"layers": 12}})
    folder = write_run(tmp_path, recipe)
    own = (folder / "reports" / "training.json").read_text(encoding="utf-8").replace("distillation", "pretraining")
    (folder / "reports" / "pretraining.json").write_text(own, encoding="utf-8")
    card = write_card(folder).read_text(encoding="utf-8")
    assert "distilled from a BERT trained on the same corpus." in card
    assert "The teacher was trained first, on the same corpus: 27.3 hours" in card
    assert "**9.83 kWh**" in card  # twice 98,312.6 s at 180 W
    # The next recipe takes a teacher that is there already; the report on the former one stays in the run's folder.
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, allow_unicode=True), encoding="utf-8")
    card = write_card(folder).read_text(encoding="utf-8")
    assert "The teacher was trained first" not in card
    assert "**4.92 kWh**" in card
    assert not (folder / "hub" / "reports" / "pretraining.json").exists()


def test_only_files_of_the_repository_are_explained(run: CardInput) -> None:
    files = {"config.json": 1, "model.safetensors": 2**20, "openvino/openvino_model.xml": 1}
    card = render_card(dataclasses.replace(run, files=files | {"openvino/openvino_model.bin": 2**20}))
    assert 'subfolder="openvino", file_name="openvino_model.xml"' in card
    assert "### ONNX Runtime" not in card
    assert "### Sentence Transformers" not in card
    assert "Int8 files" not in card
    assert "openvino" in (ModelCard(card).data.tags or [])
    assert "### OpenVINO" not in render_card(run)


def test_files_that_fill_masks_return_logits(run: CardInput) -> None:
    assert run.parity is not None
    parity = dataclasses.replace(run.parity, details=run.parity.details | {"task": "fill-mask"})
    card = render_card(dataclasses.replace(run, parity=parity))
    assert "compares the logits" in card
    assert "ORTModelForMaskedLM" in card
    assert "ORTModelForMaskedLM" not in render_card(run)


def test_code_in_the_card_is_python(run: CardInput) -> None:
    blocks = re.findall(r"```python\n(.*?)```", render_card(run), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        ast.parse(block)


def test_runtimes_that_were_not_measured_have_no_version(run: CardInput) -> None:
    assert run.speed is not None
    versions = run.speed.environment.versions | {"openvino": "2026.4.0"}
    where = dataclasses.replace(run.speed.environment, versions=versions)
    speed = dataclasses.replace(run.speed, environment=where)
    card = render_card(dataclasses.replace(run, speed=speed))
    assert "transformers 4.57.6 and onnxruntime 1.32.0." in card
    in_openvino = dataclasses.replace(run.speed.rows[-1], case="student-openvino-int8")
    card = render_card(dataclasses.replace(run, speed=dataclasses.replace(speed, rows=[*speed.rows, in_openvino])))
    assert "onnxruntime 1.32.0 and openvino 2026.4.0." in card


def test_a_bag_of_words_that_is_ahead_of_the_teacher_is_explained(run: CardInput) -> None:
    assert run.quality is not None
    assert "bag of words, a linear model" not in render_card(run)
    quality = copy.deepcopy(run.quality)
    quality["bag-of-words"].values["tasks"]["rusentiment"]["f1_weighted"]["mean"] = 0.8
    assert "On RuSentiment the bag of words, a linear model" in render_card(dataclasses.replace(run, quality=quality))


def test_hardware_counts_the_gpus(run: CardInput) -> None:
    assert run.training is not None
    environment = dataclasses.replace(run.training.environment, gpu="NVIDIA H100")
    row = dataclasses.replace(run.training.rows[0], values=run.training.rows[0].values | {"processes": 8})
    training = dataclasses.replace(run.training, environment=environment, rows=[row])
    assert "on 8 × NVIDIA H100, in bf16" in render_card(dataclasses.replace(run, training=training))


def test_a_pruned_student_says_on_what(run: CardInput) -> None:
    assert run.training is not None
    start = {"layers": [0, 5], "teacher_layers": 12, "pruned_on_texts": 1512}
    training = dataclasses.replace(run.training, details=run.training.details | {"initialisation": start})
    card = render_card(dataclasses.replace(run, training=training))
    assert (
        "starts from layers 1 and 6 of the teacher's 12 (the first layer is 1), pruned to the parts that change the "
        "teacher's output most on 1,512 texts, and learns"
    ) in card


def test_a_student_in_its_second_phase_tells_of_both(run: CardInput) -> None:
    assert run.training is not None
    before = {
        "name": "me/first",
        "max_length": 128,
        "steps": 12_000,
        "tokens": 135_445_755,
        "losses": {"kl": 5.0, "mlm": 2.0},
        "initialisation": {"layers": [0, 5], "teacher_layers": 12},
    }
    commit = "c" * 40
    start = {"start_from": {"name": "me/first", "id": "me/first", "commit": commit}, "phases": [before]}
    details = run.training.details | {"initialisation": start, "max_length": 512}
    card = render_card(dataclasses.replace(run, training=dataclasses.replace(run.training, details=details)))
    assert f"starts from the finished student `me/first` (commit `{commit}`) and learns" in card
    values = run.training.rows[0].values
    rows = [
        "| 1 | layers 1 and 6 of the teacher's 12 (the first layer is 1) | kl 5, mlm 2 | 128 | "
        "12,000 | 135.4 million |",
        f"| 2 | the finished student `me/first` (commit `{commit}`) | kl 5, mlm 2, cosine 1 | 512 | "
        f"{values['steps']:,} | {values['tokens'] / 1e6:.1f} million |",
    ]
    assert "\n".join(rows) in card
    # Of a start that has no reports nothing more is known.
    alone = run.training.details | {"initialisation": {"start_from": {"name": "x"}, "phases": []}}
    card = render_card(dataclasses.replace(run, training=dataclasses.replace(run.training, details=alone)))
    assert "starts from the finished student `x` and learns" in card
    assert "| Phase |" not in card


def test_values_cannot_break_the_card(run: CardInput) -> None:
    odd = with_settings(
        run,
        title="A | *b* <script>",
        example='Он "сказал" [MASK]',
        teacher_license="[x](javascript:alert)",
        corpus_license="a\n# b",
        license="other",
        license_name="mine](x)",
        license_link="LICENSE",
    )
    teacher = odd.facts.teacher.model_copy(update={"name": "x](y) [z"})
    facts = odd.facts.model_copy(update={"teacher": teacher})
    card = render_card(dataclasses.replace(odd, facts=facts))
    texts = [token.content for token in _tokens(card) if token.type == "text"]
    assert "A | *b* <script>" in texts
    assert "x](y) [z" in texts
    assert any("[x](javascript:alert)" in text for text in texts)
    assert any("a # b" in text for text in texts)
    links = [token.attrs["href"] for token in _tokens(card) if token.type == "link_open"]
    assert "LICENSE" in links
    assert not any("javascript" in str(link) or link in ("x", "y") for link in links)
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
    with pytest.raises(UserError, match=r"recipe.yaml: the recipe of a run cannot be read: No such file"):
        write_card(tmp_path)
    run = write_run(tmp_path / "run", changed(card={"license": "Apache 2"}))
    with pytest.raises(UserError, match=r"recipe.yaml: card.license: .*apache-2.0"):
        write_card(run)
    without_teacher = {key: value for key, value in RECIPE.items() if key != "teacher"}
    for recipe, said in (
        ([1], "is a mapping of keys to values, found a list"),
        (without_teacher, "no resolved recipe"),
    ):
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        with pytest.raises(UserError, match=said):
            write_card(run)
    run = write_run(tmp_path / "broken")
    (run / "reports" / "speed.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"speed.json: is no measurement file"):
        write_card(run)
    (run / "hub" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        write_card(run)


def test_the_facts_of_a_card_are_read_again_as_they_were_written(run: CardInput, run_folder: Path) -> None:
    assert card_input(run_folder).facts == run.facts


OTHER_SIZES = {"num_hidden_layers": 6, "num_attention_heads": 12, "hidden_size": 384, "intermediate_size": 1536}


def _of_another_class(run: CardInput, architecture: str) -> CardInput:
    """The run of a student of the RoBERTa family, whose positions begin at the third row."""
    config = {
        "model_type": "xlm-roberta", "architectures": [architecture], "vocab_size": 250_002,
        "max_position_embeddings": 514, **OTHER_SIZES,
    }  # fmt: skip
    return dataclasses.replace(run, config=config, tokenizer={"model_max_length": 512, "mask_token": "<mask>"})


def test_a_card_states_the_sizes_of_every_family(run: CardInput) -> None:
    card = render_card(_of_another_class(run, "XLMRobertaForMaskedLM"))
    assert "is a masked language model for Russian of the class `XLMRobertaForMaskedLM`." in card
    assert (
        "6 layers with 12 attention heads, 384-dimensional hidden states and feed-forward layers of width 1,536" in card
    )
    assert "An input has at most 512 tokens." in card
    data = ModelCard(card).data
    assert data.pipeline_tag == "fill-mask"
    assert data.tags[0] == "xlm-roberta"
    assert [entry["text"].count("<mask>") for entry in data.widget] == [1]
    assert "[MASK]" not in card


def test_the_card_of_an_encoder_promises_no_predictions(run: CardInput) -> None:
    card = render_card(_of_another_class(run, "XLMRobertaModel"))
    assert "is an encoder for Russian of the class `XLMRobertaModel`." in card
    data = ModelCard(card).data
    assert data.pipeline_tag == "feature-extraction"
    assert data.get("widget") is None
    assert not re.search(r"fill.?mask|filling masks|<mask>|\[MASK\]|pipeline\(", card)
    assert "AutoModel.from_pretrained" in card


def _suite(absent: list[str]) -> dict[str, Any]:
    def scores(sts: float, sa: float) -> dict[str, Any]:
        similarity = {"mean": {"spearman": sts}, "cls": {"spearman": 0.1}}
        return {"sts": similarity, **({} if absent else {"sa": {"mean, nearest-neighbours": {"accuracy": sa}}})}

    tasks = {
        "sts": {"title": "Similarity", "metric": "spearman"},
        "sa": {"title": "Sentiment", "metric": "accuracy"},
    }
    details = {
        "suite": {"title": "Encodechka", "published": {"other/model": 0.7}},
        "tasks": {name: task for name, task in tasks.items() if name not in absent},
        "absent": absent,
    }
    rows = [
        {"case": case, "scores": scores(*values), "ratio": None}
        for case, values in {"teacher": (0.82, 0.76), "student-onnx-int8": (0.8, 0.7)}.items()
    ]
    return {"environment": REPORTS["speed"]["environment"], "baseline": "teacher", "details": details, "rows": rows}


@pytest.mark.parametrize("absent", [[], ["sa"]])
def test_vectors_of_sentences_are_compared_with_published_means_of_all_tasks_alone(
    absent: list[str], tmp_path: Path
) -> None:
    folder = write_run(tmp_path)
    (folder / "reports" / "suite.json").write_text(json.dumps(_suite(absent)), encoding="utf-8")
    card = write_card(folder).read_text(encoding="utf-8")
    table = _table(card, "Vectors of sentences")
    if absent:
        assert table == [["Model", "sts", "Mean of 1"], ["Teacher", "0.820", "0.820"], [table[2][0], "0.800", "0.800"]]
        assert "their data was not there: sa." in card
    else:
        assert [row[1:] for row in table[1:3]] == [["0.820", "0.760", "0.790"], ["0.800", "0.700", "0.750"]]
        assert table[3] == ["other/model", "–", "–", "0.700"]
        assert "Means without scores are those that others have published." in card
    assert table[2][0].startswith("This model, ONNX Runtime int8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report["details"]["tasks"].pop("sa"), r"teacher has scores of sts, sa; details\.tasks: sts"),
        (lambda report: report["rows"][0]["scores"]["sts"].clear(), r"rows\.0\.scores\.sts: "),
        (
            lambda report: report["rows"][0]["scores"].update(sts={"mean": {"f1": 0.5}}),
            "teacher has scores of sts without its metric, spearman",
        ),
    ],
)
def test_a_report_on_a_suite_of_another_form_is_told(change: Any, said: str, tmp_path: Path) -> None:
    report = _suite([])
    change(report)
    write_json(tmp_path / "reports" / "suite.json", report)
    with pytest.raises(UserError, match=rf"suite\.json: {said}"):
        read_reports(tmp_path)
