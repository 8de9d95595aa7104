"""One way to open a file: every case computes the same model, with inputs of any tokenizer."""

import json
import subprocess
import sys

import numpy as np
import pytest

from distilrubert.common.formats import CASES, FORMATS, FileFormat, FormatCase, measured_cases
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.runtimes import open_model
from distilrubert.modeling.student import build_student, save_student


@pytest.fixture(scope="module")
def folder(tiny_teacher, sentences, tmp_path_factory):
    """A student in the format of every case."""
    from distilrubert.conversion.conversion_settings import ConversionSettings
    from distilrubert.conversion.export_source import ExportSource
    from distilrubert.conversion.writers import write_file
    from distilrubert.modeling.checkpoints import load_pretrained

    folder = tmp_path_factory.mktemp("runtimes")
    save_student(build_student(tiny_teacher, StudentArchitecture(layers=1, initialise_from=[0])), folder / "student")
    source = ExportSource.of_text(load_pretrained(folder / "student"), ConversionSettings(), sentences[:9])
    for case in FORMATS:
        write_file(case, source, folder / "all")
    return folder / "all"


@pytest.mark.export
def test_every_case_computes_the_same_model(folder):
    ids_BL = np.random.default_rng(0).integers(5, 100, (2, 9))
    # DistilBERT has no token types, which a teacher's tokenizer yields.
    inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL), "token_type_ids": np.zeros_like(ids_BL)}
    tasks = ("feature-extraction", "fill-mask")
    expected = {task: open_model(folder, FORMATS["pytorch-fp32"], task)(inputs)[0] for task in tasks}
    for name, case in CASES.items():
        model = open_model(folder, case.format, threads=1, hint=case.hint)
        (found,) = model(inputs)
        assert found.dtype == np.float32
        (again,) = model({**inputs, "input_ids": ids_BL[:, ::-1].copy()})
        assert not np.array_equal(found, again), f"{name}: outputs of two passes share their memory"
        truth = expected[case.format.task or "feature-extraction"]
        cosine_BL = (found * truth).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(truth, axis=-1)
        assert cosine_BL.min() > (0.9 if "int8" in name else 0.99), name


@pytest.mark.export
def test_openvino_computes_in_what_the_hint_says(folder, monkeypatch):
    import openvino

    asked = []
    compile_model = openvino.Core.compile_model

    def watch(core, path, device, settings):
        asked.append(settings)
        return compile_model(core, path, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", watch)
    open_model(folder, FORMATS["openvino-int8"])
    open_model(folder, FORMATS["openvino-int8"], threads=1, hint="bf16")
    assert asked == [
        {"INFERENCE_PRECISION_HINT": "f32"},
        {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1},
    ]


@pytest.mark.export
@pytest.mark.parametrize("blocks", [0, 200])
def test_a_signal_after_files_were_closed_is_only_handled(folder, blocks):
    program = (
        "import mmap, signal, sys\n"
        "from pathlib import Path\n"
        "from distilrubert.common.formats import FORMATS\n"
        "from distilrubert.modeling.runtimes import open_model\n"
        "first, second = (open_model(Path(sys.argv[1]), FORMATS['openvino-fp32']) for _ in range(2))\n"
        "del first\n"
        "del second\n"
        # Memory that is mapped now takes the place of what the runtime has unmapped.
        "mapped = [mmap.mmap(-1, 3 * mmap.PAGESIZE) for _ in range(int(sys.argv[2]))]\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "signal.raise_signal(signal.SIGUSR1)\n"
        "assert not any(any(memory[:]) for memory in mapped)\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_cpu_with_bf16_has_a_case_for_each_hint_of_openvino():
    def names(instruction_sets):
        return [case.name for case in measured_cases(FORMATS.values(), instruction_sets)]

    assert names(["avx2"]) == list(FORMATS)
    assert set(names(["avx512_bf16"])) - set(FORMATS) == {
        "openvino-fp32-in-bf16", "openvino-fp16-in-bf16", "openvino-int8-in-bf16",
    }  # fmt: skip


def test_two_cases_share_the_file_of_pytorch():
    assert CASES["pytorch-bf16"] == FormatCase(FORMATS["pytorch-fp32"], "bf16")
    assert "pytorch-bf16" not in FORMATS


def test_the_files_of_a_format_belong_together(tmp_path):
    from distilrubert.common.errors import UserError

    entry = FileFormat("some", "int8", "a/model.bin", "int8", "", "", companions=("a/model.xml",), alternatives=("b",))
    with pytest.raises(UserError, match=r"a/model\.bin or b is missing|a/model\.xml"):
        entry.find(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/model.xml").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"4567")
    assert entry.size_mib(tmp_path) == 7 / 2**20
    assert set(entry.digests(tmp_path)) == {"b", "a/model.xml"}
    (tmp_path / "a/model.bin").write_bytes(b"")
    assert set(entry.digests(tmp_path)) == {"a/model.bin", "a/model.xml"}
    (tmp_path / "a/model.xml").unlink()
    with pytest.raises(UserError, match=r"a/model\.xml is missing"):
        entry.find(tmp_path)
    assert not entry.is_in(tmp_path)


def test_no_runtime_is_imported_before_a_file_is_opened():
    program = "import json, sys, distilrubert.modeling.runtimes; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert not {"torch", "transformers", "onnxruntime", "openvino"} & set(loaded)
