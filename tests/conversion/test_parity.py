import copy
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, FORMATS
from distilrubert.common.measurements import Measurements
from distilrubert.conversion import parity
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.export_source import ExportSource, full_length_texts
from distilrubert.conversion.parity import bounds_of, check_parity
from distilrubert.modeling import runtimes
from distilrubert.modeling.heads import MlmHead, mlm_head_of
from distilrubert.modeling.runtimes import PyTorchModel

FP32 = CASES["pytorch-fp32"]


@pytest.fixture
def altered(tiny_student, monkeypatch):
    """Lets the file compute what the student does, and then `change(hidden_BLD, inputs)`."""

    def alter(change):
        model = PyTorchModel(tiny_student.model.base_model, "feature-extraction")
        opened = lambda inputs: (change(*model(inputs), inputs),)  # noqa: E731
        monkeypatch.setitem(runtimes.OPENERS, "pytorch", lambda *_, **__: opened)
        return FP32

    return alter


def measure_parity(*arguments):
    """The report with the worst of the ways."""
    return derive(parity.measure_parity(*arguments))


def hidden_states(student, texts) -> list[np.ndarray]:
    model = PyTorchModel(student.model.base_model, "feature-extraction")
    return [model(dict(student.tokenizer(text, truncation=True, return_tensors="np")))[0][0] for text in texts]


def test_a_known_change_gives_known_values(tiny_student, tiny_student_folder, sentences, altered):
    texts = [*sentences, *full_length_texts(tiny_student, sentences)]
    truth = hidden_states(tiny_student, texts)
    mean_D = np.concatenate(truth).mean(axis=0)
    # What a hidden state differs by from the mean of all is turned round and doubled.
    turned = altered(lambda hidden_BLD, inputs: mean_D - 2 * (hidden_BLD - mean_D))
    values = measure_parity(tiny_student, tiny_student_folder, [turned], sentences)["pytorch-fp32"].values
    differences = [3 * np.abs(hidden_TD - mean_D) for hidden_TD in truth]
    single = np.concatenate(differences[: len(sentences)])
    assert values["single"]["maximal_difference"] == pytest.approx(single.max(), rel=1e-4)
    assert values["single"]["mean_difference"] == pytest.approx(single.mean(), rel=1e-4)
    assert values["maximal_difference"] == pytest.approx(np.concatenate(differences).max(), rel=1e-4)
    for metric in ("token_cosine", "token_cosine_p1", "minimal_token_cosine", "pooled_cosine", "minimal_pooled_cosine"):
        assert values[metric] == pytest.approx(-1, abs=1e-4)


def test_a_file_that_returns_the_mean_of_all_hidden_states_does_not_agree(
    tiny_student, tiny_student_folder, sentences, altered
):
    student = copy.deepcopy(tiny_student)
    truth = np.concatenate(hidden_states(student, sentences))
    common_D = 30 * truth.std(axis=0)

    def constant(hidden_BLD, inputs):
        return np.broadcast_to(truth.mean(axis=0) + 0.1 * common_D, hidden_BLD.shape)

    measured = measure_parity(student, tiny_student_folder, [altered(constant)], sentences)["pytorch-fp32"].values
    assert abs(measured["single"]["token_cosine"]) < 0.5


def test_a_few_orthogonal_tokens_are_found(tiny_student, tiny_student_folder, sentences, altered):
    def spoil(hidden_BLD, inputs):
        # About one token in forty.
        spoiled_BL = inputs["input_ids"] % 40 == 7
        return np.where(spoiled_BL[:, :, None], -hidden_BLD, hidden_BLD)

    wrong = altered(spoil)
    measured = measure_parity(tiny_student, tiny_student_folder, [wrong], sentences)
    values = measured["pytorch-fp32"].values
    assert values["token_cosine"] > 0.85
    assert values["token_cosine_p1"] < 0.5
    means = Tolerance(token_cosine=0.85, pooled_cosine=0.5)
    check_parity(measured, [wrong], Tolerances(fp32=means))
    with pytest.raises(UserError, match=r"token_cosine_p1 -?0\.\d+, at least 0\.9"):
        check_parity(measured, [wrong], Tolerances(fp32=means.model_copy(update={"token_cosine_p1": 0.9})))
    with pytest.raises(UserError, match=r"top1_agreement 0\.\d+, at least 0\.99"):
        check_parity(measured, [wrong], Tolerances(fp32=means.model_copy(update={"top1_agreement": 0.99})))


def test_every_number_format_has_a_bound_for_single_tokens():
    for name, tolerance in Tolerances():
        assert tolerance.token_cosine_p1 is not None, name
        assert tolerance.top1_agreement is not None, name


