"""Training: synthetic presenters, data, losses and one script a stage."""
