"""`python -m sparkd.provision` is what `make run` starts: the quickstart."""

import sys


def main() -> int:
    try:
        # Imported here, so that Ctrl-C in the first half second is answered like any later one.
        from sparkd.provision import quickstart  # noqa: PLC0415
    except KeyboardInterrupt:
        print("\ninterrupted; the next `make run` goes on from here")
        return 130
    return quickstart.main()


if __name__ == "__main__":
    sys.exit(main())
