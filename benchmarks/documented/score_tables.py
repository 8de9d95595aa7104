"""Tables of scores on tasks."""

import statistics
from collections.abc import Iterator

from documented.view import Entry, Table, View, derived

from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.tasks.baselines import MAJORITY
from distilrubert.evaluation.tasks.significance import SIGNIFICANCE

INT8_FILES = {"onnx-int8": "ONNX int8", "openvino-int8": "OpenVINO int8"}
# README's rows of base: the title, and the file that each is of.
BASE = {
    "teacher": ("teacher: 12 layers × 384", None),
    "base": ("base: 6 layers × 384", "pytorch-fp32"),
    **{f"student-{file}": (f"base, {title}", file) for file, title in INT8_FILES.items()},
    "bag-of-words": ("bag of words", None),
    "majority-class": ("majority class", None),
}
BASE_TASKS = {"rusentiment": "f1_weighted", "factrueval": "span_f1", "paraphraser": "f1"}
# What knows words alone: of texts, and of taggers.
WORDS = ("bag-of-words", "word-tags")


def base_files(report: Measurements) -> Iterator[Entry]:
    """Every file of base with its size, its speed and its scores, the teacher and the baselines beside them."""
    base = report["base"].values
    for case, (title, file) in BASE.items():
        row: Entry = {"title": title}
        if case == "teacher":
            row |= {"mib": 4 * report[case].values["parameters"] / 2**20, "speed": 1.0}
        elif file:
            row |= {"mib": base["files_mib"][FORMATS[file].path], "speed": base["throughput_ratio"][file]}
        for task, metric in BASE_TASKS.items():
            if scores := report[case].values["tasks"].get(task):
                values = [100 * value for value in scores[metric]["values"]]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                row[task] = f"{statistics.fmean(values):.1f}{spread}"
        yield row


def suite(report: Measurements) -> str:
    """Encoders of sentences, with a column for each task."""
    tasks, absent = report.details["tasks"], report.details["absent"]
    names, mean = " | ".join(f"`{task}`" for task in tasks), f"mean of {len(tasks)}" if absent else "S"
    scores = " | ".join(f"{{best[{task}]:.3f}}" for task in tasks)
    return View(
        f"case | {names} | {mean} | MiB | tokenizer, MiB | vectors' cosine to fp32, p1 | updates | minutes",
        f"{{case}} | {scores} | {{mean_score:.3f}} | {{size_mib:.1f}} | {{tokenizer_mib:.1f}} "
        "| {vector_cosine_p1:.4f} | {updates:,} | {training_minutes:.0f}",
        derived,
    )(report)


def task_students(report: Measurements) -> Iterator[Entry]:
    """Scores of students of tasks beside those of what each is compared with."""
    values = {row.case: row.values for row in report.rows}
    for student, found in report.details["students"].items():
        task, _, layers = student.partition("-")
        cases = {"majority": f"{task}-{MAJORITY}", "teacher": f"{task}-teacher"}
        cases["words"] = next(case for name in WORDS if (case := f"{task}-{name}") in values)
        cases |= {name: f"{student}-{name}" for name in ("alone", "distilled", *INT8_FILES)}
        row: Entry = {
            name: 100 * statistics.fmean(values[case]["tasks"][task][found["metric"]]["values"])
            for name, case in cases.items()
        }
        p_value = found["comparison"]["p_value"] * len(report.details["students"])
        mark = " \\*" if p_value < SIGNIFICANCE else ""
        row["ahead"] = f"{100 * found['comparison']['difference']:+.1f}{mark}"
        row["kept"] = (row["distilled"] - row["majority"]) / (row["teacher"] - row["majority"])
        equal = " | ".join(f"{values[cases[file]]['equal_decisions']:.1%}" for file in INT8_FILES)
        yield {**row, "student": f"{task}, {layers} layers", "equal": equal}


def task_protocol(report: Measurements) -> str:
    """How many seeds there were, also where models differ in it, and what the marks mean."""
    seeds = sorted({len(found["calibration"]) for found in report.details["students"].values()})
    span = "one seed" if seeds == [1] else f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    return (
        f"Points of each task's main metric on the test part, {span} of each student. Words: a bag of words, for\n"
        "taggers the most frequent tag of each word. Equal: decisions that are the student's. \\* is a significant\n"
        f"difference (paired bootstrap over the test rows, corrected for {len(report.details['students'])} students)."
    )


def embedding_bits(report: Measurements) -> Iterator[Entry]:
    """Scores of a fine-tuned student and of its files, a line for each, with the difference to PyTorch."""
    by_file: dict[str, list[float]] = {}
    values = {}
    for row in report.rows:
        file = row.case.removeprefix(f"{row.values['task']}-")
        by_file.setdefault(file, []).append(100 * statistics.fmean(row.values["values"]))
        values[file] = row.values
    in_pytorch = next(iter(by_file.values()))
    for file, scores in by_file.items():
        points = (f"{own:.2f} ({own - other:+.2f})" for own, other in zip(scores, in_pytorch, strict=True))
        title, bits = INT8_FILES.get(values[file]["format"], "PyTorch fp32"), values[file]["embedding_bits"]
        yield {
            **values[file],
            "title": f"{title}, embeddings in {bits} bits" if bits else title,
            "points": " | ".join(points),
        }


VIEWS: dict[tuple[str, str], Table] = {
    ("reference/base", "files"): View(
        "model | weights, MiB | throughput, × | RuSentiment, weighted F1 | FactRuEval, span F1 | ParaPhraser, F1",
        "{title} | {mib:.1f} | {speed:.1f} | {rusentiment} | {factrueval} | {paraphraser}",
        base_files,
    ),
    ("embedding_bits", "rows"): View(
        "file | MiB | RuSentiment, weighted F1 | FactRuEval, span F1",
        "{title} | {size_mib:.1f} | {points}",
        embedding_bits,
        "Points on the test part, the mean of three fine-tunings; in brackets the difference to PyTorch.",
    ),
    ("sentences", "scores"): suite,
    ("task_students", "rows"): View(
        "student | majority class | words | teacher | alone | distilled | ahead by | gain kept "
        f"| {' | '.join(INT8_FILES.values())} | equal in ONNX | in OpenVINO",
        "{student} | {majority:.1f} | {words:.1f} | {teacher:.1f} | {alone:.1f} | {distilled:.1f} | {ahead} "
        "| {kept:.0%} | {onnx-int8:.1f} | {openvino-int8:.1f} | {equal}",
        task_students,
        task_protocol,
    ),
}
