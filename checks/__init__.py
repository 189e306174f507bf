"""The checks as tests: ``pytest --pyargs saliency_checks.checks``. Nothing imports from here."""
