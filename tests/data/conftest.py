import os

import pytest


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Waiting for the disk proves nothing here; `test_files_are_synced_in_order` looks at the calls instead."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
