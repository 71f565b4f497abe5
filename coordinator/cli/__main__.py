"""`geotrain`, or `python -m coordinator.cli`."""

from coordinator.cli.commands import main

if __name__ == "__main__":
    main()
