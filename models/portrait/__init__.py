"""What is made once from a picture of a person, and what moves it.

Letters: L landmarks (vertices of the face mesh), F triangles, A face actions.
Coordinates: pictures in pixels, x right, y down, z towards the viewer in the same pixels. Face units: the centres
of the two eyes are 1 apart, the origin is midway between them, axes as in pictures; canonical is the mean identity,
neutral, looking at the viewer. Left and right in names are the person's.
"""
