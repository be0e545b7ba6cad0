"""The operators of this plugin; it has none yet."""

OPERATORS: tuple[type, ...] = ()
