"""A Python panel without the App: events go through FiftyOne's own machinery, answers are kept as the App would."""

import asyncio
from typing import Any

import pydash


class Panel:
    """One open panel.

    Attributes:
        state: what the App sends along with each event
        shown: the properties that were drawn last, by name, as JSON
        data: what the panel gave them to show
        prompted: (URI, parameters) of the forms that it opened
        afterwards: what it does when the last of them was executed
    """

    def __init__(self, uri: str, dataset: Any) -> None:
        self._uri, self._dataset = uri, dataset
        self.state: dict[str, Any] = {}
        self.shown: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.prompted: list[tuple[str, dict[str, Any]]] = []
        self.told: list[str] = []
        self.afterwards = ""

    def do(self, method: str, **params: Any) -> "Panel":
        """Lets something happen, such as `on_load`; an error of the panel is raised."""
        from fiftyone.operators.executor import execute_or_delegate_operator

        given = {"__method__": method, "panel_id": "panel", "panel_state": self.state, **params}
        request = {"dataset_name": self._dataset.name, "params": given}
        result = asyncio.run(execute_or_delegate_operator(self._uri, request))
        result.raise_exceptions()
        for asked in result.executor.to_json()["requests"]:
            self._take(asked["operator_uri"], asked["params"] or {})
        return self

    def texts(self) -> str:
        """All that stands in Markdown, in the order it is drawn."""
        return "\n".join(
            str(drawn.get("default") or (drawn["view"] or {}).get("label") or "") for drawn in self.shown.values()
        )

    def _take(self, operator: str, params: dict[str, Any]) -> None:
        if operator == "patch_panel_state":
            for key, value in params["state"].items():
                pydash.set_(self.state, key, value)  # "one.two" is the key "two" of what "one" holds
        elif operator == "patch_panel_data":
            self.data.update(params["data"])
        elif operator == "show_panel_output":
            self.shown = params["output"]["type"]["properties"]
        elif operator == "prompt_user_for_operation":
            self.prompted.append((params["operator_uri"], params["params"]))
            self.afterwards = params["on_success"].removeprefix(f"{self._uri}#")
        elif operator == "notify":
            self.told.append(params["message"])
