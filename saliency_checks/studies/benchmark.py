"""Which method beats a random map, by which metric? The comparison of Gevaert et al. 2024."""

from __future__ import annotations

import argparse

from saliency_checks.studies.store import Store


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def measure(options: argparse.Namespace, store: Store) -> None:
    pass


def report(options: argparse.Namespace, store: Store) -> None:
    store.table()
