"""``python -m pipeline.cli`` is ``xidmet``."""

from pipeline.cli.main import main

main()
