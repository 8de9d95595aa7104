"""The forms that benchmarks/distillation/steps.py compares do the same work."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from distilrubert.common.training import compiling

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def forms() -> ModuleType:
    return load("step_forms")


@pytest.fixture(scope="module")
def steps(forms: ModuleType) -> ModuleType:
    return load("steps")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / "distillation" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert"])
def test_losses_and_gradients_agree(forms: ModuleType, family: str) -> None:
    shapes = forms.Shapes(
        60, teacher_layers=4, student_layers=2, width=16, heads=2, inner_width=24, sequences=3, length=9, family=family
    )
    torch.manual_seed(0)
    teacher, student, batch = forms.build_teacher(shapes), forms.build_student(shapes), forms.random_batch(shapes)
    found = {}
    for name, loss in (
        ("reference", forms.reference_step(student, teacher, batch)),
        ("plain", forms.plain_step(student, teacher, batch)),
        ("fused", forms.fused_step(student, teacher, "all")(batch)),
        ("recomputed", forms.fused_step(student, teacher, "recomputed")(batch)),
    ):
        student.zero_grad()
        loss.backward()
        found[name] = [loss.detach(), *(parameter.grad.clone() for parameter in student.parameters())]
    torch.testing.assert_close(found["reference"], found["plain"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["fused"], found["plain"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["recomputed"], found["fused"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compiled", "liger"])
def test_compiled_forms_agree(forms: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Without the compiler's code generator. Liger's loss over the vocabulary is that of masked positions."""
    if kind == "liger":
        pytest.importorskip("liger_kernel")
        monkeypatch.setattr(forms.LigerLoss, "compiled", False)
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    sizes = {"width": 16, "heads": 2, "inner_width": 24, "sequences": 3, "length": 9}
    shapes = forms.Shapes(60, teacher_layers=4, student_layers=2, **sizes)
    torch.manual_seed(0)
    teacher, student = forms.build_teacher(shapes), forms.build_student(shapes)
    found = []
    for each in ("fused", kind):
        step = forms.fused_step(student, teacher, "masked", each)
        for seed in (1, 2):
            torch.manual_seed(seed)
            student.zero_grad()
            loss = step(forms.random_batch(shapes))
            loss.backward()
        found.append([loss.detach(), *(parameter.grad.clone() for parameter in student.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_case_that_cannot_run_is_left_out(
    steps: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["steps.py", "--output", "x", "--cases", "plain-fp32", "liger-masked-bf16"])
    assert steps.parse_arguments().cases == ["plain-fp32"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=1) == ["liger-masked-bf16", "left out: the package liger-kernel is missing"]
    monkeypatch.setattr(sys, "argv", ["steps.py", "--output", "x", "--device", "cuda"])
    assert set(steps.parse_arguments().cases) == set(steps.CPU_CASES)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["steps.py", "--output", "x"])
    assert set(steps.parse_arguments().cases) == set(steps.CPU_CASES)


def test_the_arithmetic_of_the_true_shapes(forms: ModuleType) -> None:
    # By hand: 8 x 768 x 119,547 for the head, (12 + 3 x 6) blocks of 14.4 million.
    assert forms.flop_per_token(forms.Shapes(), 1.0) == pytest.approx(1.17e9, rel=0.01)
    assert forms.flop_per_token(forms.Shapes(), 0.15) == pytest.approx(0.54e9, rel=0.01)


def test_the_shapes_of_other_families(forms: ModuleType, steps: ModuleType) -> None:
    shapes = forms.Shapes()
    assert steps.parts_of("fused-all-bf16", shapes) == ("", "fused-all-bf16", shapes)
    family, form, xlm_r = steps.parts_of("xlm-r-plain-fp32", shapes)
    assert (family, form, xlm_r.vocabulary) == ("xlm-r-", "plain-fp32", 250_002)
    with torch.device("meta"):
        assert forms.build_teacher(xlm_r).num_parameters() == 278_295_186  # of FacebookAI/xlm-roberta-base
    _, form, modernbert = steps.parts_of("modernbert-fused-masked-bf16", shapes)
    assert (form, modernbert.inner_width, modernbert.vocabulary) == ("fused-masked-bf16", 1152, 119_547)
    # By hand: thirty blocks of 2 x (4 x 768 x 768 + 3 x 768 x 1152) + 4 x 64 x 768, and the four products of the head.
    assert forms.flop_per_token(modernbert, 1.0) == pytest.approx(30 * 10_223_616 + 8 * 768 * (768 + 119_547))


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    output = tmp_path / "distillation.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "distillation" / "steps.py"),
        "--small",
        "--threads",
        "1",
        "--output",
        str(output),
    ]
    # Each case is a process of its own.
    cases = ["xlm-r-plain-fp32", "xlm-r-fused-masked-fp32", "modernbert-plain-bf16"]
    options = ["--cases", *cases, "--tables", "speed", "--rounds", "1", "--steps", "1"]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=600)
    report = json.loads(output.read_text())
    assert report["baseline"] == "plain-fp32"
    rows = {row["case"]: row for row in report["rows"]}
    assert rows["xlm-r-plain-fp32"]["ratio"] == 1
    assert [*rows] == cases
    assert all(row["tokens_per_s"] > 0 for row in rows.values())
    # The ratio is to the plain form of its own family.
    speeds = {case: row["tokens_per_s"] for case, row in rows.items()}
    assert rows["xlm-r-fused-masked-fp32"]["ratio"] == pytest.approx(
        speeds["xlm-r-fused-masked-fp32"] / speeds["xlm-r-plain-fp32"]
    )
    assert rows["modernbert-plain-bf16"]["ratio"] is None
