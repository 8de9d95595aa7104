"""Quality as a reader wants it: measure by measure, the models side by side."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from distilrubert.common.measurements import Measurements
from distilrubert.model_card.formatting import score

METRIC_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_weighted": "weighted F1",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "coefficient of determination",
    "ndcg_at_10": "nDCG@10",
    "matthews": "Matthews correlation",
    "span_f1": "span F1",
    "exact_match": "exact match",
    "answer_f1": "answer F1",
}

INTRINSIC_TITLES = {
    "masked_accuracy": "accuracy at masked tokens",
    "masked_cross_entropy_nats": "masked cross-entropy, nats (lower is better)",
    "pseudo_perplexity": "pseudo-perplexity (lower is better)",
    "kl_to_teacher_nats": "KL to the teacher, nats (lower is better)",
    "teacher_agreement": "same first prediction as the teacher",
    "mean_hidden_cosine": "cosine with the teacher's hidden states",
}


# Each model predicts tokens of its own vocabulary. Longer tokens are fewer and harder to predict.
PER_TOKEN = ("masked_accuracy", "masked_cross_entropy_nats", "pseudo_perplexity")


@dataclasses.dataclass(frozen=True)
class Value:
    """One model's score: the mean over `seeds` runs, their standard deviation where there is more than one."""

    mean: float
    std: float | None = None
    seeds: int = 1

    @classmethod
    def of(cls, reported: Mapping[str, Any] | float) -> "Value":
        """From a report: a plain number, or ``{mean, std, values}``."""
        if isinstance(reported, int | float):
            return cls(reported)
        seeds = len(reported.get("values", [None]))
        return cls(reported["mean"], reported.get("std") if seeds > 1 else None, seeds)

    @property
    def text(self) -> str:
        """As the tables show it."""
        return score(self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one task, for every model that has it; `about` is what else the report says about the task."""

    task: str
    title: str
    kind: str
    metric: str
    values: dict[str, Value]
    about: Mapping[str, Any]

    @property
    def metric_title(self) -> str:
        """The metric's name for a reader."""
        return METRIC_TITLES.get(self.metric, self.metric.replace("_", " "))


def task_scores(quality: Measurements, part: str = "tasks") -> list[Score]:
    """All metrics of all tasks, of the fine-tuned models or of another part of the rows: ``linear_probe``."""
    about = quality.details.get("tasks", {})
    found: dict[tuple[str, str], dict[str, Value]] = {}
    for row in quality.rows:
        for task, metrics in row.values.get(part, {}).items():
            for metric, reported in metrics.items():
                if _is_score(reported):
                    found.setdefault((task, metric), {})[row.case] = Value.of(reported)
    return [
        Score(task, known.get("title", task), known.get("kind", ""), metric, values, known)
        for (task, metric), values in found.items()
        for known in [about.get(task, {})]
    ]


def main_scores(quality: Measurements, part: str = "tasks") -> list[Score]:
    """The first metric of each task in a part of the rows."""
    return list({score.task: score for score in reversed(task_scores(quality, part))}.values())[::-1]


def intrinsic_scores(quality: Measurements) -> list[tuple[str, dict[str, Value]]]:
    """The held-out measures of the report, each by model."""
    return [
        (name, values)
        for name in INTRINSIC_TITLES
        if (values := {row.case: Value.of(row.values[name]) for row in quality.rows if name in row.values})
    ]


def have_vocabularies_of_their_own(quality: Measurements) -> bool:
    """Whether a model was measured on held-out text in another vocabulary than the baseline's.

    Such a model is not compared with the baseline token by token, so the report has no divergence from it.
    """
    return any(
        row.case != quality.baseline and "masked_accuracy" in row.values and "kl_to_teacher_nats" not in row.values
        for row in quality.rows
    )


def _is_score(reported: Any) -> bool:
    return isinstance(reported, int | float) or (isinstance(reported, Mapping) and "mean" in reported)
