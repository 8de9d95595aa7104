"""The commands that work on a model: convert, trim, evaluate, benchmark, verify."""

import argparse
from pathlib import Path

from distilrubert.common.checked_settings import kind_of, stated_settings
from distilrubert.common.configuration import expand_home
from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import check_output_folder, check_writable, read_json
from distilrubert.conversion.conversion_settings import ConversionSettings, ExportedSettings
from distilrubert.conversion.model_folder import convert as convert_model
from distilrubert.conversion.parity import default_sentences
from distilrubert.distill.corpus.corpus_settings import CorpusSettings, CorpusSource
from distilrubert.evaluation.evaluation_settings import FinetuningSettings, QualitySettings
from distilrubert.evaluation.sentences.frozen_vectors import Prompts
from distilrubert.evaluation.sentences.suite_scores import measure_suite
from distilrubert.evaluation.sentences.suites import load_suite
from distilrubert.evaluation.speed.benchmark import cases_of, measure_speed
from distilrubert.evaluation.speed.speed_settings import MEASURED_TEXTS, SpeedSettings
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.task import load_tasks
from distilrubert.model_card.inputs import file_sizes, read_facts
from distilrubert.model_card.tables import file_table, parity_table
from distilrubert.modeling.downloads import checkpoint_folder, module_folder, repository_folder
from distilrubert.modeling.sentence_modules import encoder_in
from distilrubert.modeling.vocabulary_settings import TrimSettings
from distilrubert.pipeline.exit_statuses import DONE, FAILED
from distilrubert.pipeline.exporting import check_exported, exporters_of
from distilrubert.pipeline.options import given, of_options, told_of_options
from distilrubert.pipeline.recipe import overridden
from distilrubert.pipeline.statement import all_hold, statements_as_json, summary
from distilrubert.pipeline.summary import (
    fastest_files,
    print_card_table,
    print_quality,
    print_speed,
    print_suite,
    print_vocabularies,
)
from distilrubert.pipeline.trimmed_model import trim_model_folder
from distilrubert.pipeline.verification.repository import Extent, check_repository


def convert(options: argparse.Namespace) -> None:
    """Export one model."""
    output: Path = options.output
    is_ours = (output / "reports" / "parity.json").is_file() or output.resolve() == Path(options.model).resolve()
    check_output_folder(output, is_ours=is_ours)
    settings = of_options(ConversionSettings, given(options, ConversionSettings))
    sentences = _lines("--sentences", options.sentences) if options.sentences else default_sentences()
    quantized = any(FORMATS[case].precision == "int8" for case in settings.cases)
    # What the ranges of activations were seen on proves nothing about other text.
    calibration, proof = (sentences[::2], sentences[1::2]) if quantized else ([], sentences)
    if not proof:
        raise UserError(
            f"--sentences {options.sentences}: too few; one is needed to compare the files on"
            f"{', and another one to calibrate int8 on' if quantized else ''}"
        )
    folder = module_folder(options.model)
    parity = convert_model(folder, output, settings, proof, calibration, encoder_in(folder))
    parity.save(output / "reports" / "parity.json")
    print_card_table("Files", file_table(file_sizes(output)))
    print_card_table("Agreement with the checkpoint", parity_table(derive(parity)))
    others = f"; int8 was calibrated on {parity.details['int8']['calibration_sentences']} others" if quantized else ""
    advice = "" if options.sentences else " (which came with the program; --sentences FILE takes your own)"
    print(f"Compared on {len(proof)} sentences{others}{advice}")


def _check_output(path: Path) -> None:
    # Before minutes or hours of measuring.
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file to write")
    check_writable(path)


def evaluate(options: argparse.Namespace) -> None:
    """Fine-tune one model on tasks, or score its vectors on a suite."""
    _check_output(options.output)
    if bool(options.task) == bool(options.suite):
        raise UserError("--task or --suite: name one of the two")
    report, show = (_suite_scores(options), print_suite) if options.suite else (_task_scores(options), print_quality)
    report.save(options.output)
    show(report)


