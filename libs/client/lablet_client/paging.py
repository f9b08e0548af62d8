"""Lists, page by page: a page as it was answered, and the iterator over all of them.

All pages of one walk show one revision. When that revision is compacted away in between, the server says so (`Gone`) and
the walk must begin anew; it is not begun anew here, since what was seen already would come twice.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. `revision` is the one that it shows; `next_cursor` asks for what follows."""

    items: tuple[T, ...]
    revision: int
    next_cursor: str | None


async def walk(fetch: Callable[[str | None], Awaitable[Page[T]]]) -> AsyncIterator[T]:
    """Every item of every page; `fetch` is given the cursor."""
    cursor: str | None = None
    while True:
        page = await fetch(cursor)
        for item in page.items:
            yield item
        if page.next_cursor is None:
            return
        cursor = page.next_cursor
