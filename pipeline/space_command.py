"""`distilrubert space`: the demo page of a model as a folder."""

import argparse

from distilrubert.model_card.space.demo_page import LIBRARY_FOLDER, write_page
from distilrubert.model_card.space.library import CDN
from distilrubert.pipeline.hub.files import require_model


def space(options: argparse.Namespace) -> None:
    """Write the page of a model repository, with the model beside it."""
    require_model(options.folder)
    write_page(options.folder, options.output, offline_assets=options.offline_assets)
    library = f"in {LIBRARY_FOLDER}/" if options.offline_assets else f"loaded from {CDN}"
    print(
        f"The page is in {options.output}, its library is {library}. Open it at http://127.0.0.1:8000 after\n\n"
        f"  python -m http.server --bind 127.0.0.1 --directory {options.output}"
    )
