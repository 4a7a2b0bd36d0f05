"""`python -m dkv` is the command dkv."""

from dkv.cli import main

main()
