"""Fixtures of the rooms whose reports and files are verified."""

from tests.conversion.conftest import tiny_student, tiny_student_folder
from tests.evaluation.conftest import (
    fresh_teacher,
    noun_task,
    noun_task_file,
    student_folder,
    teacher_folder,
)

__all__ = [
    "fresh_teacher", "noun_task", "noun_task_file", "student_folder", "teacher_folder", "tiny_student",
    "tiny_student_folder",
]  # fmt: skip
