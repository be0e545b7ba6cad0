"""What the forms of this plugin offer to choose from."""

from .shared.forms import Form


def models(form: Form) -> list[tuple[str, str]]:
    """The names that mean a version, with a text for each: aliases first, then the newest versions."""
    return form.models()