def test_of_an_encoder_of_sentences_the_vectors_are_bounded_in_place_of_the_tokens():
    tolerance = Tolerances().int8
    of_tokens = {"token_cosine": 0.9, "token_cosine_p1": 0.5, "pooled_cosine": 0.95}
    vectors = {"vector_cosine_p1": 0.995}

    def metrics(tolerance, figures):
        return {bound.metric for bound in bounds_of(tolerance, {"single": figures})}

    assert metrics(tolerance, of_tokens) == of_tokens.keys()
    assert metrics(tolerance, of_tokens | vectors) == {"vector_cosine_p1"}
    without = tolerance.model_copy(update={"vector_cosine_p1": None})
    assert metrics(without, of_tokens | vectors) == of_tokens.keys()


@pytest.mark.parametrize(
    ("setting", "pattern"),
    [("int8", r"^(onnx|openvino)-int8"), ("bf16", r"^(pytorch-bf16|openvino-fp(16|32)-in-bf16)$")],
)
def test_the_measured_values_of_the_bounds_are_those_of_the_committed_results(setting, pattern):
    paths = sorted((Path(__file__).parents[2] / "benchmarks/results").glob("parity_tolerance-*.json"))
    assert len(paths) == 2
    rows = [row.values for path in paths for row in Measurements.load(path).rows if re.match(pattern, row.case)]
    description = Tolerances.model_fields[setting].description
    for bound in bounds_of(getattr(Tolerances(), setting), rows[0]):
        worst = min(bound.worst(values) for values in rows)
        assert f"{bound.metric} {worst:.4f}" in description
        assert bound.holds(worst)


def test_what_is_wrong_in_long_texts_alone_is_found(tiny_student, tiny_student_folder, sentences, altered):
    longest = max(len(tiny_student.tokenizer(text).input_ids) for text in sentences)
    assert longest < 64

    def spoil(hidden_BLD, inputs):
        hidden_BLD[:, longest:] *= -1
        return hidden_BLD

    measured = measure_parity(tiny_student, tiny_student_folder, [altered(spoil)], sentences)
    values = measured["pytorch-fp32"].values
    assert values["single"]["maximal_difference"] < 1e-4
    assert values["full_length"]["maximal_difference"] > 0.5
    assert measured.details["full_length_texts"] == 8
    assert measured.details["full_length_tokens"] == 8 * 64


def test_texts_of_full_length_are_different_and_long_enough(tiny_student, sentences):
    texts = full_length_texts(tiny_student, sentences)
    assert len(set(texts)) == 8
    for text in texts:
        assert len(tiny_student.tokenizer(text, add_special_tokens=False).input_ids) >= 64
        assert any(sentence in text for sentence in sentences)


def test_calibration_has_texts_of_full_length_that_the_proof_does_not_have(tiny_student, sentences):
    source = ExportSource.of_text(tiny_student, ConversionSettings(), sentences[::2])
    lengths = [inputs["input_ids"].shape[1] for inputs in source.calibration]
    assert lengths[-8:] == [64] * 8
    assert len(lengths) == len(sentences[::2]) + 8
    proof, calibration = (full_length_texts(tiny_student, part) for part in (sentences[1::2], sentences[::2]))
    assert not any(sentence in text for text in proof for sentence in sentences[::2] if sentence not in sentences[1::2])
    assert set(proof).isdisjoint(calibration)


def test_padded_positions_are_not_counted(tiny_student, tiny_student_folder, sentences, altered):
    def spoil_padding(hidden_BLD, inputs):
        return np.where(inputs["attention_mask"][:, :, None] == 1, hidden_BLD, 1e6)

    measured = measure_parity(tiny_student, tiny_student_folder, [altered(spoil_padding)], sentences)
    assert measured["pytorch-fp32"].values["padded"]["maximal_difference"] < 1e-4


def test_one_wrong_token_of_one_sentence_is_found(tiny_student, tiny_student_folder, sentences, altered):
    def spoil_one(hidden_BLD, inputs):
        if len(hidden_BLD) > 1:
            hidden_BLD[1, 2, 0] += 0.5
        return hidden_BLD

    measured = measure_parity(tiny_student, tiny_student_folder, [altered(spoil_one)], sentences)
    figures = measured["pytorch-fp32"].values
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
    assert measured["pytorch-fp32"].values["size_mib"] == file.stat().st_size / 2**20


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
def test_what_differs_is_refused_by_name(change, message, tiny_student, tiny_student_folder, sentences, altered):
    wrong = altered(change)
    measured = measure_parity(tiny_student, tiny_student_folder, [wrong], sentences[:4])
    with pytest.raises(UserError, match=message) as raised:
        check_parity(measured, [wrong], Tolerances())
    assert "model.safetensors" in str(raised.value)
    assert "conversion.tolerance.fp32" in str(raised.value)


