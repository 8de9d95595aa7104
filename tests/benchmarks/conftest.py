"""Fixtures of the benchmarks that change published files."""

from tests.conversion.conftest import converted, tiny_student, tiny_student_folder

__all__ = ["converted", "tiny_student", "tiny_student_folder"]
