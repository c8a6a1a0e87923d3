"""What a person reads of a run: the single-file report, the preview page, the dataset card."""

from __future__ import annotations

from tercet.report.card import write_card
from tercet.report.page import write_preview, write_report

__all__ = ["write_card", "write_preview", "write_report"]
