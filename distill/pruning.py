"""The importance of a teacher's parts on a corpus, measured once before its student is made, and kept in a file."""

import hashlib
from pathlib import Path

import numpy as np

from distilrubert.common.bars import tracked
from distilrubert.common.sampling import evenly
from distilrubert.common.training.batching import plan_epoch
from distilrubert.common.training.padding import padded_widths
from distilrubert.common.training.ranks import computed_once
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.corpus.store import Corpus
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.importance import Importance, measure_importance
from distilrubert.modeling.teacher import Teacher, on_gpu

BATCH_TOKENS = 1024


def importance_on(
    teacher: Teacher, corpus: Corpus, sequences: int, masking: MaskingSettings, seed: int, folder: Path
) -> Importance:
    """How much the parts of a teacher matter: as kept in `folder`, or measured.

    Training text is read, so that nothing of the student is chosen on what is held out. Of several processes the first
    one measures, and the others wait.

    Args:
        teacher: it is only read.
        corpus: text in its tokens.
        sequences: the number of training sequences, at even distances; all, if there are no more.
        masking: which tokens are to be predicted. An encoder without a head reads the text unmasked.
        seed: of the masks, and of what :func:`~distilrubert.modeling.importance.measure_importance` draws.
        folder: gets a file, whose name tells the teacher, the text and the settings.
    """
    chosen = evenly(range(len(corpus.train)), sequences)
    if not has_head(teacher.model):
        masking = masking.model_copy(update={"probability": 0.0})
    masker = Masker(
        masking,
        corpus.token_counts,
        teacher.tokenizer.all_special_ids,
        teacher.tokenizer.mask_token_id,
        seed,
        teacher.tokenizer.pad_token_id,
    )
    texts = [np.asarray(corpus.train[index], dtype=np.int32) for index in chosen]
    digest = hashlib.sha256(f"{teacher.sha256()} {masking.model_dump_json()} {seed} ".encode())
    for text in texts:
        digest.update(text.tobytes() + b"|")
    path = folder / f"importance-{digest.hexdigest()[:20]}.safetensors"

    def measure(beside: Path) -> None:
        lengths = np.array([len(text) for text in texts], dtype=np.int32)
        batch_tokens = max(BATCH_TOKENS, int(padded_widths(lengths).max()))
        plan = plan_epoch(lengths, batch_tokens=batch_tokens, batches_per_update=1, seed=seed, epoch=0)
        with on_gpu(teacher.model) as model:
            batches = (
                masker.collate([texts[place] for place in batch], 0, [chosen[place] for place in batch])
                for batch in tracked(plan, "importance of the teacher's parts", unit="batch")
            )
            on_device = ({name: tensor.to(model.device) for name, tensor in batch.items()} for batch in batches)
            measure_importance(model, on_device, seed).save(beside)

    computed_once(path, measure)
    return Importance.load(path)
