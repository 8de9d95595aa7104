"""The distillation losses, one small module each."""
