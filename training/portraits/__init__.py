"""The networks that see a portrait, and how they learn from `training.synthetic.portraits`.

Letters: L landmarks of the face mesh, P points of a network, N cells of a layout a side.
"""
