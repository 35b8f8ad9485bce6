"""Single pictures of random people with exact labels.

Letters: L landmarks of the face mesh, N label pixels a side. Labels follow `models.portrait`: x right, y down,
z towards the viewer.
"""
