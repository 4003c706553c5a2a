"""What pyproject.toml cannot say. There is nothing to compile yet: this version is the engine in NumPy.

`app/` will be installed under the name `ref_engine_app`; see docs/architecture.md.
"""

from setuptools import find_packages, setup

setup(packages=find_packages(include=["ref_engine", "ref_engine.*"]), package_data={"ref_engine": ["py.typed"]})
