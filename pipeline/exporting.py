"""The meeting of two rooms: evaluation scores files, conversion makes them."""

import functools
from collections.abc import Sequence

from distilrubert.conversion.finetuned import export_finetuned
from distilrubert.conversion.settings import ConversionSettings
from distilrubert.evaluation.exported import Exporter


def exporters_of(cases: Sequence[str], settings: ConversionSettings | None = None) -> dict[str, Exporter]:
    """What makes files of fine-tuned models, by case.

    Args:
        cases: keys of :data:`~distilrubert.conversion.formats.FORMATS`.
        settings: how int8 is made; the defaults where None.
    """
    how = settings or ConversionSettings()
    decisive = how.model_dump(mode="json", include={"calibration_sentences", "largest_layer_error"})
    return {case: Exporter(functools.partial(export_finetuned, case, how), decisive) for case in cases}
