"""Skipping what this machine cannot do, except in continuous integration, where it must be able to."""

import os
import shutil
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the running test; with ``CI=true`` fail it, so that nothing goes untested unnoticed."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (CI=true: not skipped)", pytrace=False)
    pytest.skip(reason)


def need_program(name: str) -> str:
    """The path of a program on PATH; the running test is skipped (failed with ``CI=true``) without it."""
    path = shutil.which(name)
    if path is None:
        skip_or_fail(f"{name} is not installed")
    return path
