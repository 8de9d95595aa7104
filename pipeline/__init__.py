"""From one recipe to a published model repository."""