@pytest.mark.parametrize("figure", ["token_cosine", "pooled_cosine"])
def test_cosines_are_bounded_below(figure, tiny_student, tiny_student_folder, sentences):
    measured = measure_parity(tiny_student, tiny_student_folder, [FP32], sentences[:4])
    whole = measured["pytorch-fp32"].values
    # In one of both ways, though the mean over both is above.
    figures = {**whole, figure: 0.99, "padded": {**whole["padded"], figure: 0.9}}
    changed = dataclasses.replace(measured, rows=[dataclasses.replace(measured.rows[0], values=figures)])
    with pytest.raises(UserError, match=f"{figure} 0.90000, at least 0.95"):
        check_parity(changed, [FP32], Tolerances(fp32=Tolerance(token_cosine=0.95, pooled_cosine=0.95)))
    check_parity(changed, [FP32], Tolerances(fp32=Tolerance(token_cosine=0.9, pooled_cosine=0.9)))


def test_logits_that_only_know_how_frequent_a_token_is_do_not_agree(
    tiny_student, tiny_student_folder, sentences, monkeypatch
):
    student = copy.deepcopy(tiny_student)
    # Whatever a model has learnt, most of its logits is what all tokens have in common.
    frequency_V = torch.randn(len(student.tokenizer), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mlm_head_of(student.model).bias_V.add_(10 * frequency_V)
    logits = PyTorchModel(student.model, "fill-mask")
    constant = lambda inputs: (0 * logits(inputs)[0] + 10 * frequency_V.numpy(),)  # noqa: E731
    found = {}
    for name, opened in (("exact", logits), ("constant", constant)):
        monkeypatch.setitem(runtimes.OPENERS, "pytorch", lambda *_, opened=opened, **__: opened)
        found[name] = measure_parity(student, tiny_student_folder, [FP32], sentences[:12], "fill-mask")
    assert found["exact"]["pytorch-fp32"].values["token_cosine"] == pytest.approx(1)
    assert abs(found["constant"]["pytorch-fp32"].values["token_cosine"]) < 0.5
    with pytest.raises(UserError, match=r"token_cosine -?0\.\d+, at least 0\.9"):
        check_parity(found["constant"], [FP32], Tolerances(fp32=Tolerance(token_cosine=0.9, pooled_cosine=-1)))


def test_logits_are_compared_a_few_tokens_at_a_time(tiny_student, tiny_student_folder, sentences, monkeypatch):
    """Those of a large vocabulary do not fit into memory at once; the parts give what the whole gives."""
    logits = PyTorchModel(tiny_student.model, "fill-mask")
    noisy = lambda inputs: (logits(inputs)[0] + 0.1 * np.sin(np.arange(len(tiny_student.tokenizer))),)  # noqa: E731
    monkeypatch.setitem(runtimes.OPENERS, "pytorch", lambda *_, **__: noisy)
    seen, of_head = [], MlmHead.logits
    monkeypatch.setattr(MlmHead, "logits", lambda self, rows: seen.append(len(rows)) or of_head(self, rows))
    found = []
    for tokens in (5, 10_000):
        monkeypatch.setattr(parity, "TOKENS_AT_ONCE", tokens)
        arguments = tiny_student, tiny_student_folder, [FP32], sentences[:12], "fill-mask"
        found.append(parity.measure_parity(*arguments)["pytorch-fp32"].values)
        assert max(seen) == min(tokens, 64)
        seen.clear()
    for way in ("single", "padded", "full_length"):
        assert found[0][way] == pytest.approx(found[1][way], rel=1e-4)
        assert 0.09 < found[0][way]["maximal_difference"] < 0.11


def test_a_tolerance_that_means_nothing_is_refused():
    with pytest.raises(ValidationError):
        Tolerance(token_cosine=1.5, pooled_cosine=0.9)


@pytest.mark.export
def test_every_file_of_a_conversion_agrees(converted):
    measured = derive(converted[1])
    rows = [row for row in measured.rows if row.values["hint"] == "fp32"]
    assert [row.case for row in rows] == list(FORMATS)
    # Without VNNI, sums of products of bytes can saturate in files of eight signed bits.
    has_vnni = any("vnni" in name for name in measured.environment.instruction_sets)
    exact = {"onnx-int8", "onnx-int8-avx2", "onnx-masked-lm-int8"}
    for row in rows:
        precision = FORMATS[row.case].precision
        assert set(row.values["sha256"]) == set(FORMATS[row.case].paths)
        if precision == "fp32":
            assert row.values["maximal_difference"] < 1e-4
            assert row.values["top1_agreement"] > 0.999
        elif precision == "int8":
            assert (0.99 if has_vnni or row.case in exact else 0.98) < row.values["token_cosine"] < 0.99999
            assert 0.9 < row.values["top1_agreement"] < 1
    # The file for ARM is that for VNNI under the name that is looked for there.
    assert len({row.values["sha256"][row.values["path"]] for row in rows}) == len(FORMATS) - 1


def test_a_bound_that_is_given_leaves_the_others_as_they_are():
    default = Tolerances().int8
    found = Tolerances.model_validate({"int8": {"pooled_cosine": 0.5, "top1_agreement": None}}).int8
    assert found == default.model_copy(update={"pooled_cosine": 0.5, "top1_agreement": None})
