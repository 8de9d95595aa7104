import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, DistilBertForMaskedLM

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.sampling import evenly
from distilrubert.evaluation.speed import benchmark as speed
from distilrubert.evaluation.speed import speed_worker
from distilrubert.evaluation.speed.benchmark import SpeedCase, cases_of, measure_speed
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.evaluation.speed.speed_process import SpeedProcess
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student, save_student

QUICK = SpeedSettings(
    sequence_length=16, batch_sizes=[1, 4], device="cpu", threads=1, starts=1, rounds=2, warmup=1, minimum_time_s=0
)
# A process that measures nothing: it starts at once, where one that loads PyTorch takes seconds.
STAND_IN = (
    "-c",
    "from distilrubert.evaluation.speed.speed_worker import Worker, serve\n"
    "class StandIn(Worker):\n"
    "    def open(self, **_): return {}\n"
    "    def measure(self, *, warmup, sequence_length, **_): return {'seconds': [sequence_length / 1000]}\n"
    "serve(StandIn())",
)


@pytest.fixture(scope="module")
def student_folder(tiny_teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("speed") / "student"
    save_student(build_student(tiny_teacher, StudentArchitecture(layers=1, initialise_from=[0])), folder)
    return folder


@pytest.fixture(scope="module")
def measured(tiny_teacher_folder, student_folder) -> Measurements:
    cases = [
        SpeedCase("teacher-pytorch-fp32", tiny_teacher_folder, "pytorch-fp32"),
        SpeedCase("student-pytorch-bf16", student_folder, "pytorch-bf16"),
    ]
    return measure_speed(cases, QUICK)


def test_rows_are_relative_to_the_first_case(measured):
    teacher, student = derive(measured).rows
    assert measured.baseline == teacher.case == "teacher-pytorch-fp32"
    assert teacher.values["latency_ratio"] == teacher.values["throughput_ratio"] == 1
    assert student.values["latency_ratio"] == pytest.approx(teacher.values["latency_s"] / student.values["latency_s"])


def test_every_turn_counts_and_nothing_else(measured):
    for row in measured.rows:
        assert {size: batch["passes"] for size, batch in row.values["batches"].items()} == {"1": [2], "4": [2]}
        assert {len(batch["starts_s"]) for batch in row.values["batches"].values()} == {1}


def test_every_start_has_new_processes_and_the_cases_take_turns(student_folder, monkeypatch):
    asked = []

    class Watched(SpeedProcess):
        def __init__(self, name, threads, program):
            super().__init__(name, threads, program)
            self.name = name

        def ask(self, command, **arguments):
            if command == "measure":
                asked.append((self.name, self.pid, arguments["warmup"]))
            return super().ask(command, **arguments)

    monkeypatch.setattr(speed, "SpeedProcess", Watched)
    cases = [SpeedCase(name, student_folder, "pytorch-fp32") for name in ("a", "b")]
    settings = QUICK.model_copy(update={"starts": 3, "rounds": 2, "batch_sizes": [1]})
    measured = measure_speed(cases, settings, STAND_IN)
    assert "".join(name for name, _, _ in asked) == "abbabaababba"
    assert len({pid for _, pid, _ in asked}) == 6
    # Every turn is warmed up, also the later ones of a start.
    assert [warmup for _, _, warmup in asked] == [1] * 12
    assert [row.values["batches"]["1"]["passes"] for row in measured.rows] == [[2, 2, 2]] * 2
    assert [len(row.values["batches"]["1"]["starts_s"]) for row in measured.rows] == [3, 3]
    assert measured.details["starts"] == 3


def test_figures_of_the_file_and_the_process(measured, tiny_teacher_folder, tiny_teacher):
    figures = measured["teacher-pytorch-fp32"].values
    assert figures["parameters"] == tiny_teacher.model.num_parameters()
    assert figures["size_mib"] == (tiny_teacher_folder / "model.safetensors").stat().st_size / 2**20
    assert 50 < figures["peak_memory_mib"] < 4000
    assert measured.environment.threads == figures["threads"] == 1


def test_the_report_survives_its_file(measured, tmp_path):
    measured.save(tmp_path / "speed.json")
    assert Measurements.load(tmp_path / "speed.json") == measured


def test_a_length_beyond_the_positions_is_cut_for_all_and_said(student_folder, caplog):
    measured = measure_speed(
        cases_of("student", student_folder), QUICK.model_copy(update={"sequence_length": 512, "rounds": 1}), STAND_IN
    )
    assert measured.details["sequence_length"] == 64
    assert measured.rows[0].values["batches"]["1"]["starts_s"] == [0.064]
    assert "64 tokens, not 512" in caplog.text


def scripted_worker(monkeypatch, duration_s: float) -> tuple[speed_worker.Worker, list]:
    """A worker whose passes take that long, and the inputs of each pass."""
    clock, given = itertools.count(), []

    class Model:
        def prepare(self, inputs):
            return lambda: given.append({name: array.tolist() for name, array in inputs.items()})

    # Two readings a pass.
    monkeypatch.setattr(speed_worker.time, "perf_counter", lambda: duration_s * next(clock))
    worker = speed_worker.Worker()
    monkeypatch.setattr(worker, "_model", Model())
    return worker, given


@pytest.fixture
def words_tokenizer(tmp_path) -> str:
    words = Tokenizer(models.WordLevel({"[PAD]": 7, "a": 1, "b": 2, "[SEP]": 3}, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 3)]
    )
    words.save(str(tmp_path / "words.json"))
    return str(tmp_path / "words.json")


