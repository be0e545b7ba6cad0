import pytest

# Shared tests, imported by the test file of each store: their assertions are to say as much as anyone's.
pytest.register_assert_rewrite("tests.shared.sync.stores.conformance")
