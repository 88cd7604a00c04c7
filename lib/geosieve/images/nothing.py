"""Placeholders for missing values: one vocabulary for coordinate lists, Parquet and EXIF."""

from __future__ import annotations

WORDS_FOR_NOTHING = (
    *("nan", "-nan", "<na>", "nat", "none", "null", "(null)", "nil", "undefined", "unknown"),
    *("na", "n/a", "n.a.", "#na", "#n/a", "\\n", "-", "--", "\u2013", "\u2014", "?", ".", '""', "''"),
)
"""What pandas, numpy, SQL dumps, spreadsheets, statistics programs and people write for no value; in lower case."""

NO_DATE = r"^(0000[-:/]00[-:/]00|1899[-:/]12[-:/]30)([ T].*)?$"
"""Texts that are no date: MySQL's and EXIF's zeros, and day 0 of spreadsheets and OLE, with any time."""

NOTHING = "words_for_nothing"
"""Column of checked rows: names of the row's optional columns that hold a word for nothing."""
