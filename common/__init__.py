"""The ground floor, on which every room stands; there is no model in it.

User errors (:mod:`~distilrubert.common.errors`), files that appear whole or not at all
(:mod:`~distilrubert.common.persistence`), the base of configuration sections
(:mod:`~distilrubert.common.configuration`), the form of measurement files
(:mod:`~distilrubert.common.measurements`), and the training loop (:mod:`distilrubert.common.training`).
"""
