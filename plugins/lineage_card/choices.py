"""What the forms of this plugin offer to choose from."""

from .shared.forms import Form, cached
from .shared.lineage.registry import Registry

SECONDS = 5  # that a list is remembered while a form is open


def models(form: Form) -> list[tuple[str, str]]:
    """The names that mean a version, with a text for each: aliases first, then the newest versions."""

    def look() -> list[tuple[str, str]]:
        registry = Registry(form.db)
        named = []
        for model in registry.models():
            for alias, version in registry.aliases(model).items():
                named.append((f"{model}@{alias}", f"{model}@{alias} ({version})"))
        return named + [(record.name, record.name) for record in registry.versions()[:50]]

    return cached("lineage_card/models", look, seconds=SECONDS)
