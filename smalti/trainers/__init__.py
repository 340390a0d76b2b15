"""Training: loop, losses, schedules, density control, checkpoints, evaluation."""
