"""Families of public weights: what people have downloaded already, run by this engine.

A family is a file here. Weights come from local folders, as safetensors with their `config.json`; nothing is fetched
and nothing is unpickled. Packages of the extra `public` are imported only where a family needs them.

Letters used in this package, beside those of `models`:
    B streams, F frames, f latent frames, h and w height and width of a latent, L = f·h·w tokens (after patches),
    D width, N heads, d channels of a head, K audio tokens a latent frame.
"""