def _task_scores(options: argparse.Namespace) -> Measurements:
    if options.probe and (options.onnx or options.openvino):
        raise UserError("--probe: scores the checkpoint alone; leave --onnx and --openvino out")
    if options.query_prompt is not None or options.document_prompt is not None:
        raise UserError("--query-prompt, --document-prompt: are for --suite")
    exported = of_options(ExportedSettings, given(options, ExportedSettings))
    finetuning = stated_settings(FinetuningSettings, overridden({}, options.overrides), "--set")
    settings = of_options(QualitySettings, {**given(options, QualitySettings), "finetuning": finetuning})
    tasks, folder = load_tasks(options.task), checkpoint_folder(options.model)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'}: a mapping of keys to values is needed, found {kind_of(config)}")
    check_exported(exported.cases, tasks, config.get("model_type", ""))
    return measure_quality(
        {"model": folder},
        [] if options.probe else tasks,
        settings,
        held_out=[],
        cache_folder=_cache_beside(options.output),
        exporters={"model": exporters_of(exported.cases)},
        processes=options.processes or 1,
        probed=tasks if options.probe else [],
    )


def _suite_scores(options: argparse.Namespace) -> Measurements:
    if options.probe or options.seeds or options.overrides or options.processes:
        raise UserError("--suite: fine-tunes nothing; leave --probe, --seeds, --set and --processes out")
    exported = of_options(ExportedSettings, given(options, ExportedSettings))
    suite = load_suite(options.suite)
    folder = repository_folder(options.model) if exported.cases else module_folder(options.model)
    prompts = None
    if options.query_prompt is not None or options.document_prompt is not None:
        prompts = Prompts(options.query_prompt or "", options.document_prompt)
    files = {"model": [FORMATS[case] for case in exported.cases]}
    return measure_suite({"model": folder}, suite, _cache_beside(options.output), files, prompts)


def _cache_beside(output: Path) -> Path:
    """Where finished scores are kept: the same command continues where it was stopped."""
    return output.with_name(f"{output.stem}.scores")


def benchmark(options: argparse.Namespace) -> None:
    """Measure the speed of models, file by file."""
    _check_output(options.output)
    settings = of_options(SpeedSettings, given(options, SpeedSettings) | {"texts": MEASURED_TEXTS})
    texts = _lines("--texts", options.text_file) if options.text_file else []
    if options.text_file and not texts:
        raise UserError(f"--texts {options.text_file}: holds no text")
    names = [Path(model).resolve().name for model in options.models]
    if len(set(names)) < len(names):
        names = options.models
    # From the Hub with all files, since each is measured.
    folders = [repository_folder(model) for model in options.models]
    cases = [case for name, folder in zip(names, folders, strict=True) for case in cases_of(name, folder)]
    with told_of_options(r"speed\.(\w+)"):
        speed = measure_speed(cases, settings, texts=texts)
    speed.save(options.output)
    print_speed(speed)
    print(fastest_files(speed))


def verify(options: argparse.Namespace) -> int:
    """Check every statement of a model repository."""
    if not options.tolerance > 0:
        raise UserError(f"--tolerance {options.tolerance:g}: a share above 0 is needed, for example 0.3")
    repository = repository_folder(options.model, options.revision)
    extent = Extent(
        teacher=_teacher_of(repository, options.teacher) if options.teacher else None,
        speed=options.speed,
        tolerance=options.tolerance,
        tasks=load_tasks(options.task),
        seeds=of_options(QualitySettings, given(options, QualitySettings)).seeds if options.seeds else None,
        processes=options.processes or 1,
    )
    if (options.seeds or options.processes) and not options.task:
        raise UserError("--seeds, --processes: are for --task")
    statements = []
    for statement in check_repository(repository, extent):
        statements.append(statement)
        if not options.json and (options.all or statement.verdict == "does not hold"):
            # At once: the next one may take hours.
            print(f"{statement.verdict}: {statement}", flush=True)
    print(statements_as_json(statements) if options.json else summary(statements))
    return DONE if all_hold(statements) else FAILED


def _teacher_of(repository: Path, teacher: str) -> Path:
    """The teacher's folder; of one on the Hub the commit that the card names, if that is of this model."""
    stated = read_facts(repository).get("teacher")
    if isinstance(stated, dict) and stated.get("id") == teacher:
        return checkpoint_folder(teacher, stated.get("commit"))
    return checkpoint_folder(teacher)


def trim(options: argparse.Namespace) -> None:
    """Write one model with a part of its vocabulary."""
    settings = of_options(TrimSettings, given(options, TrimSettings))
    column = given(options, CorpusSource)
    corpus = of_options(
        CorpusSettings,
        {
            "sources": [{"path": str(expand_home(path).absolute()), **column} for path in options.corpus],
            **given(options, CorpusSettings),
        },
    )
    with told_of_options("(corpus)(?=:)"):
        report = trim_model_folder(options.model, corpus, settings, options.output)
    print_vocabularies(report)
    print(f"The trimmed model is in {options.output}")


def _lines(option: str, path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{option} {path}: cannot be read: {reason}") from error
    return [line for line in lines if line]
