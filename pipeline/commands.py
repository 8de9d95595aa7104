"""What each command of the command line does."""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError
from distilrubert.common.hub_address import hub_endpoint
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.model_folder import convert as convert_model
from distilrubert.conversion.parity import default_sentences
from distilrubert.evaluation.evaluation_settings import FinetuningSettings, QualitySettings
from distilrubert.evaluation.speed.benchmark import cases_of, measure_speed
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.task import load_tasks
from distilrubert.model_card.card import write_card
from distilrubert.model_card.preview import write_preview
from distilrubert.modeling.checkpoints import checkpoint_folder, repository_folder
from distilrubert.pipeline.checks import check_before_work
from distilrubert.pipeline.exporting import exporters_of
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.hub.findings import render_findings
from distilrubert.pipeline.hub.plan import PushPlan, folder_as_json, plan_push, render_folder, render_plan
from distilrubert.pipeline.hub.preflight import preflight
from distilrubert.pipeline.hub.push import Publication, push, render_publication
from distilrubert.pipeline.hub.verify import Verification, render_verification, verify_folder, verify_push
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.recipe import ExportedSettings, Recipe, load_recipe, overridden, validated
from distilrubert.pipeline.run import Run, bring_up_to_date, locked
from distilrubert.pipeline.stages import stages_of, training_stages_of
from distilrubert.pipeline.stamps import Stamps
from distilrubert.pipeline.status import DONE, FAILED, USER_ERROR
from distilrubert.pipeline.summary import next_steps, parity_table, print_tables, quality_table, short_path, speed_table
from distilrubert.pipeline.verification.repository import (
    Wanted,
    all_hold,
    check_claims,
    claims_as_json,
    claims_table,
    summary,
)

S = TypeVar("S", bound=Section)


def check_hub() -> None:
    """Refuse an HF_ENDPOINT that is not safe to send a token to."""
    hub_endpoint()


def distill(options: argparse.Namespace) -> None:
    """Bring a run up to the finished student checkpoint."""
    run = _run(load_recipe(options.recipe, options.overrides), options.run_dir)
    check_before_work(run)
    bring_up_to_date(run, training_stages_of(run), ends_run=False)
    if run.launch.leads:
        print(f"The student is in {run.student}")


def convert(options: argparse.Namespace) -> None:
    """Export one model."""
    settings = _of_options(
        ConversionSettings, {"onnx": options.onnx, "openvino": options.openvino, "task": options.export_task}
    )
    sentences = _lines(options.sentences) if options.sentences else default_sentences()
    quantized = any(name.startswith("int8") for name in (*settings.onnx, *settings.openvino))
    # What the ranges of activations were seen on proves nothing about other text.
    calibration, proof = (sentences[::2], sentences[1::2]) if quantized else ([], sentences)
    if not proof:
        raise UserError(
            f"--sentences {options.sentences}: too few; one is needed to compare the files on"
            f"{', and another one to calibrate int8 on' if quantized else ''}"
        )
    parity = convert_model(options.model, options.output, settings, proof, calibration)
    parity.save(options.output / "reports" / "parity.json")
    Console().print(parity_table(parity))
    others = f"; int8 was calibrated on {parity.details['int8']['calibration_sentences']} others" if quantized else ""
    advice = "" if options.sentences else " (which came with the program; --sentences FILE takes your own)"
    print(f"Compared on {len(proof)} sentences{others}{advice}")


def _of_options(section: type[S], values: Mapping[str, Any]) -> S:
    """Settings that stand in options of the same names; a mistake is told of the option."""
    try:
        return validated(section, values)
    except UserError as error:
        raise UserError(re.sub(r"^(\w+)(\.\d+)?", lambda name: f"--{name[1].replace('_', '-')}", str(error))) from None


def _check_output(path: Path) -> None:
    # Before minutes or hours of measuring.
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file to write")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"--output {path}: cannot be written: {above} is no folder that can be written to")


def evaluate(options: argparse.Namespace) -> None:
    """Fine-tune one model on tasks."""
    _check_output(options.output)
    if options.probe and (options.onnx or options.openvino):
        raise UserError("--probe: scores the checkpoint alone; leave --onnx and --openvino out")
    exported = _of_options(ExportedSettings, {"onnx": options.onnx, "openvino": options.openvino})
    finetuning = validated(FinetuningSettings, overridden({}, options.overrides))
    tasks = load_tasks(options.task)
    quality = measure_quality(
        {"model": checkpoint_folder(options.model)},
        [] if options.probe else tasks,
        _of_options(QualitySettings, {"seeds": options.seeds, "finetuning": finetuning}),
        held_out=[],
        # Beside the output, so that the same command continues where it was stopped.
        cache_folder=options.output.with_name(f"{options.output.stem}.scores"),
        exporters={"model": exporters_of(exported.cases)},
        processes=options.processes,
        probed=tasks if options.probe else [],
    )
    quality.save(options.output)
    Console().print(quality_table(quality))


