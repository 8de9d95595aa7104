import copy
import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.conversion.conversion_settings import Tolerance, Tolerances
from distilrubert.conversion.formats import FORMATS, Format, run_model
from distilrubert.conversion.parity import check_parity, measure_parity
from distilrubert.modeling.heads import mlm_head_of

FP32 = FORMATS["pytorch-fp32"]


def altered(student, change) -> Format:
    """A format that computes what the student does, then applies `change(hidden_BLD, inputs)`."""
    encoder = run_model(student.model.base_model, "feature-extraction")
    return dataclasses.replace(FP32, open=lambda path, task: lambda inputs: (change(*encoder(inputs), inputs),))


def test_a_known_change_gives_known_figures(tiny_student, tiny_student_folder, sentences):
    exact = altered(tiny_student, lambda hidden_BLD, inputs: -2 * hidden_BLD)
    reference = run_model(tiny_student.model.base_model, "feature-extraction")
    truth = [reference(dict(tiny_student.tokenizer(text, return_tensors="np")))[0][0] for text in sentences]
    figures = measure_parity(tiny_student, tiny_student_folder, [exact], sentences)["pytorch-fp32"].figures
    assert figures["maximal_difference"] == pytest.approx(3 * max(np.abs(h).max() for h in truth), rel=1e-4)
    assert figures["mean_difference"] == pytest.approx(3 * np.abs(np.concatenate(truth)).mean(), rel=1e-4)
    for figure in ("token_cosine", "minimal_token_cosine", "pooled_cosine", "minimal_pooled_cosine"):
        assert figures[figure] == pytest.approx(-1)


def test_padded_positions_are_not_counted(tiny_student, tiny_student_folder, sentences):
    def spoil_padding(hidden_BLD, inputs):
        return np.where(inputs["attention_mask"][:, :, None] == 1, hidden_BLD, 1e6)

    measured = measure_parity(tiny_student, tiny_student_folder, [altered(tiny_student, spoil_padding)], sentences)
    assert measured["pytorch-fp32"].figures["padded"]["maximal_difference"] < 1e-4


def test_one_wrong_token_of_one_sentence_is_found(tiny_student, tiny_student_folder, sentences):
    def spoil_one(hidden_BLD, inputs):
        if len(hidden_BLD) > 1:
            hidden_BLD[1, 2, 0] += 0.5
        return hidden_BLD

    measured = measure_parity(tiny_student, tiny_student_folder, [altered(tiny_student, spoil_one)], sentences)
    figures = measured["pytorch-fp32"].figures
    assert figures["maximal_difference"] == pytest.approx(0.5, abs=1e-3)
    assert figures["single"]["maximal_difference"] < 1e-4
    assert figures["padded"]["maximal_difference"] == figures["maximal_difference"]


def test_counts_and_file_facts(tiny_student, tiny_student_folder, sentences):
    measured = measure_parity(tiny_student, tiny_student_folder, [FP32], [*sentences, "слово " * 500])
    lengths = [len(tiny_student.tokenizer(text).input_ids) for text in sentences]
    assert measured.details["sentences"] == 61
    assert measured.details["longest"] == 64
    assert measured.details["tokens"] == sum(lengths) + 64
    file = tiny_student_folder / "model.safetensors"
    assert measured["pytorch-fp32"].figures["size_mib"] == file.stat().st_size / 2**20


def test_the_report_survives_its_file(tiny_student, tiny_student_folder, sentences, tmp_path):
    measured = measure_parity(tiny_student, tiny_student_folder, [FP32], sentences[:4])
    measured.save(tmp_path / "parity.json")
    assert Measurements.load(tmp_path / "parity.json") == measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hidden, inputs: hidden + 0.01, "maximal_difference 0.01, at most 0.001"),
        (lambda hidden, inputs: hidden * np.nan, "maximal_difference nan"),
    ],
)
def test_what_differs_is_refused_by_name(change, message, tiny_student, tiny_student_folder, sentences):
    wrong = altered(tiny_student, change)
    measured = measure_parity(tiny_student, tiny_student_folder, [wrong], sentences[:4])
    with pytest.raises(UserError, match=message) as raised:
        check_parity(measured, [wrong], Tolerances())
    assert "model.safetensors" in str(raised.value)
    assert "conversion.tolerance.fp32" in str(raised.value)


@pytest.mark.parametrize("figure", ["token_cosine", "pooled_cosine"])
def test_cosines_are_bounded_below(figure, tiny_student, tiny_student_folder, sentences):
    measured = measure_parity(tiny_student, tiny_student_folder, [FP32], sentences[:4])
    whole = measured["pytorch-fp32"].figures
    # In one of both ways, though the mean over both is above.
    figures = {**whole, figure: 0.99, "padded": {**whole["padded"], figure: 0.9}}
    changed = dataclasses.replace(measured, rows=[dataclasses.replace(measured.rows[0], figures=figures)])
    with pytest.raises(UserError, match=f"{figure} 0.90000, at least 0.95"):
        check_parity(changed, [FP32], Tolerances(fp32=Tolerance(token_cosine=0.95, pooled_cosine=0.95)))
    check_parity(changed, [FP32], Tolerances(fp32=Tolerance(token_cosine=0.9, pooled_cosine=0.9)))


def test_logits_that_only_know_how_frequent_a_piece_is_do_not_agree(tiny_student, tiny_student_folder, sentences):
    student = copy.deepcopy(tiny_student)
    # Whatever a model has learnt, most of its logits is what all tokens have in common.
    frequency_V = torch.randn(len(student.tokenizer), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mlm_head_of(student.model).bias_V.add_(10 * frequency_V)
    logits = run_model(student.model, "fill-mask")
    exact = dataclasses.replace(FP32, open=lambda path, task: logits)
    constant = dataclasses.replace(
        FP32,
        case="onnx-fp32",
        open=lambda path, task: lambda inputs: (0 * logits(inputs)[0] + 10 * frequency_V.numpy(),),
    )
    measured = measure_parity(student, tiny_student_folder, [exact, constant], sentences[:12], "fill-mask")
    assert measured["pytorch-fp32"].figures["token_cosine"] == pytest.approx(1)
    assert abs(measured["onnx-fp32"].figures["token_cosine"]) < 0.5
    with pytest.raises(UserError, match=r"token_cosine -?0\.\d+, at least 0\.9"):
        check_parity(measured, [constant], Tolerances(fp32=Tolerance(token_cosine=0.9, pooled_cosine=-1)))


def test_a_tolerance_that_means_nothing_is_refused():
    with pytest.raises(ValidationError):
        Tolerance(token_cosine=1.5, pooled_cosine=0.9)


@pytest.mark.export
def test_every_file_of_a_conversion_agrees(converted):
    measured = converted[1]
    assert [row.case for row in measured.rows] == list(FORMATS)
    for row in measured.rows:
        precision = FORMATS[row.case].precision
        if precision == "fp32":
            assert row.figures["maximal_difference"] < 1e-4
            assert row.figures["top1_agreement"] > 0.999
        elif precision == "int8":
            assert 0.99 < row.figures["token_cosine"] < 0.99999
            assert 0.9 < row.figures["top1_agreement"] < 1
    # The file for ARM is that for VNNI under the name that is looked for there.
    assert len({row.figures["sha256"] for row in measured.rows}) == len(FORMATS) - 1
