"""Conformance: golden numbers of the reference implementations, made on weights that a rule gives, made again by us.

    python -m models.public.conformance FOLDER

`rule` makes the weights and inputs, `fixture` reads an item and compares, `items` says who checks which item.
"""
