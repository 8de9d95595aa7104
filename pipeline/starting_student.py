"""The checkpoint that a student starts from in place of its teacher: for a second phase, or for a task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.model_card.report_forms import FORMS
from distilrubert.modeling.checkpoints import read_fast_tokenizer, read_model_config
from distilrubert.modeling.downloads import checkpoint_folder, description_folder, report_folder
from distilrubert.modeling.families import family_of
from distilrubert.modeling.student import Student, load_student
from distilrubert.modeling.tokenizer_files import student_tokenizer
from distilrubert.modeling.trimming import ids_in, trim_model
from distilrubert.pipeline.commits import commit_of
from distilrubert.pipeline.run import Run


def starting_folder(run: Run) -> Path:
    """The folder of `student.start_from`, downloaded first where that is a Hub id."""
    named = _named(run)
    return checkpoint_folder(named, commit_of(run, named))


def starting_config(run: Run) -> PretrainedConfig:
    """The configuration of that checkpoint.

    Raises:
        UserError: as :func:`~distilrubert.modeling.checkpoints.read_model_config`.
    """
    named = _named(run)
    return read_model_config(description_folder(named, commit_of(run, named)), named)


def starting_tokenizer(run: Run) -> PreTrainedTokenizerFast:
    """Its tokenizer, by its files alone."""
    named = _named(run)
    return read_fast_tokenizer(description_folder(named, commit_of(run, named)), named)


def starting_student(run: Run, teacher: PretrainedConfig) -> Student:
    """The finished student that a second phase starts from, without embeddings of tokens that it does not have.

    Raises:
        UserError: if it is no student, none of this teacher's family, or in the directory of the run itself.
    """
    named = _named(run)
    if Path(named).is_dir() and Path(named).resolve().is_relative_to(run.folder.resolve()):
        raise UserError(
            f"student.start_from: {named} is in the directory of this run; give the second phase one of its own"
        )
    try:
        student = load_student(named, commit_of(run, named))
    except UserError as error:
        raise UserError(f"student.start_from: {error}") from error
    found, allowed = student.model.config.model_type, family_of(teacher).students.model_types
    if found not in allowed:
        raise UserError(
            f"student.start_from: {named}: config.json says model_type {found!r}; a student of a "
            f"{family_of(teacher).title} is {', '.join(allowed)}"
        )
    model, tokenizer = student.model, student.tokenizer
    if model.config.vocab_size > len(tokenizer):
        model = trim_model(model, ids_in(tokenizer, tokenizer))
    return Student(model, student_tokenizer(tokenizer))


def describe_start(run: Run) -> dict[str, Any]:
    """For the training report: the checkpoint's ``start_from``, and the ``phases`` that made it, as far as is known.

    ``start_from`` has its name, and of one on the Hub ``id`` and ``commit``. Each of the phases, the first one first,
    has what its own report and card say of it.
    """
    named = _named(run)
    is_here = Path(named).is_dir()
    commit = commit_of(run, named)
    phase = _phase_of(starting_folder(run) if is_here else report_folder(named, commit))
    start = {"name": phase.get("name", Path(named).name)} if is_here else {"name": named, "id": named, "commit": commit}
    return _after(phase, start)


def describe_general_start(run: Run) -> dict[str, Any]:
    """The same of a student for a task that starts from the one which the run has distilled on its corpus."""
    phase = _phase_of(run.student)
    return _after(phase, {"name": phase.get("name", run.recipe.name)})


def _after(phase: dict[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    before = phase.get("initialisation") or {}
    return {"start_from": start, "phases": [*before.pop("phases", []), phase] if phase else []}


def _phase_of(folder: Path) -> dict[str, Any]:
    """What the reports of a student say of how it was made; empty where there are none."""
    # A run directory has them beside the student, a published folder in it.
    folders = (folder / "reports", folder.resolve().parent / "reports")
    training = next((found for each in folders if (found := each / "training.json").is_file()), None)
    if training is None:
        return {}
    report = read_json(training)
    stated_settings(FORMS["training"], report, training, "")
    values, details = report["rows"][0], report["details"]
    return {
        **{key: details[key] for key in ("name", "max_length") if key in details},
        **{key: values[key] for key in ("steps", "tokens")},
        "losses": {name: loss["weight"] for name, loss in details["losses"].items()},
        "initialisation": details.get("initialisation"),
    }


def _named(run: Run) -> str:
    named = run.recipe.student.start_from
    assert named is not None
    return named
