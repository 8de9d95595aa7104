"""A teacher with more rows than pieces, as many on the Hub have: a whole run with a student of its vocabulary."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from distilrubert.common.measurements import Measurements
from distilrubert.modeling.heads import mlm_head_of
from distilrubert.modeling.teacher import Teacher, save_teacher
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.hub.preflight import preflight

RECIPE = """
name: small-one
teacher: {model: ./teacher}
corpus: {sources: [{path: texts.txt}], validation: 0.3, max_length: 64, processes: 1}
student: {layers: 2}
distillation: {batch_tokens: 256, batches_per_update: 1, max_steps: 2, precision: fp32}
conversion: {onnx: [], openvino: []}
evaluation:
  speed: {sequence_length: 16, batch_sizes: [1, 2], rounds: 1, starts: 1, minimum_time_s: 0}
  intrinsic: {sequences: 9, sentences: 2}
card: {language: ru, license: apache-2.0}
"""


@pytest.mark.slow
def test_its_student_has_a_row_for_each_piece_and_can_be_published(
    tiny_teacher: Teacher, sentences: list[str], tmp_path: Path
) -> None:
    pieces = len(tiny_teacher.tokenizer)
    padded = dataclasses.replace(tiny_teacher, model=copy.deepcopy(tiny_teacher.model))
    padded.model.resize_token_embeddings(pieces + 36, mean_resizing=False)
    with torch.no_grad():
        # As if training had never told it that these are nothing.
        mlm_head_of(padded.model).bias_V[pieces:] = 5
    save_teacher(padded, tmp_path / "teacher")
    (tmp_path / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["publish", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run")]) == 0
    hub = tmp_path / "run/hub"
    assert preflight(hub) == []
    assert AutoConfig.from_pretrained(hub).vocab_size == len(AutoTokenizer.from_pretrained(hub)) == pieces
    quality = Measurements.load(tmp_path / "run/reports/quality.json")
    assert 0 < quality["student"].values["kl_to_teacher_nats"] < 10
