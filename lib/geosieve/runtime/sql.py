"""Texts and names inside expressions of Spark SQL.

Long expressions are written as SQL, because every function and literal of a `Column` takes several calls to the JVM.
"""

from __future__ import annotations


def sql_text(text: str) -> str:
    """Return a text as a literal of Spark SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def sql_name(name: str) -> str:
    """Return the name of a column, quoted for Spark SQL."""
    return "`" + name.replace("`", "``") + "`"
