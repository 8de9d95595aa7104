"""transformers.js and the runtime beneath it: which files, from where, and what they must hold.

transformers.js imports ONNX Runtime for WebGPU, whose WebAssembly has 27 MB. The page's import map puts the build for
the CPU alone in its place, which has 14.
"""

import base64
import dataclasses
import hashlib
import shutil
from pathlib import Path

from distilrubert.common.errors import UserError

CDN = "https://cdn.jsdelivr.net/npm"


@dataclasses.dataclass(frozen=True)
class LibraryFile:
    """A file of an npm package.

    Attributes:
        package: its name on npm.
        version: of the package.
        path: in it.
        integrity: SHA-384 of its content, as browsers check it.
    """

    package: str
    version: str
    path: str
    integrity: str

    @property
    def name(self) -> str:
        """Of the file alone."""
        return self.path.rpartition("/")[2]

    @property
    def cdn(self) -> str:
        """Its address."""
        return f"{CDN}/{self.package}@{self.version}/{self.path}"

    def copy(self, packages: Path, folder: Path) -> None:
        """Copy it from a folder of npm packages.

        Raises:
            UserError: if it is missing there, or is not of this version.
        """
        source = packages / self.package / self.path
        if not source.is_file():
            raise UserError(f"--offline-assets {packages}: {self.package}/{self.path} is missing; {self._advice}")
        if integrity_of(source) != self.integrity:
            raise UserError(
                f"--offline-assets {packages}: {self.package}/{self.path} is another version; {self._advice}"
            )
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / self.name)

    @property
    def _advice(self) -> str:
        return f"npm install {TRANSFORMERS.package}@{TRANSFORMERS.version} makes a node_modules that has it"


TRANSFORMERS = LibraryFile(
    "@huggingface/transformers", "4.3.1", "dist/transformers.web.min.js",
    "sha384-Wdo8O83tMYP9xRVBKFSxwMStkw0K4iY+FmChXm/4e//sv66vg68y2flNvmtx6bPH",
)  # fmt: skip
# The version that this version of transformers.js asks for.
_RUNTIME_VERSION = "1.31.0-dev.20260914-8d85527a0"
RUNTIME = LibraryFile(
    "onnxruntime-web", _RUNTIME_VERSION, "dist/ort.wasm.bundle.min.mjs",
    "sha384-rb+zD6nKrYqdffKZxEFA2qD+Aq+gDcqQOJ7VEOAWUCsrlpRf6VALFrRzLPo/dt5J",
)  # fmt: skip
WASM = LibraryFile(
    "onnxruntime-web", _RUNTIME_VERSION, "dist/ort-wasm-simd-threaded.wasm",
    "sha384-LrOPe1yNsLVzhsriuQfxO06RWx/XakR0S8uiOMx7HVJP6N/IEaR1EAgJMFeTanif",
)  # fmt: skip
FILES = (TRANSFORMERS, RUNTIME, WASM)
IMPORTS = {
    "@huggingface/transformers": TRANSFORMERS,
    "onnxruntime-common": RUNTIME,
    "onnxruntime-web/webgpu": RUNTIME,
}
"""What each name that is imported stands for."""


def integrity_of(path: Path) -> str:
    """The SHA-384 of a file, as browsers check it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha384").digest()
    return f"sha384-{base64.b64encode(digest).decode()}"
