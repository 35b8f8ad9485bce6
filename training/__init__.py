"""Training: synthetic presenters, data, losses and one script a stage."""

from models.threads import calm_threads

calm_threads()  # here, because it has to be before the modules of this package import torch
