"""The story of `make demo`, in short."""

import io

from rich.console import Console

from dkv import demo
from dkv.client import Client


def tell(files_max):
    text = io.StringIO()
    status = demo.run(Console(file=text), files_max=files_max)
    return status, text.getvalue()


def test_the_story_ends_well():
    status, text = tell(files_max=300)
    assert status == 0, text
    assert "301 values are there, identical byte for byte" in text
    assert "not applied" in text and "BROKEN" not in text
    assert "\x1b" not in text


def test_a_wrong_byte_ends_the_story_badly(monkeypatch):
    right = Client.get_many

    def wrong(self, keys, **options):
        values = right(self, keys, **options)
        return [value[:-1] + b"?" if value else value for value in values]

    monkeypatch.setattr(Client, "get_many", wrong)
    status, text = tell(files_max=20)
    assert status == 1
    assert "BROKEN" in text and "missing or different" in text
