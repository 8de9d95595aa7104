"""What pyproject.toml cannot say: the scripts at the root are no modules of the installed package."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Leaves out publish.py, the front door of a clone, and this file: the package is mapped to the root."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """The modules of a package: name of the package, of the module, path."""
        return [
            found
            for found in super().find_package_modules(package, package_dir)
            if found[1] not in ("publish", "setup")
        ]


setup(cmdclass={"build_py": BuildPy})
