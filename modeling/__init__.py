"""What a teacher and a student are: architectures, loading, initialisation, vocabularies.

The lowest room: it imports no other. It also holds what every room stands on: the user's error
(:mod:`~distilrubert.modeling.errors`), files that appear whole or not at all
(:mod:`~distilrubert.modeling.persistence`), the base of configuration sections
(:mod:`~distilrubert.modeling.configuration`) and the common form of measurements
(:mod:`~distilrubert.modeling.reports`).
"""
