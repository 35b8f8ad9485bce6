"""The models of the avatar engine: causal VAE, LR-A2V, pose, PG-Refiner, and the pipeline that ties them.

Letters in shapes, for the whole package: B batch, C channels, T latent frames, H W picture or latent rows and
columns, N heads, L tokens, d head dimension, D token width, n new latents of a chunk, m motion latents.
"""
