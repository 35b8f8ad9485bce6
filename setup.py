"""What pyproject.toml cannot say: a piece of C that is built where there is a compiler, and done without elsewhere."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("models.portrait._raster", ["models/portrait/raster.c"], extra_compile_args=["-O3"], optional=True)
    ]
)
