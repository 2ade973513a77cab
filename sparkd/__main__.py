"""`python -m sparkd` is the `sparkd` command."""

from sparkd.daemon import main

if __name__ == "__main__":
    main()
