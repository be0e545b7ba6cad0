"""Operators of the suite, run from a script: scheduled for a delegated worker, or at once; their results and errors."""

import re
import sys
import time
from typing import Any

import surroundings


class DemoError(Exception):
    """A step of the demo failed; the message is one sentence."""


def execute(worker, dataset, operator: str, params: dict[str, Any]) -> dict[str, Any]:
    """Schedules an operator of the suite and waits for the worker to have executed it.

    Returns:
        the operator's result

    Raises:
        DemoError: when it failed, with its own sentence
    """
    from bson import ObjectId
    from fiftyone.operators.delegated import DelegatedOperationService

    scheduled = _start(operator, {"dataset": dataset, "params": params, "request_delegation": True})
    service, shown = DelegatedOperationService(), ""
    while True:
        operation = service.get(ObjectId(str(scheduled["id"])))
        if operation.run_state == "completed":
            show_progress("", shown)
            dataset.reload()
            return (operation.result.result if operation.result else None) or {}
        if operation.run_state == "failed":
            show_progress("", shown)
            raise DemoError(f"{operator}: {sentence(operation.result.error if operation.result else None)}")
        if worker.poll() is not None:
            raise DemoError(f"the delegated worker ended by itself; see {surroundings.DEMO / 'worker.log'}")
        label = operation.status.label if operation.status and operation.status.label else operation.run_state
        shown = show_progress(label, shown)
        time.sleep(0.5)


def at_once(view, operator: str, params: dict[str, Any]) -> dict[str, Any]:
    """Executes an operator of the suite on a view, here and now; returns its result.

    Raises:
        DemoError: when it failed, with its own sentence
    """
    result = _start(operator, {"view": view.view(), "params": params})
    view._root_dataset.reload()
    return result


def _start(operator: str, request: dict[str, Any]) -> dict[str, Any]:
    import fiftyone.operators as foo
    from fiftyone.operators.executor import ExecutionError
    from fiftyone.operators.registry import OperatorRegistry

    registry = OperatorRegistry()
    if not registry.operator_exists(f"@mbari/{operator}"):
        reasons = [sentence(error) for error in registry.list_errors()] or ["look at the output above"]
        raise DemoError(f"{operator} did not register: {reasons[-1]}")
    try:
        return foo.execute_operator(f"@mbari/{operator}", request).result
    except ExecutionError as error:
        raise DemoError(f"{operator}: {sentence(str(error))}") from error


def show_progress(label: str, before: str) -> str:
    """One line that renews itself on a terminal, else a line per stage of the work; returns what it showed."""
    if sys.stdout.isatty():
        print(f"\r   {label:<{len(before)}}" if label else f"\r{'':<{len(before) + 3}}\r", end="", flush=True)
    elif label and label.split(":")[0] != before.split(":")[0]:
        print(f"   {label}", flush=True)
    return label


def sentence(error: str | None) -> str:
    """The one sentence meant for a person, out of what FiftyOne keeps of an error."""
    if not error:
        return "it failed and left no message"
    ours = re.search(r"^mbari\.\w+: (.+)$", error, re.MULTILINE)
    return ours[1] if ours else error.strip().splitlines()[-1]
