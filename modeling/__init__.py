"""What a teacher and a student are: architectures, loading, initialisation, vocabularies."""
