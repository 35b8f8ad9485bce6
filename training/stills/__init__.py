"""Pictures of the gallery's presenters, path traced: the same people as `training.synthetic`, with light, skin and hair
that a rasteriser in real time cannot give.

Two steps, for Blender wants a Python of its own: `python -m training.stills.figure` writes what is to be seen into one
file, `python training/stills/draw.py` (with `bpy` installed, and nothing of this project) draws it.
"""
