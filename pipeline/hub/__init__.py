"""Publishing a folder on the Hugging Face Hub."""
