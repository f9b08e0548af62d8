"""`pytest tests/simulation --seeds N --first S`: how many seeds, beside those that are kept."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=4, help="worlds to live through")
    parser.addoption("--first", type=int, default=1, help="the first of them")
