"""`python -m catga` is the `catga` program."""

from catga.cli import main

if __name__ == "__main__":
    main()
