"""What pyproject.toml cannot say: the schema lies beside the library here, and in it in a wheel."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["nanogpt2", "nanogpt2.*"]), "nanogpt2.schemas"],
    package_dir={"nanogpt2.schemas": "schemas"},
)
