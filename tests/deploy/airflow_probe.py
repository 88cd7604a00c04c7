"""Runs in an environment with Airflow: prints what the DAG's file holds, and what its tasks make of exit codes."""

from __future__ import annotations

import json
import sys

from airflow.models.dagbag import DagBag

bag = DagBag(sys.argv[1], include_examples=False)
assert not bag.import_errors, bag.import_errors
dag = bag.dags["geosieve_archive"]
tasks = dag.task_dict


def outcome(task_id: str) -> str:
    try:
        return str(tasks[task_id].execute({}))
    except Exception as error:  # noqa: BLE001 - its class is what is asked for
        return type(error).__name__


facts = {
    "dags": sorted(bag.dags),
    "max_active_runs": dag.max_active_runs,
    "catchup": dag.catchup,
    "arrows": {name: sorted(task.downstream_task_ids) for name, task in tasks.items()},
    "rules": {name: task.trigger_rule.value for name, task in tasks.items()},
    "retries": {name: task.retries for name, task in tasks.items()},
    "commands": {name: task.command for name, task in tasks.items()},
    "templated": {name: list(task.template_fields) for name, task in tasks.items()},
    "outcomes": {name: outcome(name) for name in tasks},
}
print(json.dumps(facts))
