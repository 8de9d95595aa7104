"""What the size of a checkpoint says about the numbers in it."""

from distilrubert.common.measurements import Row
from distilrubert.model_card.cases import Case


def stored_in_16_bits(row: Row) -> bool:
    """Whether a PyTorch row of a speed report was read from a file with two bytes a parameter: fp16 or bf16."""
    size, parameters = row.values.get("size_mib"), row.values.get("parameters")
    if Case.parse(row.case).backend != "pytorch" or not size or not parameters:
        return False
    # Between two bytes and four; headers and buffers take little.
    return bool(size * 2**20 / parameters < 3)
