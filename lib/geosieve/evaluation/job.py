"""Job `evaluate`: compare the predictions of systems with the truth; write figures by stratum, and a summary."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial, reduce
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame

from geosieve.evaluation.config import EvaluateConfig
from geosieve.evaluation.estimates import ALL, estimate
from geosieve.evaluation.matching import GivenList, check, kept, open_lists, settle
from geosieve.evaluation.scored import Scored
from geosieve.evaluation.scoring import Scorer, collect_scores, stratum_values
from geosieve.evaluation.summary import html, markdown
from geosieve.evaluation.truth import region_names
from geosieve.images import row_checks
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.runtime.errors import IntegrityError
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import EVALUATIONS, REJECTS


def _leaves(_: EvaluateConfig) -> list[Leaf]:
    return [Leaf(REJECTS, {"job": "evaluate", "part": "all"}), Leaf(EVALUATIONS)]


@publishes(_leaves)
def evaluate(context: Context[EvaluateConfig], publication: Publication) -> int:
    """Publish `evaluations`, with `_summary.md` and `_summary.html` beside it.

    Rows of truth and predictions = images evaluated + predictions used + rejects; otherwise IntegrityError.
    InputError if a list cannot be used: see `open_lists`, `check`, `settle`, and `estimate`.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("open"):
        truth, systems = open_lists(spark, config)
    if context.dry_run:
        lists = [truth, *systems]
        context.show_plan(
            {given.key: given.rows.columns for given in lists}, {given.key: given.rows for given in lists}
        )
        return 0
    with ExitStack() as stack:
        with report.stage("read"):
            truth, *systems = (stack.enter_context(kept(given)) for given in (truth, *systems))
            # In parallel, because a list is often a single file, which is read by a single task.
            with ThreadPoolExecutor() as pool:
                counts = pool.map(partial(check, most_refused=config.most_refused), (truth, *systems))
            report.rows_in = sum(counts)
        with report.stage("score"):
            scored = _score(config, truth, systems)
        used = {name: int((~answers.missing).sum()) for name, answers in scored.systems.items()}
        with report.stage("rejects"):
            rejects = [row_checks.rejects(truth.rows, truth.key)]
            for given, predictions in zip(systems, used.values(), strict=True):
                settled = settle(given, truth.rows, predictions, config.unmatched)
                rejects.append(row_checks.rejects(settled, given.key))
            rejected = publication.write(REJECTS, reduce(DataFrame.unionByName, rejects))
            by_class = _count_rejects(publication.written(REJECTS))
            report.rejected = {f"{key}: {error}": rows for (key, error), rows in by_class.items()}
        with report.stage("estimate"):
            figures = estimate(scored, config.plan())
    report.rows_out = len(scored) + sum(used.values())
    if report.rows_in != report.rows_out + rejected:
        raise IntegrityError(
            f"{report.rows_in} rows came in but {len(scored)} images and {sum(used.values())} predictions were "
            f"evaluated and {rejected} rejected",
            where=publication.uris[-1],
            hint="nothing was committed; please report this",
        )
    report.details |= _details(config, scored, figures)
    with report.stage("write"):
        rows = spark.createDataFrame(_nullable(figures), EVALUATIONS.spark_schema()).coalesce(1)
        written = publication.write(EVALUATIONS, rows)
        names = {given.key: given.name for given in (truth, *systems)}
        notes = _notes(config, report.details, {(names[key], error): n for (key, error), n in by_class.items()})
        publication.attach(EVALUATIONS, "_summary.md", markdown(figures, notes))
        publication.attach(EVALUATIONS, "_summary.html", html(figures, notes))
    return written + rejected  # rows in tables; that no input row was lost is checked above


def _count_rejects(rejects: DataFrame) -> dict[tuple[str, str], int]:
    """Number of rejects by list key and error class."""
    found = rejects.groupBy("stage", "error_class").count().collect()
    return {(row["stage"], row["error_class"]): row["count"] for row in sorted(found)}


def _score(config: EvaluateConfig, truth: GivenList, systems: list[GivenList]) -> Scored:
    strata = stratum_values(truth.good, list(config.truth.strata))
    regions = region_names(truth.labels, strata) if truth.labels is not None else {}
    areas = tuple(system.columns.area_km2 is not None for system in config.systems)
    scorer = Scorer(strata, areas, config.places, config.continent)
    return collect_scores(truth.good, {given.name: given.rows for given in systems}, scorer, regions)


def _nullable(figures: pd.DataFrame) -> pd.DataFrame:
    """Replace NaN by null, because query engines treat NaN as a number."""
    return figures.astype(object).where(figures.notna(), None)


def _details(config: EvaluateConfig, scored: Scored, figures: pd.DataFrame) -> dict[str, Any]:
    """Details for the report: counts of images, and the unbalanced figures over all images."""
    unbalanced = {s.name: int((s.codes >= s.n_buckets).sum()) for s in scored.strata if s.name == config.balance}
    whole = figures[(figures["stratum"] == ALL) & figures["balanced_by"].isna() & figures["compared_to"].isna()]
    whole = whole[~whole["metric"].isin(["recall_curve", "area_curve"])]
    found: dict[str, dict[str, list[float]]] = {system: {} for system in scored.systems}
    for row in _nullable(whole).to_dict("records"):
        at = "" if row["threshold_km"] is None else f" {row['threshold_km']:g} km"
        found[row["system"]][f"{row['protocol']} {row['metric']}{at}"] = [row["value"], row["low"], row["high"]]
    missing = {system: int(answers.missing.sum()) for system, answers in scored.systems.items()}
    refused = {system: _counts(answers.refused) for system, answers in scored.systems.items()}
    return {
        "images": len(scored),
        "missing": missing,
        "refused": refused,
        "left_out_of_balanced": unbalanced,
        "figures": found,
    }


def _counts(classes: pd.Categorical | None) -> dict[str, int]:
    """Number of images by error class, in alphabetical order."""
    return {} if classes is None else {str(name): int(count) for name, count in classes.value_counts().items()}


def _notes(config: EvaluateConfig, details: dict[str, Any], rejected: dict[tuple[str, str], int]) -> list[str]:
    refused = {name: classes for name, classes in details["refused"].items() if classes}
    missing = ", ".join(
        f"{name} {count - sum(details['refused'][name].values()):,}" for name, count in details["missing"].items()
    )
    by_list: dict[str, list[str]] = {}
    for (name, error), rows in rejected.items():
        by_list.setdefault(name, []).append(f"{error} {rows:,}")
    return [
        f"{details['images']:,} images. Without a prediction, which counts as a miss everywhere: {missing}.",
        *(
            f"With a prediction that was refused, which counts as a miss too: {name}: "
            + ", ".join(f"{error} {count:,}" for error, count in classes.items())
            + "."
            for name, classes in refused.items()
        ),
        *(f"Rows that were left out of {name}: {', '.join(classes)}." for name, classes in by_list.items()),
        f"Intervals: {config.confidence:.0%} percentile intervals of {config.samples:,} bootstrap samples of images "
        f"(seed {config.seed}); differences of systems are taken sample by sample, on the same images.",
        "mean_km and median_answered_km are over the images that have a prediction, and their differences over those "
        "that both systems answered; for median_km a missing prediction is infinitely far.",
        *(
            f"Balanced figures: each value of {name} weighs the same; {count:,} images without a value (outside, "
            "no data or unknown) are left out of them."
            for name, count in details["left_out_of_balanced"].items()
        ),
    ]
