"""FiftyOne's own delegated worker, a process of its own, for tests."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def worker(log: Path, **env: str) -> Iterator[subprocess.Popen]:
    """Runs `fiftyone delegated launch` until the block ends; its output goes to `log`."""
    command = [str(Path(sys.executable).parent / "fiftyone"), "delegated", "launch"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def schedule(uri: str, dataset: Any, view: Any = None, **params: Any) -> Any:
    """Schedules an operator as a delegated operation; returns the operation's id."""
    import fiftyone.operators as foo

    target = {"view": view} if view is not None else {"dataset": dataset}
    execution = foo.execute_operator(uri, {**target, "params": params, "request_delegation": True})
    return execution.result["id"]


def operation(identity: Any) -> Any:
    """The delegated operation's document as it is now."""
    from fiftyone.operators.delegated import DelegatedOperationService

    return DelegatedOperationService().get(identity)


def wait(identity: Any, *, seconds: float = 240.0, until: Any = None) -> Any:
    """Waits until an operation has ended (or `until(document)` holds) and returns its document."""
    end = time.monotonic() + seconds
    while True:
        document = operation(identity)
        if document.run_state in ("completed", "failed") or (until is not None and until(document)):
            return document
        if time.monotonic() > end:
            raise TimeoutError(f"still {document.run_state} after {seconds} s: {document.status}")
        time.sleep(0.2)


def result(document: Any) -> Mapping[str, Any]:
    """The result of a completed operation; an AssertionError with its error if it failed."""
    outcome = document.result
    error = outcome.get("error") if isinstance(outcome, Mapping) else getattr(outcome, "error", None)
    assert document.run_state == "completed", error
    return outcome["result"] if isinstance(outcome, Mapping) else outcome.result


def error(document: Any) -> str:
    """The error of a failed operation."""
    assert document.run_state == "failed"
    outcome = document.result
    return outcome["error"] if isinstance(outcome, Mapping) else outcome.error


def delegate(uri: str, dataset: Any, view: Any = None, **params: Any) -> Any:
    """Schedules an operator and executes it as a worker does, in this process; returns the operation's document."""
    from fiftyone.operators.delegated import DelegatedOperationService

    scheduled = schedule(uri, dataset, view, **params)
    DelegatedOperationService().execute_operation(operation(scheduled))
    return operation(scheduled)


def form(uri: str, target: Any, **params: Any) -> list[str]:
    """What an operator's form says: the texts of its notices, warnings and errors, and the names of its tables."""
    shown = ("_notice", "_problem", "_table")
    return [
        (i["view"] or {}).get("label") or i.get("label") or ""
        for name, i in _inputs(uri, target, params).items()
        if name.startswith(shown)
    ]


def table(uri: str, target: Any, **params: Any) -> list[dict[str, str]]:
    """The rows of the first table in an operator's form."""
    inputs = _inputs(uri, target, params)
    return next((i["default"] for name, i in inputs.items() if name.startswith("_table")), [])


def _inputs(uri: str, target: Any, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties of a form on a dataset or view, as the App gets them."""
    import asyncio

    from fiftyone.operators.executor import resolve_type
    from fiftyone.operators.registry import OperatorRegistry

    view = target.view()
    request = {"dataset_name": view.dataset_name, "view": view._serialize(), "params": params}
    drawn = asyncio.run(resolve_type(OperatorRegistry(), uri, request))
    return drawn.to_json()["type"]["properties"]


def code(plugin: str, module: str) -> Any:
    """A module of a plugin as FiftyOne has loaded it, such as `shared.runs`: the plugin's own copy."""
    import importlib

    from fiftyone.operators.registry import OperatorRegistry

    operator = next(o for o in OperatorRegistry().list_operators() if o.uri.startswith(f"@mbari/{plugin}/"))
    # The name of its package depends on FiftyOne's version.
    return importlib.import_module(f"{type(operator).__module__.rpartition('.')[0]}.{module}")
