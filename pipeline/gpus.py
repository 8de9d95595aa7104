"""What GPUs that are not here could do, for `publish --dry-run --gpus`."""

import dataclasses
import re
from typing import Self

from distilrubert.common.errors import UserError

# What a training is assumed to reach of the speed that a GPU's maker states.
UTILISATION = 0.3
# Products in bf16 with dense matrices, in 10¹² operations a second, by the makers' data sheets; fp16 where there is no
# bf16 (V100, T4).
GPUS = {
    "A10": 125, "A100": 312, "B200": 2250, "H100": 989, "H200": 989, "L4": 121, "L40S": 362, "MI300X": 1307,
    "RTX3090": 71, "RTX4090": 165, "T4": 65, "V100": 125,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Gpus:
    """GPUs that a training is to run on, one process on each.

    Attributes:
        number: how many.
        name: a key of `GPUS`.
    """

    number: int
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``8xH100``, or ``H100`` for one.

        Raises:
            UserError: if it says no number of a GPU that is known.
        """
        found = re.fullmatch(r"(?:([1-9]\d*)x)?(\w+)", text)
        name = found[2].upper() if found else ""
        if found is None or name not in GPUS:
            raise UserError(f"--gpus {text}: is no number of GPUs, for example 8xH100; known are {', '.join(GPUS)}")
        return cls(int(found[1] or 1), name)

    @property
    def operations_per_s(self) -> float:
        """What all of them reach together."""
        return self.number * GPUS[self.name] * 1e12 * UTILISATION

    def __str__(self) -> str:
        return f"{self.number} × {self.name} at {100 * UTILISATION:.0f} % of {GPUS[self.name]} TFLOP/s each"
