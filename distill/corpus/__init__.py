"""Text to tokenised sequences on disk: sources, deduplication, tokenisation, storage."""
