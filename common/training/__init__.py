"""The training loop: it trains any module that computes losses, on any number of processes, and resumes exactly."""
