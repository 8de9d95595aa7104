"""What a vocabulary takes and how it reads text, beside the one that it was made from."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.sampling import sampled
from distilrubert.modeling.trimming import count_tokens, ids_in, measure_resplit

BYTES = 4  # of a number in fp32
# A large corpus holds out more than the memory should.
HELD_OUT_TEXTS = 100_000


def measure_vocabularies(
    vocabularies: Mapping[str, tuple[PreTrainedTokenizerFast, int]],
    held_out: Iterable[str],
    counts_T: NDArray[np.int64] | None = None,
) -> Measurements:
    """Tokens and bytes of two vocabularies, how text is tokenised with them, and what trimming changes.

    Args:
        vocabularies: by the names of their cases: the whole tokenizer or the teacher's, and the one made from it, each
            with the width of its embeddings.
        held_out: text from which neither was made, of which a sample is taken where it is much.
        counts_T: how often the training text needs each token of the first, where the second is a part of it.
    """
    texts = sampled(held_out, HELD_OUT_TEXTS)
    (baseline, (whole, _)), (made_case, (made, _)) = vocabularies.items()
    rows: list[Row] = []
    for case, (tokenizer, width) in vocabularies.items():
        tokens, unknown = count_tokens(tokenizer, texts)
        figures: dict[str, Any] = {
            "tokens": len(tokenizer),
            "embeddings_mib": len(tokenizer) * (width + 1) * BYTES / 2**20,
            "held_out_tokens": tokens,
            "held_out_unknown_share": unknown / max(tokens, 1),
        }
        if case == made_case and counts_T is not None:
            kept, needed = int(counts_T[ids_in(whole, made)].sum()), int(counts_T.sum())
            resplit = measure_resplit(whole, made, texts)
            figures |= {
                "training_resplit_token_share": 1 - kept / max(needed, 1),
            }
            # Of no text there is no share.
            if resplit.texts:
                figures["held_out_resplit_token_share"] = resplit.dropped / max(resplit.tokens, 1)
                figures["held_out_resplit_text_share"] = resplit.changed / resplit.texts
        rows.append(Row(case, figures, rows[0].values["embeddings_mib"] / figures["embeddings_mib"] if rows else 1.0))
    return Measurements(Environment.capture(), rows, baseline, {"held_out_texts": len(texts)})
