"""`python -m consumer`: the same as `bnpl-shadow`."""

from consumer.cli.main import main

if __name__ == "__main__":
    main()
