from pathlib import Path

import pytest
from filelock import FileLock

from distilrubert.common.measurements import Measurements
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import Student, build_student, save_student

# Random weights suffer more than those of real models, from which the default bounds were chosen: on a CPU with bf16
# the first percentile of int8 is 0.9498, and two to four percent of the first predictions change in bf16.
OF_RANDOM_WEIGHTS = Tolerances(
    bf16=Tolerance(token_cosine=0.998, token_cosine_p1=0.99, pooled_cosine=0.998, top1_agreement=0.95),
    int8=Tolerance(token_cosine=0.98, token_cosine_p1=0.9, pooled_cosine=0.88, top1_agreement=0.9),
)
ALL_FILES = ConversionSettings(
    onnx=["fp32", "int8", "int8-avx2", "int8-avx512-vnni", "int8-arm64", "masked-lm-int8"],
    openvino=["fp32", "fp16", "int8"],
    tolerance=OF_RANDOM_WEIGHTS,
)


@pytest.fixture(scope="session")
def all_files() -> ConversionSettings:
    """Settings that ask for every file."""
    return ALL_FILES


@pytest.fixture(scope="session")
def tiny_student(tiny_teacher) -> Student:
    return build_student(tiny_teacher, StudentArchitecture(layers=2, initialise_from=[0, 3]))


@pytest.fixture(scope="session")
def tiny_student_folder(tiny_student, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "tiny"
    save_student(tiny_student, folder)
    return folder


@pytest.fixture(scope="session")
def converted(tiny_student_folder, sentences, common_folder) -> tuple[Path, Measurements]:
    """The student with all files, made once; tests do not write to it."""
    report = common_folder / "converted.json"
    output = common_folder / "converted" / "hub"
    with FileLock(report.with_suffix(".lock")):
        if not report.exists():
            convert(tiny_student_folder, output, ALL_FILES, sentences, sentences).save(report)
    return output, Measurements.load(report)