def test_texts_are_tokenised_and_batched_by_length(monkeypatch, words_tokenizer):
    worker, given = scripted_worker(monkeypatch, 0.25)
    how = {"tokenizer": words_tokenizer, "padding_id": 7, "sequence_length": 4, "warmup": 1, "minimum_time_s": 0.3}
    answer = worker.measure_texts(texts=["a b a b a b", ["a", "b"], "b"], batch_size=2, **how)
    # A pass over three texts takes 0.25 s, and two passes fill the time; so a batch of two takes 2/3 of that.
    assert answer["seconds"] == pytest.approx([0.25 * 2 / 3] * 2)
    assert answer["tokens_per_text"] == (4 + 4 + 2) / 3
    one_pass = [
        {
            "input_ids": [[2, 3, 7, 7], [1, 3, 2, 3]],
            "attention_mask": [[1, 1, 0, 0], [1] * 4],
            "token_type_ids": [[0] * 4, [0, 0, 1, 1]],
        },
        {"input_ids": [[1, 2, 1, 3]], "attention_mask": [[1] * 4], "token_type_ids": [[0] * 4]},
    ]
    assert given == one_pass * 3, "the first pass does not count"


def test_models_are_measured_on_texts_with_their_own_tokenizers(tiny_teacher_folder, student_folder):
    cases = [
        SpeedCase("teacher-pytorch-fp32", tiny_teacher_folder, "pytorch-fp32"),
        SpeedCase("student-pytorch-fp32", student_folder, "pytorch-fp32"),
    ]
    texts = [f"Привет, {'как дела? ' * length}" for length in range(1, 40)]
    settings = QUICK.model_copy(update={"texts": 5, "rounds": 1})
    measured = measure_speed(cases, settings, texts=texts)
    tokenizer = AutoTokenizer.from_pretrained(student_folder)
    lengths = [len(tokenizer(text, truncation=True, max_length=16).input_ids) for text in evenly(texts, 5)]
    for row in measured.rows:
        assert row.values["tokens_per_text"] == statistics.fmean(lengths)
        assert min(*row.values["batches"]["1"]["starts_s"], *row.values["batches"]["4"]["starts_s"]) > 0
    assert measured.details["texts"] == 5