def benchmark(options: argparse.Namespace) -> None:
    """Measure the speed of models, file by file."""
    _check_output(options.output)
    settings = validated(
        SpeedSettings,
        {
            "sequence_length": options.sequence_length,
            "batch_sizes": options.batch_size,
            "threads": options.threads,
            "device": options.device,
        },
    )
    names = [Path(model).resolve().name for model in options.models]
    if len(set(names)) < len(names):
        names = options.models
    # From the Hub with all files, since each is measured.
    folders = [repository_folder(model) for model in options.models]
    cases = [case for name, folder in zip(names, folders, strict=True) for case in cases_of(name, folder)]
    speed = measure_speed(cases, settings)
    speed.save(options.output)
    Console().print(speed_table(speed))


def card(options: argparse.Namespace) -> None:
    """Render a run's card again."""
    if not options.run_dir.is_dir():
        raise UserError(f"{options.run_dir}: there is no such run directory")
    stamps = Stamps(options.run_dir)
    with locked(options.run_dir):
        # What the card tells of, and of one and the same student.
        stamps.check_coherent(("student", "conversion", "speed", "quality"))
        # Its recipe may be another one than that of the card's stamp: whoever goes on with that writes it again.
        stamps.reopen("card")
        path = write_card(options.run_dir)
    print(f"The card is in {path}")
    if options.preview:
        print(f"A preview is in {write_preview(options.run_dir / 'hub')}")


def verify(options: argparse.Namespace) -> int:
    """Look into everything that a model repository claims."""
    if not options.tolerance > 0:
        raise UserError(f"--tolerance {options.tolerance:g}: a share above 0 is needed, for example 0.3")
    wanted = Wanted(
        teacher=checkpoint_folder(options.teacher) if options.teacher else None,
        speed=options.speed,
        tolerance=options.tolerance,
        tasks=load_tasks(options.task),
        seeds=_of_options(QualitySettings, {"seeds": options.seeds}).seeds if options.seeds else None,
        processes=options.processes,
    )
    claims = []
    try:
        for claim in check_claims(repository_folder(options.model, options.revision), wanted):
            claims.append(claim)
    except (UserError, KeyboardInterrupt):
        # It may have taken hours to reach them.
        if claims and not options.json:
            Console().print(claims_table(claims))
        raise
    if options.json:
        print(claims_as_json(claims))
    else:
        Console().print(claims_table(claims))
        print(summary(claims))
    return DONE if all_hold(claims) else FAILED


def publish(options: argparse.Namespace) -> int:
    """Bring a run up to the card, then push its model repository."""
    recipe = load_recipe(options.recipe, [*options.overrides, *_publishing(options)])
    run = _run(recipe, options.run_dir)
    if options.verify_only:
        verification = verify_folder(run.hub, recipe.publish, options.endpoint)
        _show(render_verification(verification), options, verification=verification)
        return DONE
    check_before_work(run, push=recipe.publish.repo_id is not None, endpoint=options.endpoint)
    if run.launch.processes > 1:
        bring_up_to_date(run, training_stages_of(run), ends_run=False)
        if not run.launch.leads:
            return DONE
        run.launch.go_on_alone()
    # Up to the end: what is published has to be what was looked into before.
    with locked(run.folder):
        bring_up_to_date(run, stages_of(run))
        if not options.json:
            print_tables(run)
        if recipe.publish.repo_id is not None:
            return _push(run, options)
    said = f"{render_folder(run.hub)}\n{next_steps(run, _same_run(run, options))}"
    print(json.dumps(folder_as_json(run.hub)) if options.json else said)
    return DONE


def _same_run(run: Run, options: argparse.Namespace) -> list[str]:
    """The arguments that name this run: with other settings the command would make another one."""
    if options.overrides or options.run_dir:
        folder = short_path(run.folder)
        return [str(folder / "recipe.yaml"), "--run-dir", str(folder)]
    return [str(short_path(options.recipe))]


def _push(run: Run, options: argparse.Namespace) -> int:
    """Check the folder, compare it with the Hub, and unless it is a dry run commit it and read it back."""
    findings = preflight(run.hub)
    if findings:
        print(render_findings(findings), file=sys.stderr)
        return USER_ERROR
    connection = connect(run.recipe.publish, options.endpoint)
    plan = plan_push(run.hub, run.recipe.publish, connection)
    if options.dry_run:
        _show(render_plan(plan), options, plan=plan)
        return DONE
    publication = push(plan, connection)
    verification = verify_push(plan.digests, connection, publication.revision)
    said = f"{render_publication(publication)}\n{render_verification(verification)}"
    _show(said, options, plan=plan, publication=publication, verification=verification)
    return DONE


def _show(text: str, options: argparse.Namespace, **results: PushPlan | Publication | Verification) -> None:
    """Print the results for a person, or for a machine."""
    print(json.dumps({name: result.to_dict() for name, result in results.items()}) if options.json else text)


def _publishing(options: argparse.Namespace) -> list[str]:
    """The command line's publishing options as overrides of the recipe."""
    given = {
        "repo_id": options.repo_id,
        "revision": options.revision,
        "private": options.private or None,
        "create_pr": options.create_pr or None,
        "tag": options.tag,
        "prune": options.prune or None,
    }
    # JSON is YAML, and quotes what would otherwise be read as a number or a mapping.
    return [f"publish.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]


def _run(recipe: Recipe, folder: Path | None) -> Run:
    return Run(recipe, (folder or Path("runs") / recipe.name).resolve(), Launch.of_this_process())


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--sentences {path}: cannot be read as UTF-8 text: {error}") from error
    return [line for line in lines if line]
