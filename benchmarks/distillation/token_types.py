"""What a BERT's predictions and hidden states lose on pairs of texts when the second is read as the first.

    python benchmarks/distillation/token_types.py --teacher FOLDER --pairs FILE.parquet \
        --output benchmarks/results/token_types.json

A DistilBERT has no token types: it reads both texts of a pair as type 0. Here the teacher itself does so, beside what
it does with the types that it was trained with. 15 % of the tokens are masked, the same ones in both cases; states
are compared at all tokens that are not special, after the mean of the truth was subtracted from both.

Axes: B pairs, L padded length, N tokens, D width.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
import torch.nn.functional as F
from torch import Tensor

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.sampling import evenly
from distilrubert.modeling.heads import mlm_head_of
from distilrubert.modeling.teacher import Teacher, load_teacher

MASKED = 0.15
BATCH = 32
WITH, WITHOUT = "token types as trained", "both texts of type 0"


def batches(teacher: Teacher, pairs: list[tuple[str, str]], seed: int) -> Iterator[dict[str, Tensor]]:
    """Inputs with some tokens masked, and which tokens are `masked` or `ordinary`, which are all but special ones."""
    generator = torch.Generator().manual_seed(seed)
    ordered = sorted(pairs, key=lambda pair: len("".join(pair)))
    for start in range(0, len(ordered), BATCH):
        first, second = (list(side) for side in zip(*ordered[start : start + BATCH], strict=True))
        inputs = teacher.tokenizer(
            first, second, truncation=True, padding=True, return_special_tokens_mask=True, return_tensors="pt"
        )
        ordinary_BL = inputs["special_tokens_mask"] == 0
        masked_BL = ordinary_BL & (torch.rand(ordinary_BL.shape, generator=generator) < MASKED)
        yield {
            "input_ids": torch.where(masked_BL, teacher.tokenizer.mask_token_id, inputs["input_ids"]),
            "attention_mask": inputs["attention_mask"],
            "token_type_ids": inputs["token_type_ids"],
            "targets": inputs["input_ids"][masked_BL],
            "masked": masked_BL,
            "ordinary": ordinary_BL,
        }


@torch.inference_mode()
def measure(teacher: Teacher, pairs: list[tuple[str, str]], seed: int = 0) -> list[Row]:
    """A row for each way of reading; that without types has how close its states are, by text."""
    head = mlm_head_of(teacher.model)
    states: dict[str, list[Tensor]] = {WITH: [], WITHOUT: []}
    logits: dict[str, list[Tensor]] = {WITH: [], WITHOUT: []}
    targets, types = [], []
    for batch in batches(teacher, pairs, seed):
        targets.append(batch["targets"])
        types.append(batch["token_type_ids"][batch["ordinary"]])
        for case, types_BL in ((WITH, batch["token_type_ids"]), (WITHOUT, torch.zeros_like(batch["token_type_ids"]))):
            hidden_BLD = teacher.model.base_model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], token_type_ids=types_BL
            ).last_hidden_state
            states[case].append(hidden_BLD[batch["ordinary"]])
            logits[case].append(head.transform(hidden_BLD[batch["masked"]]) @ head.weight_VD.T + head.bias_V)
    targets_N, types_N = torch.cat(targets), torch.cat(types)
    states_ND = {case: torch.cat(found) for case, found in states.items()}
    logits_NV = {case: torch.cat(found) for case, found in logits.items()}
    rows = []
    for case, own_NV in logits_NV.items():
        values: dict[str, Any] = {
            "masked_accuracy": float((own_NV.argmax(dim=1) == targets_N).float().mean()),
            "masked_cross_entropy": float(F.cross_entropy(own_NV, targets_N)),
        }
        if case == WITHOUT:
            mean_D = states_ND[WITH].mean(dim=0)
            cosines_N = F.cosine_similarity(states_ND[case] - mean_D, states_ND[WITH] - mean_D, dim=1)
            values |= {
                "top1_agreement": float((own_NV.argmax(dim=1) == logits_NV[WITH].argmax(dim=1)).float().mean()),
                "token_cosine_first": float(cosines_N[types_N == 0].mean()),
                "token_cosine_second": float(cosines_N[types_N == 1].mean()),
            }
        first = rows[0].values if rows else values
        rows.append(Row(case, values, values["masked_accuracy"] / first["masked_accuracy"]))
    return rows


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="a Parquet file")
    parser.add_argument("--columns", nargs=2, default=["text_1", "text_2"])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=300, help="pairs, evenly out of all")
    arguments = parser.parse_args()
    table = pyarrow.parquet.read_table(arguments.pairs, columns=arguments.columns)
    pairs = list(zip(*(table[column].to_pylist() for column in arguments.columns), strict=True))
    chosen = evenly(pairs, arguments.limit)
    teacher = load_teacher(arguments.teacher)
    rows = measure(teacher, chosen)
    for row in rows:
        print(row.case, row.values)
    details = {
        "pairs": len(chosen),
        "masked_share": MASKED,
        "tokens": int(sum(batch["ordinary"].sum() for batch in batches(teacher, chosen, 0))),
        "masked_tokens": int(sum(batch["masked"].sum() for batch in batches(teacher, chosen, 0))),
        "data": arguments.pairs.stem,
    }
    Measurements(Environment.capture(), rows, WITH, details).save(arguments.output)


if __name__ == "__main__":
    main()
