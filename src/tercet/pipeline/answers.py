"""Answers kept in the journal, and the budget that stops a run before it spends too much, also across `kill -9`.

Spending is booked before a request leaves (`reserve`) and corrected when its answer is kept. What was booked and never
corrected, because the process died in between, counts as spent: the endpoint may well have charged for it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from tercet.errors import BudgetError
from tercet.recipe import Budget
from tercet.store.journal import Counts, Journal

KINDS = ("requests", "tokens", "money")


class JournalledAnswers:
    """Answers of one run: durable, and within the budget."""

    def __init__(self, journal: Journal, budget: Budget) -> None:
        self._journal = journal
        self._limits = {kind: getattr(budget, kind) for kind in KINDS}
        self._has_limit = any(limit is not None for limit in self._limits.values())
        self._spent = {kind: journal.counter("", kind) for kind in KINDS}
        self._lock = threading.Lock()

    def recall(self, key: str) -> bytes | None:
        """Return the answer kept under `key`, or None."""
        return self._journal.answer(key)

    def keep(self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0) -> None:
        """Keep an answer durably (returns after the commit) and book what it cost beyond its reservation."""
        self._keep(key, value, requests, tokens, money).result()

    async def keep_async(
        self, key: str, value: bytes, *, requests: int = 0, tokens: int = 0, money: float = 0.0
    ) -> None:
        """Do as `keep` without holding up the event loop."""
        await asyncio.wrap_future(self._keep(key, value, requests, tokens, money))

    def reserve(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Book spending before it happens.

        Raises:
            BudgetError: the budget has no room for it; names the limit and what is spent.
        """
        if (ticket := self._reserve(requests, tokens)) is not None:
            ticket.result()

    async def reserve_async(self, *, requests: int = 1, tokens: int = 0) -> None:
        """Do as `reserve` without holding up the event loop."""
        if (ticket := self._reserve(requests, tokens)) is not None:
            await asyncio.wrap_future(ticket)

    def _keep(self, key: str, value: bytes, requests: int, tokens: int, money: float) -> Future[None]:
        spent = self._add({"requests": requests, "tokens": tokens, "money": money})
        return self._journal.submit([("INSERT OR REPLACE INTO answers VALUES (?, ?)", [(key, value)])], spent)

    def _reserve(self, requests: int, tokens: int) -> Future[None] | None:
        wanted = {"requests": float(requests), "tokens": float(tokens), "money": 0.0}
        with self._lock:
            for kind, limit in self._limits.items():
                is_spent = limit is not None and (
                    self._spent[kind] + wanted[kind] > limit or (kind == "money" and self._spent[kind] >= limit)
                )
                if is_spent:
                    raise BudgetError(
                        f"budget.{kind}: {self._spent[kind]:g} of {limit:g} spent, the next request needs "
                        f"{wanted[kind]:g}; what is done is kept: raise the budget and run again"
                    )
        # without a limit nothing waits for the count, and a commit of its own would hold up the answers
        ticket = self._journal.submit([], self._add(wanted), may_wait=not self._has_limit)
        return ticket if self._has_limit else None

    def _add(self, spent: dict[str, float]) -> Counts:
        with self._lock:
            for kind, value in spent.items():
                self._spent[kind] += value
        return {("", kind): value for kind, value in spent.items() if value}