def test_a_model_without_a_tokenizer_has_no_speed_on_texts(student_folder, tmp_path):
    save_file({}, tmp_path / "model.safetensors")
    shutil.copy(student_folder / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.json and vocab\.txt are missing"):
        measure_speed([SpeedCase("bare", tmp_path, "pytorch-fp32")], QUICK, STAND_IN, texts=["text"])


@pytest.mark.parametrize(("duration_s", "passes", "counted"), [(0.25, 2 + 2, 2), (0.75, 1 + 1, 1)])
def test_slow_passes_are_warmed_up_once(monkeypatch, duration_s, passes, counted):
    worker, given = scripted_worker(monkeypatch, duration_s)
    how = {"batch_size": 3, "sequence_length": 5, "vocabulary": 9, "seed": 0, "warmup": 2, "minimum_time_s": 0.5}
    assert worker.measure(**how) == {"seconds": [duration_s] * counted}
    assert [np.shape(inputs["input_ids"]) for inputs in given] == [(3, 5)] * passes


def test_a_fast_start_has_no_more_weight_for_its_many_passes(student_folder, monkeypatch):
    """As on the Zen 4 of the first results: one start of nine in 9 ms, with most of the passes, and two in 18 ms."""
    passes = iter(([0.009] * 54, [0.018] * 14, [0.018] * 13))

    class Scripted(SpeedProcess):
        def ask(self, command, **arguments):
            return {"seconds": next(passes)} if command == "measure" else super().ask(command, **arguments)

    monkeypatch.setattr(speed, "SpeedProcess", Scripted)
    settings = QUICK.model_copy(update={"starts": 3, "rounds": 1, "batch_sizes": [1]})
    measured = measure_speed([SpeedCase("a", student_folder, "pytorch-fp32")], settings, STAND_IN)
    assert measured["a"].values["batches"] == {"1": {"starts_s": [0.009, 0.018, 0.018], "passes": [54, 14, 13]}}
    assert derive(measured)["a"].values["latency_s"] == 0.018


@pytest.mark.export
def test_every_file_is_a_case(student_folder, tiny_teacher_folder, sentences, tmp_path):
    from distilrubert.conversion.conversion_settings import ConversionSettings
    from distilrubert.conversion.model_folder import convert

    convert(
        student_folder, tmp_path, ConversionSettings(onnx=["fp32", "int8", "int8-arm64"]), sentences[:3], sentences[:3]
    )
    # A file for another processor is published and not measured.
    assert (tmp_path / "onnx/model_qint8_arm64.onnx").exists()
    cases = [*cases_of("teacher", tiny_teacher_folder), *cases_of("student", tmp_path)]
    measured = measure_speed(cases, QUICK.model_copy(update={"rounds": 1}))
    assert [row.case for row in measured.rows] == [
        "teacher-pytorch-fp32",
        "student-pytorch-fp32",
        "student-onnx-fp32",
        "student-onnx-int8",
    ]
    int8 = measured["student-onnx-int8"].values
    assert int8["size_mib"] == (tmp_path / "onnx/model_quantized.onnx").stat().st_size / 2**20
    assert int8["peak_memory_mib"] < measured["student-pytorch-fp32"].values["peak_memory_mib"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_has_rows_of_its_own(tiny_teacher_folder):
    case = SpeedCase("teacher-pytorch-fp32", tiny_teacher_folder, "pytorch-fp32")
    measured = measure_speed([case], QUICK.model_copy(update={"device": "auto"}))
    assert [row.case for row in measured.rows] == ["teacher-pytorch-fp32", "teacher-pytorch-fp32-cuda"]
    assert measured.rows[1].values["gpu_peak_memory_mib"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(student_folder):
    with pytest.raises(UserError, match=r"speed\.device"):
        measure_speed(cases_of("student", student_folder), QUICK.model_copy(update={"device": "cuda"}))


def test_unknown_backends_and_missing_files_are_refused(student_folder, tmp_path):
    with pytest.raises(UserError, match=r"tensorflow; pytorch-fp32, "):
        measure_speed([SpeedCase("student", student_folder, "tensorflow")], QUICK)
    with pytest.raises(UserError, match="tensorflow"):
        cases_of("student", student_folder, ["tensorflow"])
    with pytest.raises(UserError, match=r"onnx/model\.onnx"):
        measure_speed([SpeedCase("student", student_folder, "onnx-fp32")], QUICK)
    with pytest.raises(UserError, match="holds no weights: neither"):
        cases_of("empty", tmp_path)
    with pytest.raises(UserError, match="nothing to measure"):
        measure_speed([], QUICK)
    with pytest.raises(UserError, match="student-pytorch-fp32 is to be measured twice"):
        measure_speed(cases_of("student", student_folder) * 2, QUICK)


def test_a_model_that_is_no_encoder_is_refused(student_folder, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((student_folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 10}')
    with pytest.raises(UserError, match="max_position_embeddings"):
        measure_speed(cases_of("gpt", tmp_path), QUICK)


def test_a_process_that_fails_names_its_case_and_the_reason(student_folder, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((student_folder / "model.safetensors").read_bytes())
    config = json.loads((student_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_heads": 5}))
    with pytest.raises(UserError, match=r"odd-pytorch-fp32: .*Error") as raised:
        measure_speed(cases_of("odd", tmp_path), QUICK)
    assert "\n" not in str(raised.value)


def test_a_torn_checkpoint_is_told_of_before_anything_is_measured(student_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((student_folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    cases = cases_of("torn", tmp_path)
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        measure_speed(cases, QUICK, program=("no such program",))


def test_a_process_that_is_killed_names_its_case_and_the_signal():
    with SpeedProcess("student-onnx-int8", threads=1) as process:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"student-onnx-int8: .*SIGKILL; there may be too little memory"):
            process.ask("memory")


def test_no_process_outlives_its_block():
    with SpeedProcess("case", threads=1) as process:
        assert process.ask("memory")["peak_memory_mib"] > 0
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_the_process_loads_no_runtime_before_its_own():
    program = "import json, sys, distilrubert.evaluation.speed.speed_worker; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert not {"torch", "transformers", "onnxruntime", "datasets"} & set(loaded)


@pytest.mark.parametrize("kind", ["model.safetensors", "stated twice", "pytorch_model.bin", "from before torch 1.6"])
def test_tied_weights_are_counted_once(kind, student_folder, tmp_path):
    model = DistilBertForMaskedLM.from_pretrained(student_folder)
    if kind == "model.safetensors":
        model.save_pretrained(tmp_path)
    elif kind == "stated twice":
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert "vocab_projector.weight" in weights
        save_file(weights, tmp_path / "model.safetensors")
    else:
        is_archive = kind == "pytorch_model.bin"
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_archive)
    assert count_parameters(tmp_path) == model.num_parameters()


@pytest.mark.parametrize("values", [{"batch_sizes": []}, {"batch_sizes": [0]}, {"threads": 0}, {"device": "tpu"}])
def test_settings_that_mean_nothing_are_refused(values):
    with pytest.raises(ValidationError):
        SpeedSettings(**values)
